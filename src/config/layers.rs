//! The three places where a setting can stand, laid over each other.
//!
//! An entry of the environment or of the file is turned into the option of the same name and goes through
//! the option's own parser: so a setting has one meaning wherever it stands, and an option added to
//! [`super::args::Settings`] can at once be set in all three places.
use std::{
    cmp::Reverse,
    error::Error,
    ffi::{OsStr, OsString},
    fmt,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use super::{
    ConfigError,
    args::{Args, brief_command, command, is_setting},
};

/// What the name of each of our environment variables begins with.
const ENV_PREFIX: &str = "AMBRA_";
/// The option that names the file; the one that cannot stand in it.
pub(super) const CONF: &str = "conf";

/// Where a setting stands, as an error tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Option(String),
    Environment(String),
    File { path: PathBuf, key: String },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name) => write!(f, "--{name}"),
            Self::Environment(name) => write!(f, "{name} in the environment"),
            Self::File { path, key } => write!(f, "{key} in {}", path.display()),
        }
    }
}

/// One setting outside the command line.
pub(super) struct Entry {
    origin: Origin,
    /// The option's long name.
    name: String,
    values: Vec<OsString>,
}

impl Entry {
    fn as_options(&self) -> impl Iterator<Item = OsString> + '_ {
        self.values.iter().map(|value| {
            let mut option = OsString::from(format!("--{}=", self.name));
            option.push(value);
            option
        })
    }

    /// Refuses what the option's own parser refuses, even where a stronger layer hides the entry: a typo is
    /// to be seen when it is made.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let program = OsString::from("ambra");
        command()
            .try_get_matches_from(std::iter::once(program).chain(self.as_options()))
            .map(drop)
            .map_err(|error| ConfigError::Value {
                origin: self.origin.clone(),
                reason: reason(&error),
            })
    }
}

