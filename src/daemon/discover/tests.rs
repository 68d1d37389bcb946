use std::cell::RefCell;

use super::*;

/// What a node says of its chain.
type Answer = Result<String, RpcError>;

/// A data directory in which the named files stand.
fn data_dir(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    dir
}

fn wanted(dir: &tempfile::TempDir) -> Wanted {
    Wanted {
        daemon_dir: Some(dir.path().to_owned()),
        ..Wanted::default()
    }
}

/// A machine with nodes at these URLs; remembers who was asked.
struct Machine<'a> {
    nodes: &'a [(&'a str, Answer)],
    asked: RefCell<Vec<String>>,
}

impl<'a> Machine<'a> {
    fn new(nodes: &'a [(&'a str, Answer)]) -> Self {
        Self {
            nodes,
            asked: RefCell::default(),
        }
    }

    fn look(&self, wanted: &Wanted) -> Result<NodeLocation, DiscoverError> {
        look(wanted, &|url, _| {
            self.asked.borrow_mut().push(url.to_owned());
            match self.nodes.iter().find(|(at, _)| *at == url) {
                Some((_, answer)) => answer.clone(),
                None => unavailable(&format!("nothing listens at {url}")),
            }
        })
    }
}

fn on(chain: &str) -> Answer {
    Ok(chain.to_owned())
}

fn unavailable(words: &str) -> Answer {
    Err(RpcError::Unavailable(words.to_owned()))
}

fn refused(result: Result<NodeLocation, DiscoverError>) -> DiscoverError {
    match result {
        Ok(location) => panic!("found a node at {}", location.rpc_url),
        Err(error) => error,
    }
}

#[test]
fn each_network_is_found_by_the_cookie_in_its_folder() {
    for (folder, chain, port, network) in [
        ("", "main", 8332, Network::Bitcoin),
        ("testnet3/", "test", 18332, Network::Testnet),
        ("testnet4/", "testnet4", 48332, Network::Testnet4),
        ("signet/", "signet", 38332, Network::Signet),
        ("regtest/", "regtest", 18443, Network::Regtest),
    ] {
        let cookie = format!("{folder}.cookie");
        let block_file = format!("{folder}blocks/blk00000.dat");
        let dir = data_dir(&[(&cookie, "u:p"), (&block_file, "")]);
        let url = format!("http://127.0.0.1:{port}");
        let nodes = [(url.as_str(), on(chain))];
        let location = Machine::new(&nodes).look(&wanted(&dir)).unwrap();
        assert_eq!(location.rpc_url, url);
        assert_eq!(location.network, network);
        let blocks = dir.path().join(folder).join("blocks");
        assert_eq!(location.blocks_dir, Some(blocks));
        let RpcAuth::CookieFile(path) = location.auth else {
            panic!("not by cookie")
        };
        assert_eq!(path, dir.path().join(cookie));
    }
}

#[test]
fn a_cookie_left_by_a_killed_node_does_not_hide_the_one_that_runs() {
    let dir = data_dir(&[(".cookie", "u:p"), ("regtest/.cookie", "u:p")]);
    let nodes = [("http://127.0.0.1:18443", on("regtest"))];
    let machine = Machine::new(&nodes);
    let location = machine.look(&wanted(&dir)).unwrap();
    assert_eq!(location.network, Network::Regtest);
    assert_eq!(machine.asked.borrow().len(), 2);
}

#[test]
fn the_network_that_bitcoin_conf_starts_is_asked_first() {
    let dir = data_dir(&[
        ("bitcoin.conf", "chain=signet"),
        (".cookie", "u:p"),
        ("signet/.cookie", "u:p"),
    ]);
    let nodes = [
        ("http://127.0.0.1:8332", on("main")),
        ("http://127.0.0.1:38332", on("signet")),
    ];
    let location = Machine::new(&nodes).look(&wanted(&dir)).unwrap();
    assert_eq!(location.network, Network::Signet);
}

#[test]
fn the_network_that_was_asked_for_is_the_only_one_asked() {
    let dir = data_dir(&[(".cookie", "u:p"), ("testnet4/.cookie", "u:p")]);
    let nodes = [("http://127.0.0.1:48332", on("testnet4"))];
    let machine = Machine::new(&nodes);
    let wanted = Wanted {
        network: Some(Network::Testnet4),
        ..wanted(&dir)
    };
    assert_eq!(machine.look(&wanted).unwrap().network, Network::Testnet4);
    assert_eq!(*machine.asked.borrow(), ["http://127.0.0.1:48332"]);
}

