//! The machine fails, not the software: no room on the disk, a disk that can only be read, a folder of
//! somebody else's, few open files, a clock that jumps. What cannot go on says what mends it, nothing is lost,
//! and what can goes on.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use bitcoin::{Amount, ScriptBuf, TxOut};
use serde_json::json;
use tempfile::TempDir;

use crate::{
    ambra::Ambra,
    another_user::{self, Owner},
    client::Client,
    compare::compare_all,
    locks::pay,
    long::report,
    node::{Node, NodeOptions},
    random_chain::RandomChain,
    same_index::compare_index,
    treasury::Treasury,
};

/// So small that RocksDB cannot reserve room for its log (17 MB) beforehand, and each write counts.
const DISK_MIB: u32 = 12;

/// A disk in memory, of a few MiB.
struct SmallDisk {
    folder: Arc<TempDir>,
}

impl SmallDisk {
    /// `None`, and a loud word, where this user may not mount one.
    fn mount() -> Option<SmallDisk> {
        let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
        let disk = SmallDisk { folder };
        let is_mounted = disk.mounts(&["-t", "tmpfs", "-o", &format!("size={DISK_MIB}m"), "none"]);
        if !is_mounted {
            println!(
                "LOUD: no small disk can be mounted here (that takes root); the story is skipped"
            );
        }
        is_mounted.then_some(disk)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn mounts(&self, arguments: &[&str]) -> bool {
        let mut command = Command::new("mount");
        let output = command.args(arguments).arg(self.path()).output();
        output.is_ok_and(|output| output.status.success())
    }

    fn room(&self) -> u64 {
        let disk = rustix::fs::statvfs(self.path()).expect("the disk can be asked");
        disk.f_bavail * disk.f_frsize
    }

    /// Takes all room but this much.
    fn fill(&self, left: u64) {
        let count = self.room().saturating_sub(left);
        let mut filler = fs::read(self.filler()).unwrap_or_default();
        filler.resize(filler.len() + count as usize, 1);
        // The last bytes may not fit a whole page.
        let _ = fs::write(self.filler(), filler);
    }

    fn make_room(&self) {
        let _ = fs::remove_file(self.filler());
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn lived_on(node: &Node, seed: u64) -> RandomChain<'_> {
    let mut chain = RandomChain::new(node, seed);
    (0..40).for_each(|_| drop(chain.step()));
    node.mine(20, &Treasury::elsewhere());
    chain
}

#[test]
fn a_full_disk_ends_the_first_sync_in_clear_words_and_with_room_it_goes_on() {
    let node = Node::start(NodeOptions::default());
    let mut chain = lived_on(&node, 71);
    let mut stops = 0;
    for kib in [0, 8, 24, 48, 64, 96, 128, 160, 200, 260] {
        let Some(disk) = SmallDisk::mount() else {
            return;
        };
        disk.fill(kib << 10);
        let mut ambra = Ambra::in_folder(&node, Arc::clone(&disk.folder), &[]);

        // 1. It ends, and says why; or there was enough room.
        ambra.launch_unseen();
        while !ambra.is_in_step() && ambra.is_running() {
            std::thread::sleep(Duration::from_millis(5));
        }
        if ambra.is_running() {
            println!("{kib} KiB are enough");
            ambra.kill();
        } else {
            let (status, said) = ambra.wait_until_it_ends();
            assert_eq!(status.code(), Some(1), "{kib} KiB: {said}");
            assert!(said.contains("no room left"), "{kib} KiB: {said}");
            assert!(!said.contains("panicked"), "{kib} KiB: {said}");
            stops += 1;
        }

        // 2. Room is made; the next start goes on, and all is right.
        disk.make_room();
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        compare_index(&ambra, &node);
    }
    assert!(stops >= 3, "the disk was full only {stops} times");
    report("full disk in the first sync", &json!({"stops": stops}));
}

#[test]
fn a_full_disk_at_the_tip_ends_the_server_in_clear_words_and_nothing_is_lost() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let node = Node::start(NodeOptions::default());
    let mut chain = lived_on(&node, 72);
    let mut ambra = Ambra::in_folder(&node, Arc::clone(&disk.folder), &[]);
    ambra.launch();
    ambra.wait_until_synced(&node);
    let mut stops = 0;
    for left in [0, 4 << 10, 16 << 10] {
        // 1. Blocks come until one does not fit any more.
        disk.fill(left);
        for _ in 0..200 {
            if !ambra.is_running() {
                break;
            }
            println!("{}", chain.step());
            std::thread::sleep(Duration::from_millis(20));
        }
        let (status, said) = ambra.wait_until_it_ends();
        // Once it was SIGABRT ("pthread lock: Invalid argument"): src/index/open_count.rs tells why.
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("no room left"), "{said}");
        stops += 1;

        // 2. A start on the full disk says it again.
        disk.fill(0);
        ambra.launch_unseen();
        let (status, said) = ambra.wait_until_it_ends();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains("no room left"), "{said}");
        stops += 1;