/// What all layers together say.
pub(super) struct Layers {
    pub args: Args,
    /// Each setting that some layer gives, with the strongest one that does.
    pub given: Vec<Given>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

/// A setting that is not left at its default.
#[derive(Clone, Debug)]
pub(super) struct Given {
    pub name: String,
    pub values: Vec<String>,
    pub origin: Origin,
}

/// The verb, and the settings from all layers: option before environment before file. `usual_file` is read where no
/// other file is named, if it is there.
pub(super) fn layers(
    argv: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
    usual_file: Option<&Path>,
) -> Result<Layers, ConfigError> {
    let mut command = command();
    let (verbs, options) = verbs_first(&command, argv);
    let argv: Vec<_> = verbs.iter().chain(&options).cloned().collect();
    let typed = command
        .try_get_matches_from_mut(&argv)
        .map_err(|error| typed_error(as_asked(error, &argv)))?;
    let environment = environment_entries(&command, environment)?;

    let named = match typed.get_one::<PathBuf>(CONF) {
        Some(path) => Some(path.clone()),
        None => environment
            .iter()
            .find(|entry| entry.name == CONF)
            .and_then(|entry| entry.values.first())
            .map(PathBuf::from),
    };
    let text = match (&named, usual_file) {
        (Some(path), _) => Some((path.as_path(), read(path)?)),
        (None, Some(path)) => read_if_there(path)?.map(|text| (path, text)),
        (None, None) => None,
    };
    let file_entries = match &text {
        Some((path, text)) => file_entries(&command, path, text)?,
        None => Vec::new(),
    };

    for entry in environment.iter().chain(&file_entries) {
        entry.check()?;
    }
    let stronger = |entry: &Entry| environment.iter().any(|other| other.name == entry.name);
    let hidden = file_entries.iter().filter(|entry| !stronger(entry));
    // Before what was typed, where a "--" may stand.
    let mut all = verbs;
    let mut weaker = Vec::new();
    for entry in environment.iter().chain(hidden) {
        if !is_typed(&command, &typed, &entry.name) {
            all.extend(entry.as_options());
            weaker.push(entry);
        }
    }
    all.extend(options);
    let matches = command.try_get_matches_from_mut(all).map_err(typed_error)?;
    let origin = |name: &str| match weaker.iter().find(|entry| entry.name == name) {
        Some(entry) => entry.origin.clone(),
        None => Origin::Option(name.to_owned()),
    };
    let settings = command.get_arguments().filter(|arg| is_setting(arg));
    let given = settings.filter_map(|arg| {
        let values = matches.get_raw(arg.get_id().as_str())?;
        let name = arg.get_long()?;
        Some(Given {
            name: name.to_owned(),
            values: values.map(|v| v.to_string_lossy().into_owned()).collect(),
            origin: origin(name),
        })
    });
    Ok(Layers {
        given: given.collect(),
        args: Args::from_arg_matches(&matches).map_err(ConfigError::Usage)?,
        file: text.map(|(path, _)| path.to_owned()),
    })
}

/// `-h` asks for the short help where `--help` asks for all.
fn as_asked(error: clap::Error, argv: &[OsString]) -> clap::Error {
    let has = |word: &str| argv.iter().any(|argument| argument == word);
    if error.kind() != clap::error::ErrorKind::DisplayHelp || !has("-h") || has("--help") {
        return error;
    }
    let brief = brief_command().try_get_matches_from(argv).err();
    brief.unwrap_or(error)
}

/// The program's name and the verbs, and then all the rest with the options that stood before a verb: clap forgets
/// what is given before a verb where the same is given after it.
fn verbs_first(
    command: &Command,
    argv: impl IntoIterator<Item = OsString>,
) -> (Vec<OsString>, Vec<OsString>) {
    let mut argv = argv.into_iter();
    let mut verbs: Vec<OsString> = argv.next().into_iter().collect();
    let mut options = Vec::new();
    let mut here = command;
    while let Some(word) = argv.next() {
        let verb = word
            .to_str()
            .and_then(|word| here.get_subcommands().find(|verb| verb.get_name() == word));
        if let Some(verb) = verb {
            verbs.push(word);
            here = verb;
            continue;
        }
        let long = word.to_str().and_then(|word| word.strip_prefix("--"));
        let name = long.map(|long| long.split('=').next().unwrap_or(long));
        let is_setting = name.is_some_and(|name| option(command, name).is_some());
        let has_value = long.is_some_and(|long| long.contains('='));
        options.push(word);
        if !is_setting {
            break;
        }
        if !has_value {
            options.extend(argv.next());
        }
    }
    options.extend(argv);
    (verbs, options)
}

fn is_typed(command: &Command, typed: &ArgMatches, name: &str) -> bool {
    option(command, name).is_some_and(|arg| typed.contains_id(arg.get_id().as_str()))
}

fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command
        .get_arguments()
        .find(|arg| arg.get_long() == Some(name) && is_setting(arg))
}

/// A variable of ours that we do not know is an error: in container files misspelt ones live for years.
/// An empty one counts as absent, as those files write it.
fn environment_entries(
    command: &Command,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Vec<Entry>, ConfigError> {
    let mut entries = Vec::new();
    for (variable, value) in environment {
        let Some(key) = variable.to_str().and_then(|v| v.strip_prefix(ENV_PREFIX)) else {
            continue;
        };
        let name = key.to_ascii_lowercase().replace('_', "-");
        let canonical = name.to_ascii_uppercase().replace('-', "_");
        let origin = Origin::Environment(format!("{ENV_PREFIX}{key}"));
        if option(command, &name).is_none() || canonical != key {
            let nearest = nearest(command, &name);
            return Err(ConfigError::UnknownKey {
                origin,
                nearest: format!(
                    "{ENV_PREFIX}{}",
                    nearest.to_ascii_uppercase().replace('-', "_")
                ),
            });
        }
        if !value.is_empty() {
            let values = vec![value];
            entries.push(Entry {
                origin,
                name,
                values,
            });
        }
    }
    Ok(entries)
}

/// A file that nobody named may be absent.
fn read_if_there(path: &Path) -> Result<Option<String>, ConfigError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(ConfigError::Unreadable { error, .. }) if error.kind() == ErrorKind::NotFound => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        error,
    })
}

