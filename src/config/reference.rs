//! `docs/configuration.md`, written from the command line's own definition, so that it is complete.
use std::fmt::Write;

use super::report::{commands, is_in_file, settings};

const HEAD: &str = "\
# Configuration

<!-- A test writes this page from the options' definitions: AMBRA_WRITE_DOCS=1 cargo test --release --lib config -->

Ambra needs no setting beside a bitcoind with default settings. Everything below is for other cases.

Each setting can stand in three places, and means the same in each:

1. as an option of the command line, before or after the command: `--db-dir /srv/ambra`;
2. as a variable of the environment: `AMBRA_DB_DIR=/srv/ambra`. Several values are separated by commas. An empty
   variable counts as absent;
3. as a line of a TOML file: `db-dir = \"/srv/ambra\"`. A setting that may be given several times takes a list:
   `listen = [\"tcp://127.0.0.1:50001\", \"tls://0.0.0.0:50002\"]`.

An option goes before the environment, the environment before the file, the file before the default. A list of a
stronger place replaces that of a weaker one.

The file is the one that `--conf` (or `AMBRA_CONF`) names, else `ambra/ambra.toml` in the user's configuration
directory (Linux: `~/.config`) if there is one.

An unknown key, option or variable that begins with `AMBRA_` is an error that names the nearest right one, and so is a
wrong value, even where a stronger place hides it. `ambra config` prints what is in force and where each value comes
from; passwords are never printed.
";

/// The whole page.
pub(super) fn page() -> String {
    let mut text = HEAD.to_owned();
    let mut heading = String::new();
    // Writing to memory does not fail.
    for setting in settings().into_iter().filter(is_in_file) {
        if setting.heading != heading {
            let _ = write!(
                text,
                "\n## {}\n\n| setting | variable | default | |\n|---|---|---|---|\n",
                setting.heading
            );
            heading.clone_from(&setting.heading);
        }
        let variable = setting.name.to_ascii_uppercase().replace('-', "_");
        let _ = writeln!(
            text,
            "| `{} = {}` | `AMBRA_{variable}` | {} | {} |",
            setting.name,
            setting.value_name,
            cell(setting.default.as_deref().unwrap_or("–")),
            cell(&setting.help)
        );
    }
    text.push_str("\n## Commands\n\n| command | |\n|---|---|\n");
    for command in commands() {
        let _ = writeln!(text, "| `{}` | {} |", command.usage, cell(&command.about));
    }
    text.push_str(
        "\n## Exit codes\n\n\
         | code | |\n|---|---|\n\
         | 0 | done, or stopped as asked (SIGINT, SIGTERM) |\n\
         | 1 | could not go on: the last lines of the log say why and what mends it; or `doctor` or `verify` found a fault |\n\
         | 2 | a wrong option, variable or line of the file |\n",
    );
    text
}

/// Text for one cell of a table.
fn cell(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_in_the_documents_is_what_the_options_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let page = page();
        if std::env::var_os("AMBRA_WRITE_DOCS").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == page,
            "docs/configuration.md is not of today: AMBRA_WRITE_DOCS=1 writes it"
        );
        for setting in settings().into_iter().filter(is_in_file) {
            let is_told = page.contains(&format!("`{} = ", setting.name));
            assert!(is_told, "{}", setting.name);
        }
    }
}