        // 3. With room all is there.
        disk.make_room();
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        compare_index(&ambra, &node);
    }
    report("full disk at the tip", &json!({"stops": stops}));
}

#[test]
fn a_disk_that_can_only_be_read_is_called_so() {
    let Some(disk) = SmallDisk::mount() else {
        return;
    };
    let node = Node::start(NodeOptions::default());
    let mut chain = lived_on(&node, 73);
    let mut ambra = Ambra::in_folder(&node, Arc::clone(&disk.folder), &[]);
    // 1. Before there is an index, and when there is one.
    for is_new in [true, false] {
        assert!(disk.mounts(&["-o", "remount,ro"]));
        ambra.launch_unseen();
        let (status, said) = ambra.wait_until_it_ends();
        assert_eq!(status.code(), Some(1), "{said}");
        let words = if is_new {
            "Read-only file system"
        } else {
            "can only be read"
        };
        assert!(said.contains(words), "{said}");

        // 2. Mounted for writing again, it goes on.
        assert!(disk.mounts(&["-o", "remount,rw"]));
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
        ambra.stop();
    }
}

#[test]
fn a_folder_that_belongs_to_another_user_is_called_so() {
    let node = Node::start(NodeOptions::default());
    let mut chain = lived_on(&node, 74);
    let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let mut ambra = Ambra::in_folder(&node, Arc::clone(&folder), &[]);
    if !another_user::runs(&mut ambra, &node) {
        return;
    }
    let give = |owner| another_user::give(folder.path(), owner);

    // 1. A folder of root's, with no index in it.
    ambra.launch_unseen();
    let (status, said) = ambra.wait_until_it_ends();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("Permission denied"), "{said}");
    assert!(
        said.contains(&folder.path().display().to_string()),
        "{said}"
    );

    // 2. Its own.
    give(Owner::Nobody);
    ambra.launch();
    ambra.wait_until_synced(&node);
    ambra.stop();

    // 3. It was its own.
    give(Owner::Root);
    println!("{}", chain.step());
    ambra.launch_unseen();
    let (status, said) = ambra.wait_until_it_ends();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("may not be written by this user"), "{said}");
    assert!(said.contains("chown"), "{said}");

    // 4. And is again.
    give(Owner::Nobody);
    ambra.launch();
    ambra.wait_until_synced(&node);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    compare_index(&ambra, &node);
}