pub(super) fn file_entries(
    command: &Command,
    path: &Path,
    text: &str,
) -> Result<Vec<Entry>, ConfigError> {
    let table: toml::Table = text.parse().map_err(|error| syntax(path, text, &error))?;
    let mut entries = Vec::new();
    for (key, value) in &table {
        let origin = Origin::File {
            path: path.to_owned(),
            key: key.clone(),
        };
        let arg = match option(command, key) {
            Some(arg) if key != CONF => arg,
            _ if value.is_table() => {
                return Err(ConfigError::Value {
                    origin,
                    reason: format!("this file has no sections: leave the line [{key}] out"),
                });
            }
            _ => {
                let nearest = nearest(command, key);
                return Err(ConfigError::UnknownKey { origin, nearest });
            }
        };
        let values = match (value, arg.get_action()) {
            (toml::Value::Array(items), ArgAction::Append) => items.iter().map(scalar).collect(),
            (value, _) => scalar(value).map(|value| vec![value]),
        };
        let Some(values) = values else {
            return Err(ConfigError::Value {
                origin,
                reason: "give a text in quotes, or a number".to_owned(),
            });
        };
        entries.push(Entry {
            origin,
            name: key.clone(),
            values,
        });
    }
    Ok(entries)
}

fn scalar(value: &toml::Value) -> Option<OsString> {
    match value {
        toml::Value::String(text) => Some(OsStr::new(text).to_owned()),
        toml::Value::Integer(number) => Some(number.to_string().into()),
        // A protocol version written as a number: 1.4.
        toml::Value::Float(number) => Some(number.to_string().into()),
        toml::Value::Boolean(_)
        | toml::Value::Datetime(_)
        | toml::Value::Array(_)
        | toml::Value::Table(_) => None,
    }
}

/// # Security
/// The parser's own display shows the line, and the line may be the password's.
fn syntax(path: &Path, text: &str, error: &toml::de::Error) -> ConfigError {
    let before = error.span().and_then(|span| text.get(..span.start));
    ConfigError::Syntax {
        path: path.to_owned(),
        line: before.map_or(0, |before| before.matches('\n').count()) + 1,
        message: error.message().to_owned(),
    }
}

/// An error of the command line: clap's own words, but for a value that a parser of ours refused.
fn typed_error(error: clap::Error) -> ConfigError {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let name = match error.get(ContextKind::InvalidArg) {
        // "--listen <URL>"
        Some(ContextValue::String(usage)) => usage.split_whitespace().next(),
        _ => None,
    };
    match (error.kind(), name) {
        (ErrorKind::ValueValidation, Some(name)) => ConfigError::Value {
            origin: Origin::Option(name.trim_start_matches('-').to_owned()),
            reason: reason(&error),
        },
        _ => ConfigError::Usage(error),
    }
}

/// Our parser's words. clap's message repeats the value, which may be a secret.
fn reason(error: &clap::Error) -> String {
    match error.source() {
        Some(source) => source.to_string(),
        None => "a value is missing or is not text".to_owned(),
    }
}

/// The name of a setting that `wrong` was most likely meant to be. Of equals the longest: people leave parts
/// out (daemon-url) more often than they put some in.
fn nearest(command: &Command, wrong: &str) -> String {
    let wrong = wrong.to_ascii_lowercase().replace('_', "-");
    command
        .get_arguments()
        .filter(|arg| is_setting(arg))
        .filter_map(Arg::get_long)
        .filter(|name| *name != CONF)
        .min_by_key(|name| (edits(&wrong, name), Reverse(name.len())))
        .unwrap_or_default()
        .to_owned()
}

/// Letters to take out and to put in to make one of the other; a wrong letter is both.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + 2 * usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("", ""), 0);
        assert_eq!(edits("listen", "listen"), 0);
        assert_eq!(edits("lisen", "listen"), 1);
        assert_eq!(edits("kitten", "sitting"), 5);
    }

    #[test]
    fn help_and_version_are_no_settings() {
        let mut command = command();
        command.build();
        assert!(option(&command, "help").is_none());
        assert!(option(&command, "version").is_none());
        assert!(option(&command, "listen").is_some());
    }
}
