//! `ambra config`: what is in force, and where each value comes from.
use std::{collections::BTreeMap, fmt::Write, path::PathBuf};

use clap::ArgAction;
use serde_json::{Value, json};

use super::{
    Config, Origin,
    args::{command, is_setting},
    layers::{CONF, Given},
};

/// A setting as `ambra config` and the reference in `docs/configuration.md` tell of it.
pub(super) struct Setting {
    pub name: String,
    pub heading: String,
    pub help: String,
    pub value_name: String,
    pub is_list: bool,
    /// In words, from the help text's `[default: …]`.
    pub default: Option<String>,
}

/// All settings, in the order of the help.
pub(super) fn settings() -> Vec<Setting> {
    let command = command();
    let arguments = command.get_arguments().filter(|arg| is_setting(arg));
    let setting = |arg: &clap::Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (help, default) = match help.rsplit_once("[default: ") {
            Some((help, default)) => (help, Some(default.trim_end_matches(']').to_owned())),
            None => (&*help, None),
        };
        let value_name = arg.get_value_names().and_then(|names| names.first());
        Setting {
            name: arg.get_long().unwrap_or_default().to_owned(),
            heading: arg.get_help_heading().unwrap_or("Settings").to_owned(),
            help: help.trim().to_owned(),
            value_name: value_name.map(ToString::to_string).unwrap_or_default(),
            is_list: matches!(arg.get_action(), ArgAction::Append),
            default,
        }
    };
    arguments.map(setting).collect()
}

/// A command as the reference and the manual page tell of it.
pub(super) struct CommandLine {
    /// As `ambra address ADDRESS`.
    pub usage: String,
    pub about: String,
}

/// All commands, in the order of the help.
pub(super) fn commands() -> Vec<CommandLine> {
    let mut found = Vec::new();
    for verb in command().get_subcommands() {
        collect(&mut found, "ambra", verb);
    }
    found
}

fn collect(found: &mut Vec<CommandLine>, before: &str, verb: &clap::Command) {
    let name = format!("{before} {}", verb.get_name());
    if verb.has_subcommands() {
        for verb in verb.get_subcommands() {
            collect(found, &name, verb);
        }
        return;
    }
    let arguments: String = verb
        .get_positionals()
        .map(|arg| format!(" {}", arg.get_id().as_str().to_ascii_uppercase()))
        .collect();
    let mut about = verb
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    let options = verb.get_arguments().filter(|arg| !arg.is_hide_set());
    for arg in options {
        if let (Some(long), Some(help)) = (arg.get_long(), arg.get_help()) {
            about.push_str(&format!(". --{long}: {help}"));
        }
    }
    found.push(CommandLine {
        usage: format!("{name}{arguments}"),
        about,
    });
}

/// False of `--conf`: a settings file cannot name another.
pub(super) fn is_in_file(setting: &Setting) -> bool {
    setting.name != CONF
}

/// # Security
/// What must never be shown. By the name's parts, so that a new secret is hidden too.
fn is_secret(name: &str) -> bool {
    let mut parts = name.split('-');
    name == "rpc-user" || parts.any(|part| ["password", "secret", "token"].contains(&part))
}

/// Everything that `ambra config` tells.
#[derive(Clone, Debug)]
pub struct Report {
    given: Vec<Given>,
    /// The file that was read, and the one that is read where none is named.
    file: Option<PathBuf>,
    usual_file: Option<PathBuf>,
    /// Defaults that depend on the machine or the network.
    defaults: BTreeMap<&'static str, Vec<String>>,
}

