//! Reads a configuration file, and refuses one that others could make the agent run commands by.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{
    definition::Key,
    parse::{self, Settings},
    problem::ConfigError,
};

/// Where the file is if nobody says.
pub const DEFAULT_PATH: &str = "/etc/memtrace/memtrace.toml";
/// Largest file that is read, bytes.
const LARGEST: u64 = 256 << 10;
const GROUP_WRITES: u32 = 0o020;
const OTHERS_WRITE: u32 = 0o002;

/// Reads and checks a file.
///
/// # Errors
/// Why it cannot be used.
pub fn read(path: &Path, keys: &[Key]) -> Result<Settings, ConfigError> {
    let unreadable = |cause| ConfigError::Unreadable {
        path: path.to_owned(),
        cause,
    };
    let (file, metadata) = open(path).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > LARGEST {
        return Err(ConfigError::TooLarge {
            path: path.to_owned(),
            most: LARGEST,
        });
    }
    let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotText {
        path: path.to_owned(),
    })?;
    let settings = parse::parse(&text, keys).map_err(|problems| ConfigError::Wrong {
        path: path.to_owned(),
        problems,
    })?;
    let own = nix::unistd::geteuid().as_raw();
    match distrust(metadata.uid(), metadata.gid(), metadata.mode(), own) {
        Some(why) if !settings.rules.is_empty() => Err(ConfigError::NotTrusted {
            path: path.to_owned(),
            why,
        }),
        _ => Ok(settings),
    }
}

fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // A pipe without a writer must not hold the agent up.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok((file, metadata))
}

/// Why somebody else could change the file; `None`: only root or this very user can.
fn distrust(owner: u32, group: u32, mode: u32, own: u32) -> Option<String> {
    if owner != 0 && owner != own {
        Some(format!("user {owner} owns it"))
    } else if mode & OTHERS_WRITE != 0 {
        Some("everybody may write it".to_owned())
    } else if mode & GROUP_WRITES != 0 && group != 0 {
        Some(format!("group {group} may write it"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;
    use crate::config::definition;

    const ON_EVENT: &str = "[[on_event]]\non = [\"incident\"]\nshell = \"true\"\n";

    fn written(text: &[u8], mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        std::fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn read_text(text: &[u8], mode: u32) -> Result<Settings, ConfigError> {
        read(written(text, mode).path(), &definition::keys())
    }

    #[test]
    fn commands_are_taken_only_from_a_file_that_root_or_the_user_alone_can_write() {
        assert!(distrust(0, 0, 0o644, 0).is_none());
        assert!(distrust(0, 0, 0o664, 0).is_none());
        assert!(distrust(1000, 1000, 0o644, 1000).is_none());
        assert!(distrust(1000, 0, 0o600, 0).is_some());
        assert!(distrust(0, 1000, 0o660, 0).is_some());
        assert!(distrust(0, 0, 0o646, 0).is_some());
        let refused = read_text(ON_EVENT.as_bytes(), 0o666)
            .unwrap_err()
            .to_string();
        assert!(refused.contains("everybody may write it"), "{refused}");
        assert!(refused.contains("chmod go-w"), "{refused}");
        assert_eq!(
            read_text(ON_EVENT.as_bytes(), 0o600).unwrap().rules.len(),
            1
        );
        // Without commands it can do less harm than who may write it could.
        assert!(read_text(b"interval = \"1s\"\n", 0o666).is_ok());
    }

    #[test]
    fn what_is_no_text_too_long_or_no_file_is_refused() {
        let long = vec![b'#'; LARGEST as usize + 1];
        let error = |bytes: &[u8]| read_text(bytes, 0o600).unwrap_err();
        assert!(matches!(error(&long), ConfigError::TooLarge { .. }));
        assert!(matches!(error(b"\xff"), ConfigError::NotText { .. }));
        let keys = definition::keys();
        let missing = read(Path::new("/nonexistent/memtrace.toml"), &keys);
        assert!(matches!(missing, Err(ConfigError::Unreadable { .. })));
        let directory = read(Path::new("/"), &keys);
        assert!(matches!(directory, Err(ConfigError::Unreadable { .. })));
    }
}