#[test]
fn with_256_open_files_many_block_files_and_many_wallets_do_no_harm() {
    const FILES: usize = 256;
    const WALLETS: usize = 400;
    let node = Node::start(NodeOptions {
        small_files: true,
        xor: false,
        ..NodeOptions::default()
    });
    // 1. More block files than may be open: blocks so large that each has its own.
    let mut chain = RandomChain::new(&node, 75);
    let mut treasury = Treasury::mine(&node);
    let mut coin = treasury.coin();
    for _ in 0..FILES + 20 {
        let data = TxOut {
            value: Amount::ZERO,
            script_pubkey: ScriptBuf::from_bytes([&[0x6a][..], &[7; 64 << 10]].concat()),
        };
        let change = TxOut {
            value: coin.value - Amount::from_sat(70_000),
            script_pubkey: coin.lock.script(),
        };
        let payment = pay(std::slice::from_ref(&coin), vec![change, data]);
        node.mine_exactly(&Treasury::elsewhere(), &[&payment]);
        coin = crate::treasury::coins_to(&payment, &coin.lock).remove(0);
    }
    let files = fs::read_dir(node.dir().join("regtest/blocks")).expect("a folder");
    assert!(files.count() > 2 * FILES, "few block files");

    // 2. The first sync from them.
    let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let mut ambra = Ambra::in_folder(&node, folder, &["--block-source", "files"]);
    ambra.wrap(&["prlimit", &format!("--nofile={FILES}:{FILES}")]);
    ambra.launch();
    ambra.wait_until_synced(&node);
    assert!(ambra.said().contains("only 256 files may be open"));
    compare_all(&mut chain.oracle, &node, &mut ambra.client());

    // 3. More wallets than may be open; the one that was there first is served, and blocks are indexed.
    let mut first = ambra.client();
    let crowd: Vec<_> = (0..WALLETS)
        .filter_map(|_| std::net::TcpStream::connect(ambra.address()).ok())
        .collect();
    for _ in 0..10 {
        println!("{}", chain.step());
    }
    node.mine(40, &Treasury::elsewhere());
    let tip = json!(node.height());
    let seen = crate::patience::until(Duration::from_secs(20), || {
        let told = first.ask("blockchain.headers.subscribe", json!([]));
        (told["height"] == tip).then_some(())
    });
    assert!(ambra.is_running(), "{}", ambra.said());
    assert!(seen.is_some(), "the first wallet does not see the tip");
    assert!(ambra.open_files() <= FILES);

    // 4. The crowd goes; all is as it was.
    drop(crowd);
    let client: Client = crate::patience::until(Duration::from_secs(20), || {
        let stream = std::net::TcpStream::connect(ambra.address()).ok()?;
        drop(stream);
        Some(ambra.client())
    })
    .expect("wallets can connect again");
    drop(client);
    compare_all(&mut chain.oracle, &node, &mut ambra.client());
    compare_index(&ambra, &node);
}

#[test]
fn a_clock_that_jumps_by_years_does_no_harm() {
    let library = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
        "/usr/lib/faketime/libfaketimeMT.so.1",
    ]
    .into_iter()
    .find(|path| Path::new(path).exists());
    let Some(library) = library else {
        println!("LOUD: there is no libfaketime (Debian: faketime); the story is skipped");
        return;
    };
    let node = Node::start(NodeOptions::default());
    let mut chain = lived_on(&node, 76);
    let clock = tempfile::NamedTempFile::new().expect("a file");
    let set = |offset: &str| fs::write(clock.path(), format!("{offset}\n")).expect("the clock");
    set("+0d");
    let folder = Arc::new(tempfile::tempdir().expect("a temporary directory"));
    let mut ambra = Ambra::in_folder(&node, folder, &[]);
    let preload = format!("LD_PRELOAD={library}");
    let file = format!("FAKETIME_TIMESTAMP_FILE={}", clock.path().display());
    let words = [
        "env",
        &preload,
        &file,
        "FAKETIME_NO_CACHE=1",
        "DONT_FAKE_MONOTONIC=1",
    ];
    ambra.wrap(&words);
    ambra.launch();
    let mut client = ambra.client();
    for offset in ["+3650d", "-3650d", "+1h", "-1h", "+0d"] {
        // 1. The server's clock, and the node's, whose blocks then are of another time.
        println!("the clock jumps to {offset}");
        set(offset);
        (0..4).for_each(|_| println!("{}", chain.step()));
        compare_all(&mut chain.oracle, &node, &mut client);
        assert!(ambra.is_running());
    }
    assert!(ambra.said().contains("20"), "the log has times");

    // 2. A start in another year.
    for offset in ["+7300d", "-7300d"] {
        ambra.kill();
        set(offset);
        println!("{}", chain.step());
        ambra.launch();
        ambra.wait_until_synced(&node);
        compare_all(&mut chain.oracle, &node, &mut ambra.client());
    }
    compare_index(&ambra, &node);
}
