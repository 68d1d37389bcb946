//! Who asks, and which folders are closed to them: for commands that can be typed as they stand.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// This user's name, or the number where it has none; not `$USER`, which would be whoever pastes the command.
pub(super) fn user() -> String {
    // A process's folder belongs to whom it runs as (proc(5)).
    let Ok(process) = fs::metadata("/proc/self") else {
        return "$USER".to_owned();
    };
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    name_of(process.uid(), &passwd).unwrap_or_else(|| process.uid().to_string())
}

/// Of passwd(5): `name:password:uid:...`.
fn name_of(id: u32, passwd: &str) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid: u32 = fields.nth(1)?.parse().ok()?;
        (uid == id).then(|| name.to_owned())
    })
}

/// The command that lets this user through to `path`, where a folder on the way is closed to them.
pub(super) fn way_to(path: &Path) -> Option<String> {
    let closed = closed_from(path)?;
    let folders: Vec<String> = closed.iter().map(|folder| quoted(folder)).collect();
    Some(format!(
        "sudo setfacl -m u:{}:x {}",
        user(),
        folders.join(" ")
    ))
}

/// A line for those who have no setfacl yet, before the lines that need it.
pub(super) fn with_setfacl(lines: &mut Vec<String>) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there = std::env::split_paths(&path).any(|folder| folder.join("setfacl").is_file());
    let is_needed = lines.iter().any(|line| line.contains("setfacl"));
    if is_needed && !is_there {
        lines.insert(0, "sudo apt install acl".to_owned());
    }
}

/// The folders above `path`, from the first that is closed on: of those below it nobody else can tell.
fn closed_from(path: &Path) -> Option<Vec<PathBuf>> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    let is_closed = |folder: &&Path| {
        // Any name will do: in a closed folder nothing can be asked about.
        let within = fs::symlink_metadata(folder.join("."));
        within.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    let first = above.iter().position(is_closed)?;
    Some(
        above[first..]
            .iter()
            .map(|path| path.to_path_buf())
            .collect(),
    )
}

/// As a shell takes it for one word.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,@:".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_a_name_in_passwd() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\nbroken:x\nambra:x:998:998::/var/lib/ambra:/bin/false\n";
        assert_eq!(name_of(998, passwd).as_deref(), Some("ambra"));
        assert_eq!(name_of(5, passwd), None);
    }

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        for (path, word) in [
            ("/srv/btc-1/.bitcoin", "/srv/btc-1/.bitcoin"),
            ("/Volumes/My Disk", "'/Volumes/My Disk'"),
            ("/it's", r"'/it'\''s'"),
            ("/$HOME", "'/$HOME'"),
        ] {
            assert_eq!(quoted(Path::new(path)), word);
        }
    }

    #[test]
    fn an_open_way_needs_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(way_to(&dir.path().join("x")), None);
    }
}
