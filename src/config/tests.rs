use std::io::Write;

use super::*;

/// A configuration from options and variables.
fn config(options: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    invocation(options, environment).map(|invocation| invocation.config)
}

fn invocation(options: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, ConfigError> {
    let argv = ["ambra"].iter().chain(options).map(OsString::from);
    let environment = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Invocation::from_sources(argv, environment, None)
}

fn error(options: &[&str], environment: &[(&str, &str)]) -> String {
    config(options, environment)
        .expect_err("should be refused")
        .to_string()
}

/// A file with these lines.
fn file(lines: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(lines.as_bytes()).expect("written");
    file
}

fn path(file: &tempfile::NamedTempFile) -> &str {
    file.path().to_str().expect("a path of plain letters")
}

#[test]
fn without_any_setting_everything_has_a_default() {
    let config = config(&[], &[]).unwrap();
    assert_eq!(config.network, None);
    assert_eq!(config.block_source, BlockSourceChoice::Auto);
    assert_eq!(config.sync_memory_bytes, 1 << 30);
    assert_eq!(config.cache_memory_bytes, 256 << 20);
    assert_eq!(config.log_format, LogFormat::Human);
    assert!(config.db_dir(Network::Signet).ends_with("ambra/signet"));
    assert_eq!(
        config.listen_urls(Network::Bitcoin),
        ["tcp://127.0.0.1:50001"]
    );
}

#[test]
fn every_network_has_its_own_port_and_folder() {
    let config = config(&["--db-dir", "/srv/ambra"], &[]).unwrap();
    let mut ports = std::collections::BTreeSet::new();
    for (name, network) in values::NETWORKS {
        assert_eq!(
            config.db_dir(network),
            PathBuf::from("/srv/ambra").join(name)
        );
        assert!(ports.insert(usual_port(network)));
    }
}

#[test]
fn option_goes_before_environment_before_file_before_default() {
    let file =
        file("db-dir = \"/file\"\nsync-memory = 100\ncache-memory = 100\nserver-name = \"file\"");
    let config = config(
        &["--conf", path(&file), "--db-dir", "/option"],
        &[
            ("AMBRA_DB_DIR", "/environment"),
            ("AMBRA_SYNC_MEMORY", "200"),
        ],
    )
    .unwrap();
    assert_eq!(config.db_root, PathBuf::from("/option"));
    assert_eq!(config.sync_memory_bytes, 200 << 20);
    assert_eq!(config.cache_memory_bytes, 100 << 20);
    assert_eq!(config.server_name.as_deref(), Some("file"));
    assert_eq!(config.banner, None);
}

#[test]
fn a_list_of_a_stronger_layer_replaces_the_weaker_one() {
    let file = file("listen = [\"tcp://127.0.0.1:1\", \"tcp://127.0.0.1:2\"]");
    let conf = path(&file);
    let from_file = config(&["--conf", conf], &[]).unwrap();
    assert_eq!(from_file.listen, ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]);
    let environment = [("AMBRA_LISTEN", "tcp://127.0.0.1:3,unix:/x")];
    let from_environment = config(&["--conf", conf], &environment).unwrap();
    assert_eq!(from_environment.listen, ["tcp://127.0.0.1:3", "unix:/x"]);
    let options = ["--conf", conf, "--listen", "tcp://127.0.0.1:4"];
    let from_option = config(&options, &environment).unwrap();
    assert_eq!(from_option.listen, ["tcp://127.0.0.1:4"]);
}

#[test]
fn the_status_page_is_on_loopback_at_its_own_port_or_where_it_is_told() {
    let usual = config(&[], &[]).unwrap();
    assert_eq!(usual.admin_listen, AdminListen::Usual);
    let mut ports: Vec<String> = Vec::new();
    for (_, network) in values::NETWORKS {
        let at = usual.admin_usual(network);
        assert!(at.starts_with("127.0.0.1:"), "{at}");
        let taken = usual.listen_urls(network);
        assert!(!taken[0].ends_with(&at), "{at}");
        ports.push(at);
    }
    let count = ports.len();
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), count, "a port for each network");
    let of = |text| config(&["--admin-listen", text], &[]).map(|config| config.admin_listen);
    assert_eq!(of("off").unwrap(), AdminListen::Off);
    for text in ["0.0.0.0:8080", "[::1]:0", "node.home:80"] {
        assert_eq!(of(text).unwrap(), AdminListen::At(text.to_owned()));
    }
    for text in [
        "",
        "on",
        "8080",
        ":8080",
        "::1:80",
        "http://localhost:80",
        "host:99999",
    ] {
        assert!(of(text).is_err(), "{text}");
    }
    let named = config(&["--admin-host", "a.example,b"], &[]).unwrap();
    assert_eq!(named.admin_host, ["a.example", "b"]);
    assert!(config(&["--admin-host", "http://a.example"], &[]).is_err());
    assert!(config(&["--admin-host", "a.example:80"], &[]).is_err());
}

