//! Reads a configuration file, and refuses one that others could make the agent run commands by.

use std::{
    fs::{File, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::host::trust::{distrust, distrusted_directory};

use super::{
    definition::Key,
    parse::{self, Settings},
    problem::ConfigError,
};

/// Where the file is if nobody says.
pub const DEFAULT_PATH: &str = "/etc/memtrace/memtrace.toml";
/// Largest file that is read, bytes.
const LARGEST: u64 = 64 << 10;

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
    let is_of_process =
        fstatfs(&file).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
    if is_of_process {
        // Whoever owns it, its text is what a process says.
        return Err(unreadable(io::Error::other("it is a file of procfs")));
    }
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
    if settings.rules.is_empty() {
        return Ok(settings);
    }
    let own = nix::unistd::geteuid().as_raw();
    let of_file = distrust(metadata.uid(), metadata.mode(), own).map(|why| format!("{why} it"));
    match of_file.or_else(|| distrusted_directory(path, own)) {
        Some(why) => Err(ConfigError::NotTrusted {
            path: path.to_owned(),
            why,
        }),
        None => Ok(settings),
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
    fn commands_are_not_taken_from_where_others_could_put_another_file() {
        let keys = definition::keys();
        let place = tempfile::tempdir().unwrap();
        let open = place.path().join("open");
        let own = place.path().join("own");
        for directory in [&open, &own] {
            fs::create_dir(directory).unwrap();
            let file = directory.join("memtrace.toml");
            fs::write(&file, ON_EVENT).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        }
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let refused = read(&open.join("memtrace.toml"), &keys).unwrap_err();
        assert!(refused.to_string().contains("/open"), "{refused}");
        assert!(read(&own.join("memtrace.toml"), &keys).is_ok());
        // Nor through a link that lies there.
        std::os::unix::fs::symlink(own.join("memtrace.toml"), open.join("link")).unwrap();
        assert!(read(&open.join("link"), &keys).is_err());
        std::os::unix::fs::symlink(open.join("memtrace.toml"), own.join("link")).unwrap();
        assert!(read(&own.join("link"), &keys).is_err());
    }

    #[test]
    fn what_a_process_says_is_no_configuration() {
        let error = read(Path::new("/proc/self/status"), &definition::keys()).unwrap_err();
        assert!(error.to_string().contains("procfs"), "{error}");
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