#[test]
fn bitcoin_conf_moves_data_blocks_port_address_and_cookie() {
    let moved = data_dir(&[("regtest/secret", "u:p")]);
    let blocks = data_dir(&[("regtest/blocks/blk00000.dat", "")]);
    let conf = format!(
        "datadir={}\nblocksdir={}\nregtest=1\nrpccookiefile=secret\nrpcallowip=10.0.0.0/8\n\
         [regtest]\nrpcport=999\nrpcbind=0.0.0.0\n",
        moved.path().display(),
        blocks.path().display(),
    );
    let dir = data_dir(&[("bitcoin.conf", &conf)]);
    let nodes = [("http://127.0.0.1:999", on("regtest"))];
    let location = Machine::new(&nodes).look(&wanted(&dir)).unwrap();
    let RpcAuth::CookieFile(path) = location.auth else {
        panic!("not by cookie")
    };
    assert_eq!(path, moved.path().join("regtest/secret"));
    assert_eq!(
        location.blocks_dir,
        Some(blocks.path().join("regtest/blocks"))
    );
}

#[test]
fn an_address_that_bitcoind_binds_is_where_it_is_reached() {
    for (bind, reached) in [
        ("0.0.0.0", Some(("127.0.0.1", 1))),
        ("[::]:5", Some(("[::1]", 5))),
        ("10.1.2.3:7", Some(("10.1.2.3", 7))),
        ("::1", Some(("[::1]", 1))),
        ("nonsense", None),
    ] {
        let reached = reached.map(|(host, port)| (host.to_owned(), port));
        assert_eq!(bound_address(bind, 1), reached, "{bind}");
    }
}

#[test]
fn a_password_in_bitcoin_conf_is_used_where_there_is_no_cookie() {
    let dir = data_dir(&[("bitcoin.conf", "rpcuser=alice\nrpcpassword=secret\n")]);
    let nodes = [("http://127.0.0.1:8332", on("main"))];
    let location = Machine::new(&nodes).look(&wanted(&dir)).unwrap();
    let RpcAuth::UserPass(user, password) = location.auth else {
        panic!("not by password")
    };
    assert_eq!((user.as_str(), password.as_str()), ("alice", "secret"));
}

#[test]
fn a_url_of_another_machine_goes_with_credentials_and_without_this_machines_cookies() {
    let mut wanted = Wanted {
        rpc_url: Some("http://node.local".to_owned()),
        user_password: Some(("a".to_owned(), "b".to_owned())),
        ..Wanted::default()
    };
    let nodes = [("http://node.local:38332", on("signet"))];
    let location = Machine::new(&nodes).look(&wanted).unwrap();
    assert_eq!(location.network, Network::Signet);
    assert_eq!(location.blocks_dir, None);

    wanted.user_password = None;
    let machine = Machine::new(&nodes);
    let error = refused(machine.look(&wanted));
    assert!(
        matches!(error, DiscoverError::NoCredentials { .. }),
        "{error}"
    );
    assert!(machine.asked.borrow().is_empty());
}

#[test]
fn a_place_is_asked_once_with_the_same_credentials() {
    let dir = data_dir(&[]);
    let wanted = Wanted {
        rpc_url: Some("http://127.0.0.1:1234".to_owned()),
        user_password: Some(("a".to_owned(), "b".to_owned())),
        ..wanted(&dir)
    };
    let machine = Machine::new(&[]);
    let error = refused(machine.look(&wanted));
    assert!(matches!(error, DiscoverError::NoAnswer { .. }), "{error}");
    assert_eq!(*machine.asked.borrow(), ["http://127.0.0.1:1234"]);
}

#[test]
fn the_nodes_own_word_about_its_network_counts_not_the_folders() {
    let dir = data_dir(&[
        (".cookie", "u:p"),
        ("blocks/blk00000.dat", ""),
        ("signet/blocks/blk00000.dat", ""),
    ]);
    let nodes = [("http://127.0.0.1:8332", on("signet"))];
    let location = Machine::new(&nodes).look(&wanted(&dir)).unwrap();
    assert_eq!(location.network, Network::Signet);
    assert_eq!(location.blocks_dir, Some(dir.path().join("signet/blocks")));
}

#[test]
fn a_node_on_another_network_than_asked_for_is_refused() {
    let dir = data_dir(&[(".cookie", "u:p")]);
    let nodes = [("http://127.0.0.1:8332", on("regtest"))];
    let wanted = Wanted {
        network: Some(Network::Bitcoin),
        ..wanted(&dir)
    };
    let error = refused(Machine::new(&nodes).look(&wanted));
    assert!(!error.is_passing());
    let text = error.to_string();
    assert!(text.contains("main") && text.contains("regtest"), "{text}");
}

#[test]
fn a_chain_without_a_name_of_ours_is_refused() {
    let dir = data_dir(&[(".cookie", "u:p")]);
    let nodes = [("http://127.0.0.1:8332", on("liquid"))];
    let error = refused(Machine::new(&nodes).look(&wanted(&dir)));
    assert!(error.to_string().contains("liquid"));
    assert!(!error.is_passing());
}