/// A setting's value as it is in force.
enum InForce<'a> {
    Given(&'a Given),
    /// A value that could be given.
    Default(Vec<String>),
    /// A default that only words can tell.
    Words(Option<&'a str>),
}

impl Report {
    pub(super) fn new(
        given: Vec<Given>,
        file: Option<PathBuf>,
        usual_file: Option<PathBuf>,
        config: &Config,
    ) -> Report {
        let mut defaults = BTreeMap::new();
        defaults.insert("db-dir", vec![config.db_root.display().to_string()]);
        // They depend on the profile and the machine.
        let mebibytes = |bytes: usize| vec![(bytes / (1024 * 1024)).to_string()];
        defaults.insert("sync-memory", mebibytes(config.sync_memory_bytes));
        defaults.insert("cache-memory", mebibytes(config.cache_memory_bytes));
        defaults.insert("threads", vec![config.threads.to_string()]);
        if let Some(network) = config.network {
            defaults.insert("listen", config.listen_urls(network));
        }
        Report {
            given,
            file,
            usual_file,
            defaults,
        }
    }

    fn in_force<'a>(&'a self, setting: &'a Setting) -> InForce<'a> {
        if let Some(given) = self.given.iter().find(|given| given.name == setting.name) {
            return InForce::Given(given);
        }
        if let Some(values) = self.defaults.get(setting.name.as_str()) {
            return InForce::Default(values.clone());
        }
        let Some(words) = setting.default.as_deref() else {
            return InForce::Words(None);
        };
        // "auto, the fastest that works"
        let value = words.split([',', ';']).next().unwrap_or(words);
        match value.contains([' ', '/']) {
            false => InForce::Default(vec![value.to_owned()]),
            true => InForce::Words(Some(words)),
        }
    }

    /// As a settings file that would give the same, with comments.
    pub fn toml(&self) -> String {
        let mut text = "# Ambra's settings in force, each with where it comes from.\n".to_owned();
        // Writing to memory does not fail.
        let _ = match (&self.file, &self.usual_file) {
            (Some(file), _) => writeln!(text, "# Settings file: {}", file.display()),
            (None, Some(usual)) => writeln!(
                text,
                "# Settings file: none (no --conf, and no {})",
                usual.display()
            ),
            (None, None) => writeln!(text, "# Settings file: none"),
        };
        let mut heading = String::new();
        for setting in settings().into_iter().filter(is_in_file) {
            if setting.heading != heading {
                let _ = writeln!(text, "\n# {}", setting.heading);
                heading.clone_from(&setting.heading);
            }
            let name = &setting.name;
            let _ = match self.in_force(&setting) {
                InForce::Given(given) if is_secret(name) => {
                    writeln!(text, "# {name} is set, and not shown  # {}", given.origin)
                }
                InForce::Given(given) => {
                    let value = toml_value(&given.values, setting.is_list);
                    writeln!(text, "{name} = {value}  # {}", given.origin)
                }
                InForce::Default(values) => {
                    let value = toml_value(&values, setting.is_list);
                    writeln!(text, "{name} = {value}  # default")
                }
                InForce::Words(Some(words)) => writeln!(
                    text,
                    "# {name} = {}  # default: {}",
                    setting.value_name,
                    one_line(words)
                ),
                InForce::Words(None) => writeln!(
                    text,
                    "# {name} = {}  # not set: {}",
                    setting.value_name,
                    one_line(&setting.help)
                ),
            };
        }
        text
    }

    /// The same for programs: `value` is null where nothing is set or the value is secret.
    pub fn json(&self) -> Value {
        let mut all = serde_json::Map::new();
        for setting in settings().into_iter().filter(is_in_file) {
            let hidden = is_secret(&setting.name);
            let value = |values: &[String]| match (hidden, setting.is_list, values) {
                (true, _, _) => Value::Null,
                (false, false, [value]) => json!(value),
                (false, _, values) => json!(values),
            };
            let (value, from, place) = match self.in_force(&setting) {
                InForce::Given(given) => {
                    let from = match &given.origin {
                        Origin::Option(_) => "option",
                        Origin::Environment(_) => "environment",
                        Origin::File { .. } => "file",
                    };
                    let place = Some(given.origin.to_string());
                    (value(&given.values), from, place)
                }
                InForce::Default(values) => (value(&values), "default", None),
                InForce::Words(words) => (Value::Null, "default", words.map(one_line)),
            };
            let told = json!({"value": value, "from": from, "where": place, "hidden": hidden});
            all.insert(setting.name, told);
        }
        json!({"file": self.file, "settings": all})
    }
}

fn one_line(words: &str) -> String {
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn toml_value(values: &[String], is_list: bool) -> String {
    let one = |value: &String| match value.parse::<i64>() {
        // Only what reads back as it was written: no "+1", no "007".
        Ok(number) if number.to_string() == *value => value.clone(),
        _ => toml::Value::String(value.clone()).to_string(),
    };
    match (is_list, values) {
        (false, [value]) => one(value),
        (_, values) => {
            let values: Vec<_> = values.iter().map(one).collect();
            format!("[{}]", values.join(", "))
        }
    }
}
