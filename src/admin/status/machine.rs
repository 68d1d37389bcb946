//! What the process takes of the machine: memory, processor, files, disk.

use std::{fs, path::Path};

use serde::Serialize;

/// `/proc` counts processor time in hundredths of a second: `USER_HZ`, which Linux keeps at 100 for programs on
/// every architecture that Rust's standard library has.
const TICKS_PER_SECOND: f64 = 100.0;

/// Files and folders of an index's folder that are looked at, at most: a full one has some hundreds.
const FILES_MAX: u64 = 100_000;

/// The process, as the system sees it. What it does not tell is left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Process {
    pub memory_bytes: Option<u64>,
    pub memory_peak_bytes: Option<u64>,
    pub address_space_bytes: Option<u64>,
    pub cpu_seconds: Option<f64>,
    pub threads: Option<u64>,
    pub open_files: Option<u64>,
    pub open_files_max: Option<u64>,
}

/// The index's folder and the disk below it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub index_files: u64,
    pub index_folder_bytes: u64,
    pub disk_free_bytes: Option<u64>,
    pub disk_bytes: Option<u64>,
}

/// Of this process. Outside of Linux only what can be had without `/proc`.
pub fn process() -> Process {
    let mut process = Process {
        open_files_max: rlimit::Resource::NOFILE.get_soft().ok(),
        ..Process::default()
    };
    if let Ok(status) = fs::read_to_string("/proc/self/status") {
        read_status(&status, &mut process);
    }
    if let Ok(stat) = fs::read_to_string("/proc/self/stat") {
        process.cpu_seconds = cpu_seconds(&stat);
    }
    if let Ok(files) = fs::read_dir("/proc/self/fd") {
        // One of them is the look itself.
        process.open_files = Some((files.count() as u64).saturating_sub(1));
    }
    process
}

/// `/proc/self/status`: sizes in kB.
fn read_status(text: &str, process: &mut Process) {
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let number = || value.split_whitespace().next()?.parse::<u64>().ok();
        let bytes = || number().and_then(|kilobytes| kilobytes.checked_mul(1024));
        match name {
            "VmRSS" => process.memory_bytes = bytes(),
            "VmHWM" => process.memory_peak_bytes = bytes(),
            "VmSize" => process.address_space_bytes = bytes(),
            "Threads" => process.threads = number(),
            _ => {}
        }
    }
}

/// `/proc/self/stat`: the program's name in parentheses may hold spaces; behind it, `utime` and `stime` are the
/// 12th and 13th (proc_pid_stat(5), 14 and 15).
fn cpu_seconds(text: &str) -> Option<f64> {
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user.saturating_add(system) as f64 / TICKS_PER_SECOND)
}

/// Of the folder and all below it.
pub fn disk(folder: &Path) -> Disk {
    let mut disk = Disk::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // Files come and go meanwhile: what is gone is no matter.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if disk.index_files >= FILES_MAX {
                break;
            }
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                disk.index_files += 1;
                disk.index_folder_bytes += metadata.len();
            }
        }
    }
    if let Ok(room) = rustix::fs::statvfs(folder) {
        disk.disk_free_bytes = Some(room.f_bavail.saturating_mul(room.f_frsize));
        disk.disk_bytes = Some(room.f_blocks.saturating_mul(room.f_frsize));
    }
    disk
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_threads_are_read_from_the_systems_words() {
        let mut process = Process::default();
        let text = "Name:\tambra\nVmPeak:\t 9 kB\nVmSize:\t  2048 kB\nVmHWM:\t 300 kB\nVmRSS:\t 200 kB\nThreads:\t12\n";
        read_status(text, &mut process);
        assert_eq!(process.memory_bytes, Some(200 * 1024));
        assert_eq!(process.memory_peak_bytes, Some(300 * 1024));
        assert_eq!(process.address_space_bytes, Some(2048 * 1024));
        assert_eq!(process.threads, Some(12));
    }

    #[test]
    fn processor_time_is_read_whatever_the_programs_name() {
        let stat = "42 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 9 0 12345 1000 200 18446744073709551615";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(cpu_seconds("42 (x) S 1"), None);
    }

    #[test]
    fn this_process_takes_memory_and_has_files_open() {
        let process = process();
        if Path::new("/proc/self/status").exists() {
            assert!(process.memory_bytes > Some(1 << 20), "{process:?}");
            assert!(process.open_files > Some(2), "{process:?}");
            assert!(process.cpu_seconds.is_some(), "{process:?}");
        }
        assert!(process.open_files_max > Some(2), "{process:?}");
    }

    #[test]
    fn a_folder_is_as_large_as_its_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("below")).unwrap();
        fs::write(folder.path().join("a"), [0; 100]).unwrap();
        fs::write(folder.path().join("below/b"), [0; 23]).unwrap();
        let disk = disk(folder.path());
        assert_eq!((disk.index_files, disk.index_folder_bytes), (2, 123));
        assert!(disk.disk_free_bytes <= disk.disk_bytes && disk.disk_bytes > Some(0));
    }
}