#[test]
fn a_password_that_was_given_and_is_refused_is_no_reason_to_wait() {
    let dir = data_dir(&[("bitcoin.conf", "rpcpassword=old")]);
    let wrong = Err(RpcError::WrongLogin("refused".into()));
    let nodes = [("http://127.0.0.1:8332", wrong)];
    let given = Wanted {
        user_password: Some(("ali".into(), "open-sesame".into())),
        ..wanted(&dir)
    };
    let error = refused(Machine::new(&nodes).look(&given));
    assert!(!error.is_passing());
    let text = error.to_string();
    assert!(text.contains("--rpc-password"), "{text}");
    assert!(
        !text.contains("open-sesame") && !text.contains("ali"),
        "{text}"
    );
    // One out of bitcoin.conf may be the node's next one.
    let error = refused(Machine::new(&nodes).look(&wanted(&dir)));
    assert!(error.is_passing(), "{error}");
}

#[test]
fn a_node_that_does_not_run_is_waited_for_and_the_cookies_looked_for_are_named() {
    for (conf, cookie, network, others) in [
        ("", ".cookie", None, true),
        ("regtest=1", "regtest/.cookie", None, true),
        ("", "signet/.cookie", Some(Network::Signet), false),
    ] {
        let dir = data_dir(&[("bitcoin.conf", conf)]);
        let wanted = Wanted {
            network,
            ..wanted(&dir)
        };
        let error = refused(Machine::new(&[]).look(&wanted));
        assert!(error.is_passing());
        let cookie = dir.path().join(cookie);
        let text = error.to_string();
        assert!(text.contains(cookie.to_str().unwrap()), "{text}");
        assert_eq!(text.contains("other networks"), others, "{text}");
        assert_eq!(
            likely_network(&wanted),
            network.unwrap_or(match conf {
                "" => Network::Bitcoin,
                _ => Network::Regtest,
            })
        );
    }
}

#[test]
fn no_data_directory_is_an_error_that_names_what_mends_it() {
    let wanted = Wanted {
        daemon_dir: Some("/no/such/folder".into()),
        ..Wanted::default()
    };
    let error = refused(Machine::new(&[]).look(&wanted));
    assert!(!error.is_passing());
    let text = error.to_string();
    assert!(text.contains("/no/such/folder") && text.contains("--daemon-dir"));
}

#[test]
fn nodes_that_do_not_answer_are_waited_for_and_each_ones_words_are_told() {
    let dir = data_dir(&[(".cookie", "u:p"), ("testnet4/.cookie", "u:p")]);
    let nodes = [("http://127.0.0.1:48332", unavailable("Verifying blocks…"))];
    let error = refused(Machine::new(&nodes).look(&wanted(&dir)));
    assert!(error.is_passing());
    let text = error.to_string();
    assert!(text.contains("48332: Verifying blocks…"), "{text}");
    assert_eq!(text.matches("127.0.0.1:8332").count(), 1, "{text}");
}

#[test]
fn a_node_that_starts_is_told_of_alone() {
    let dir = data_dir(&[(".cookie", "u:p"), ("signet/.cookie", "u:p")]);
    let nodes = [(
        "http://127.0.0.1:38332",
        unavailable("the node is starting: Loading block index…"),
    )];
    let error = refused(Machine::new(&nodes).look(&wanted(&dir)));
    assert_eq!(
        error.to_string(),
        "http://127.0.0.1:38332: the node is starting: Loading block index…"
    );
}

#[test]
fn a_node_that_does_not_fit_is_told_before_those_that_do_not_answer() {
    let dir = data_dir(&[(".cookie", "u:p"), ("signet/.cookie", "u:p")]);
    let nodes = [("http://127.0.0.1:8332", on("liquid"))];
    let error = refused(Machine::new(&nodes).look(&wanted(&dir)));
    assert!(
        matches!(error, DiscoverError::UnknownChain { .. }),
        "{error}"
    );
}

#[cfg(unix)]
#[test]
fn a_cookie_that_this_user_may_not_read_is_told_as_such() {
    use std::os::unix::fs::PermissionsExt;
    let dir = data_dir(&[(".cookie", "u:p")]);
    let cookie = dir.path().join(".cookie");
    std::fs::set_permissions(&cookie, PermissionsExt::from_mode(0o000)).unwrap();
    if std::fs::File::open(&cookie).is_ok() {
        // The superuser reads everything.
        return;
    }
    let error = refused(Machine::new(&[]).look(&wanted(&dir)));
    assert!(error.to_string().contains("rpccookieperms"), "{error}");
}

#[test]
fn only_loopback_is_this_machine() {
    for (url, local) in [
        ("http://127.0.0.1:8332", true),
        ("http://127.9.9.9", true),
        ("http://localhost:1", true),
        ("http://[::1]:8332", true),
        ("http://10.0.0.1:8332", false),
        ("http://localhost.example:8332", false),
        ("http://[2001:db8::1]", false),
    ] {
        assert_eq!(is_loopback(url), local, "{url}");
    }
}
