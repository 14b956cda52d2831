//! Which socket the runtime has, of those that it may have. Only looks whether one is there.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

/// Between two looks for a socket that has never been there.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// Where the runtime may listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CriConfig {
    /// By how common they are.
    sockets: Vec<PathBuf>,
    /// Nobody asked for a runtime: that there is none is no failure.
    optional: bool,
    /// The last that was there. It stays the one that is spoken of when it is gone.
    seen: Option<PathBuf>,
    pub(super) look_every: Duration,
}

impl CriConfig {
    /// There and nowhere else.
    pub fn at(socket: PathBuf) -> Self {
        Self {
            sockets: vec![socket],
            optional: false,
            seen: None,
            look_every: LOOK_EVERY,
        }
    }

    /// At the first of these that `exists`, now or later.
    pub fn first_of(sockets: &[&str], optional: bool, exists: impl Fn(&Path) -> bool) -> CriConfig {
        let sockets: Vec<PathBuf> = sockets.iter().map(PathBuf::from).collect();
        let seen = sockets.iter().find(|socket| exists(socket)).cloned();
        Self {
            sockets,
            optional,
            seen,
            look_every: LOOK_EVERY,
        }
    }

    /// The socket to connect to; `None`: none of several has ever been there.
    pub(super) fn locate(&mut self) -> Option<PathBuf> {
        if let [only] = self.sockets.as_slice() {
            return Some(only.clone());
        }
        let is_there = |socket: &&PathBuf| socket.exists();
        if let Some(first) = self.sockets.iter().find(is_there) {
            self.seen = Some(first.clone());
        }
        self.seen.clone()
    }

    pub(super) fn is_optional(&self) -> bool {
        self.optional
    }

    /// That none is there, with the remedy.
    pub(super) fn missing(&self) -> String {
        let sockets = self.sockets.iter();
        let sockets: Vec<_> = sockets.map(|path| path.display().to_string()).collect();
        format!(
            "no container runtime listens at {}; start it, or give its socket with --cri-socket",
            sockets.join(", ")
        )
    }

    /// For a person; `None`: there is no socket so far, and that is fine.
    pub fn describe(&self) -> Option<String> {
        let socket = match (&self.seen, self.sockets.as_slice()) {
            (Some(seen), _) => seen,
            (None, [only]) => only,
            (None, _) if self.optional => return None,
            (None, _) => return Some("the container runtime".to_owned()),
        };
        Some(format!("the container runtime at {}", socket.display()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_first_socket_that_is_there_is_taken_and_remembered() {
        let directory = tempfile::tempdir().unwrap();
        let [first, second] = ["a", "b"].map(|name| directory.path().join(name));
        let paths = [first.to_str().unwrap(), second.to_str().unwrap()];
        let mut config = CriConfig::first_of(&paths, true, Path::exists);
        assert_eq!((config.locate(), config.describe()), (None, None));
        fs::write(&second, "").unwrap();
        assert_eq!(config.locate().as_ref(), Some(&second));
        fs::write(&first, "").unwrap();
        assert_eq!(config.locate().as_ref(), Some(&first));
        fs::remove_file(&first).unwrap();
        fs::remove_file(&second).unwrap();
        assert_eq!(config.locate().as_ref(), Some(&first));
    }
}