#[test]
fn the_file_can_be_named_by_the_environment() {
    let file = file("network = \"signet\"");
    let config = config(&[], &[("AMBRA_CONF", path(&file))]).unwrap();
    assert_eq!(config.network, Some(Network::Signet));
}

#[test]
fn variables_of_others_and_empty_ones_are_left_alone() {
    let environment = [("HOME", "/root"), ("AMBRA_NETWORK", ""), ("AMBRAGE", "x")];
    assert_eq!(config(&[], &environment).unwrap().network, None);
}

#[test]
fn an_unknown_key_in_the_file_names_the_nearest_right_one() {
    for (line, nearest) in [
        ("db_dir = \"/x\"", "db-dir"),
        ("lisen = \"tcp://127.0.0.1:1\"", "listen"),
        ("daemon-url = \"http://127.0.0.1\"", "daemon-rpc-url"),
    ] {
        let file = file(line);
        let error = error(&["--conf", path(&file)], &[]);
        let wanted = format!("the nearest is {nearest}");
        assert!(error.ends_with(&wanted), "{error}");
        assert!(error.contains(path(&file)), "{error}");
    }
}

#[test]
fn a_file_cannot_name_another_file() {
    let file = file("conf = \"other.toml\"");
    assert!(error(&["--conf", path(&file)], &[]).contains("no such setting"));
}

#[test]
fn an_unknown_variable_names_the_nearest_right_one() {
    let error = error(&[], &[("AMBRA_DBDIR", "/x")]);
    assert!(error.contains("AMBRA_DBDIR"), "{error}");
    assert!(error.ends_with("AMBRA_DB_DIR"), "{error}");
}

#[test]
fn an_unknown_option_names_the_nearest_right_one() {
    assert!(error(&["--lisen", "x"], &[]).contains("--listen"));
}

#[test]
fn a_wrong_value_is_refused_wherever_it_stands() {
    let wrong = file("sync-memory = \"a lot\"");
    for (error, place) in [
        (error(&["--sync-memory", "a lot"], &[]), "--sync-memory"),
        (
            error(&[], &[("AMBRA_SYNC_MEMORY", "a lot")]),
            "AMBRA_SYNC_MEMORY",
        ),
        (error(&["--conf", path(&wrong)], &[]), "sync-memory in "),
    ] {
        assert!(error.starts_with(place), "{error}");
        assert!(error.contains("between 64"), "{error}");
    }
}

#[test]
fn a_wrong_value_is_refused_even_where_an_option_hides_it() {
    let file = file("network = \"mainnet\"");
    let error = error(&["--conf", path(&file), "--network", "main"], &[]);
    assert!(error.contains("network in "), "{error}");
}

#[test]
fn values_of_the_wrong_kind_are_refused() {
    for line in [
        "db-dir = true",
        "db-dir = [\"/a\", \"/b\"]",
        "[db-dir]\nx = 1",
        "listen = [[\"tcp://127.0.0.1:1\"]]",
    ] {
        let file = file(line);
        let error = error(&["--conf", path(&file)], &[]);
        assert!(error.contains("text in quotes"), "{line}: {error}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = error(&["--conf", "/no/such/ambra.toml"], &[]);
    assert!(error.contains("/no/such/ambra.toml"), "{error}");
}

#[test]
fn a_broken_file_is_told_by_line_and_without_its_text() {
    let file = file("network = \"main\"\nrpc-password = \"hunter2\n");
    let error = error(&["--conf", path(&file)], &[]);
    assert!(error.contains("line 2"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_password_in_a_refused_url_is_never_repeated() {
    let url = "http://me:hunter2@127.0.0.1:8332";
    let file = file(&format!("daemon-rpc-url = \"{url}\""));
    for error in [
        error(&["--daemon-rpc-url", url], &[]),
        error(&[], &[("AMBRA_DAEMON_RPC_URL", url)]),
        error(&["--conf", path(&file)], &[]),
    ] {
        assert!(error.contains("--rpc-password"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[test]
fn a_configuration_can_be_printed_without_its_password() {
    let options = ["--rpc-user", "alice", "--rpc-password", "hunter2"];
    let config = config(&options, &[]).unwrap();
    assert_eq!(config.rpc_login.as_ref().unwrap().password, "hunter2");
    let printed = format!("{config:?}");
    assert!(!printed.contains("hunter2") && !printed.contains("alice"));
}

#[test]
fn settings_that_need_each_other_are_refused_alone() {
    for error in [
        error(&["--rpc-user", "alice"], &[]),
        error(&[], &[("AMBRA_RPC_PASSWORD", "hunter2")]),
        error(&["--tls-cert", "c.pem"], &[]),
        error(&["--tls-key", "k.pem"], &[]),
    ] {
        assert!(error.contains("go together"), "{error}");
    }
    // Each half may stand in another place.
    let file = file("rpc-password = \"hunter2\"");
    let config = config(&["--conf", path(&file)], &[("AMBRA_RPC_USER", "alice")]).unwrap();
    assert!(config.rpc_login.is_some());
}

#[test]
fn a_cookie_and_a_login_exclude_each_other() {
    let options = [
        "--rpc-user",
        "a",
        "--rpc-password",
        "b",
        "--cookie-file",
        "c",
    ];
    assert!(error(&options, &[]).contains("exclude"));
}

#[test]
fn a_tilde_is_the_home_directory() {
    let Some(home) = dirs::home_dir() else { return };
    let config = config(&["--db-dir=~/chain"], &[]).unwrap();
    assert_eq!(config.db_root, home.join("chain"));
}

#[test]
fn help_fits_a_terminal_and_names_the_exit_codes() {
    let help = error(&["--help"], &[]);
    assert!(help.contains("Exit codes"), "{help}");
    assert!(help.contains("--daemon-rpc-url"), "{help}");
}

#[test]
fn without_a_verb_it_serves() {
    assert_eq!(invocation(&[], &[]).unwrap().command, Command::Serve);
    assert_eq!(invocation(&["sync"], &[]).unwrap().command, Command::Sync);
}

#[test]
fn settings_stand_before_or_after_the_verb() {
    let doctor = Command::Doctor { json: true };
    for options in [
        &["--network", "signet", "doctor", "--json"][..],
        &["--network=signet", "doctor", "--json"],
        &["doctor", "--network", "signet", "--json"],
        &["doctor", "--json", "--network=signet"],
    ] {
        let invocation = invocation(options, &[]).unwrap();
        assert_eq!(invocation.command, doctor, "{options:?}");
        assert_eq!(invocation.config.network, Some(Network::Signet));
    }
    let snapshot = ["--db-dir", "/x", "snapshot", "--network=signet", "export"];
    let snapshot = [&snapshot[..], &["--sync-memory", "64", "/y"]].concat();
    let invocation = invocation(&snapshot, &[]).unwrap();
    assert_eq!(invocation.config.db_root, PathBuf::from("/x"));
    assert_eq!(invocation.config.network, Some(Network::Signet));
    assert_eq!(invocation.config.sync_memory_bytes, 64 << 20);
}

#[test]
fn a_setting_twice_is_refused_also_around_the_verb() {
    for options in [
        &["--network", "main", "--network", "signet", "sync"][..],
        &["--network", "main", "sync", "--network", "signet"],
        &["sync", "--network", "main", "--network", "signet"],
    ] {
        let error = error(options, &[]);
        assert!(error.contains("multiple times"), "{options:?}: {error}");
    }
    let options = ["--listen=unix:/a", "sync", "--listen=unix:/b"];
    let config = config(&options, &[]).unwrap();
    assert_eq!(config.listen, ["unix:/a", "unix:/b"]);
}

#[test]
fn a_verb_reads_the_other_layers_too() {
    let file = file("network = \"signet\"\nsync-memory = 100");
    for options in [
        &["--conf", path(&file), "address", "--", "x"][..],
        &["address", "x", "--conf", path(&file)],
    ] {
        let environment = [("AMBRA_SYNC_MEMORY", "200")];
        let config = config(options, &environment).unwrap();
        assert_eq!(config.network, Some(Network::Signet));
        assert_eq!(config.sync_memory_bytes, 200 << 20);
    }
}

#[test]
fn a_word_that_is_no_verb_names_the_nearest() {
    let error = error(&["dokter"], &[]);
    assert!(error.contains("'doctor'"), "{error}");
}

#[test]
fn an_index_is_deleted_only_by_what_builds_it_anew() {
    for verb in ["serve", "sync"] {
        assert!(config(&[verb, "--rebuild"], &[]).unwrap().rebuild, "{verb}");
    }
    assert!(config(&["--rebuild"], &[]).unwrap().rebuild);
    for verbs in [
        &["address", "x"][..],
        &["compact"],
        &["verify"],
        &["doctor"],
        &["snapshot", "export", "/x"],
    ] {
        for refused in [
            error(&[verbs, &["--rebuild"]].concat(), &[]),
            error(&[&["--rebuild"], verbs].concat(), &[]),
        ] {
            assert!(refused.contains("ambra sync"), "{verbs:?}: {refused}");
        }
        let help = error(&[verbs, &["--help"]].concat(), &[]);
        assert!(!help.contains("--rebuild"), "{verbs:?}: {help}");
    }
    assert!(error(&["sync", "--help"], &[]).contains("--rebuild"));
}

#[test]
fn a_section_in_the_file_is_refused_as_one() {
    let file = file("[node]\nnetwork = \"main\"\n");
    let words = error(&["--conf", path(&file)], &[]);
    assert!(words.contains("no sections"), "{words}");
}

#[test]
fn the_short_help_names_what_most_people_need_and_where_the_rest_is() {
    let (short, long) = (error(&["-h"], &[]), error(&["--help"], &[]));
    for words in [
        "--conf",
        "--rebuild",
        "--network",
        "--daemon-dir",
        "--daemon-rpc-url",
        "--db-dir",
        "--profile",
        "--listen",
        "--admin-listen",
        "--log-level",
        "doctor",
        "ambra --help",
    ] {
        assert!(short.contains(words), "{words}\n{short}");
    }
    for few_need in ["--max-jobs", "Limits:", "--server-name", "--rpc-password"] {
        assert!(!short.contains(few_need), "{few_need}\n{short}");
        assert!(long.contains(few_need), "{few_need}");
    }
    assert!(short.lines().count() < 56, "{short}");
    // Whoever asks for both wants to see all.
    assert_eq!(error(&["-h", "--help"], &[]), long);
    // What the short help does not name is taken all the same.
    assert_eq!(error(&["--max-jobs", "3", "-h"], &[]), short);
}

#[test]
fn a_verbs_help_is_about_the_verb() {
    let help = error(&["doctor", "--help"], &[]);
    assert!(help.contains("--json"), "{help}");
    assert!(!help.contains("--daemon-rpc-url"), "{help}");
    assert!(help.contains("ambra --help"), "{help}");
}

#[test]
fn a_profile_sets_what_is_not_given_itself() {
    let memory = |argv: &[&str]| {
        let config = config(argv, &[]).unwrap();
        (
            config.sync_memory_bytes >> 20,
            config.cache_memory_bytes >> 20,
        )
    };
    assert_eq!(memory(&["--profile", "default"]), memory(&[]));
    assert_eq!(memory(&["--profile", "small"]), (256, 64));
    assert_eq!(memory(&["--profile", "large"]), (4096, 2048));
    assert_eq!(
        memory(&["--profile", "small", "--sync-memory", "300"]),
        (300, 64)
    );
    assert!(config(&["--profile", "tiny"], &[]).is_err());
    assert_eq!(config(&["--threads", "3"], &[]).unwrap().threads, 3);
    assert!(config(&["--threads", "0"], &[]).is_err());
    assert!(config(&["--profile", "small"], &[]).unwrap().threads >= 1);
}

#[test]
fn a_shell_offers_the_words_that_an_option_takes_and_each_is_taken() {
    let bash = crate::config::completions(clap_complete::Shell::Bash);
    for (option, words) in [
        ("--network", "main testnet testnet4 signet regtest"),
        ("--block-source", "auto files rest rpc"),
        ("--profile", "small default large"),
        ("--log-level", "error warn info debug trace"),
        ("--log-format", "human json"),
        ("--protocol-max", &PROTOCOL_VERSIONS.join(" ")),
    ] {
        assert!(bash.contains(&format!("\"{words}\"")), "{option}: {words}");
        for word in words.split(' ') {
            config(&[option, word], &[]).unwrap_or_else(|error| panic!("{option} {word}: {error}"));
        }
    }
    let fish = crate::config::completions(clap_complete::Shell::Fish);
    let line = fish.lines().find(|line| line.contains("-l db-dir"));
    assert!(
        line.is_some_and(|line| line.contains("directories")),
        "{line:?}"
    );
}

#[test]
fn the_manual_page_has_a_date_where_it_is_known() {
    let page = crate::config::man_page();
    let title = page.lines().find(|line| line.starts_with(".TH "));
    let title = title.expect("a title");
    assert!(title.contains(env!("BUILD_DATE")), "{title}");
    assert!(page.contains("snapshot export FOLDER"), "the commands");
}
