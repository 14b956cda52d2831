//! The socket file of the API: made private, never in the place of a live one, removed when it is done with.

use std::{
    fs::{self, DirBuilder},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt,
            listen, socket, sockopt,
        },
        stat::{Mode, fchmod},
    },
    unistd::geteuid,
};

use crate::host::trust::distrusted_directory;

const DIRECTORY_MODE: u32 = 0o700;
const SOCKET_MODE: Mode = Mode::from_bits_truncate(0o600);
/// Connections that wait to be taken.
const WAITING: i32 = 16;

/// The socket cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    #[error(
        "another memtrace{} answers on {}: stop it, or start this one with --api-socket none or another path",
        holder.map_or_else(String::new, |pid| format!(" (PID {pid})")), path.display()
    )]
    InUse {
        path: PathBuf,
        /// Its process, if the kernel tells it.
        holder: Option<u32>,
    },
    #[error("{} is there and is no socket: remove it, or choose another --api-socket", path.display())]
    NoSocket { path: PathBuf },
    #[error(
        "{} is refused, because {why}, and could put another socket in its place: \
         choose an --api-socket in a directory that only root may write, or none", path.display()
    )]
    NotTrusted { path: PathBuf, why: String },
    #[error("cannot {action} {}: {source}\n{}", path.display(), remedy(source))]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "make the directory that it is to lie in",
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
            "choose an --api-socket of at most 107 bytes"
        }
        _ => "choose another --api-socket, or none",
    }
}

/// A socket that is listened on. The file goes when it is dropped, if it is still this one.
#[derive(Debug)]
pub struct ApiSocket {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl ApiSocket {
    /// Makes the socket, for its owner alone, and the last directory of its path if that is missing.
    ///
    /// # Errors
    /// Others could replace it, somebody listens there, something else lies there, or it cannot be made.
    pub fn listen(path: &Path) -> Result<(Self, UnixListener), SocketError> {
        let failed = |action: &'static str| {
            move |source: io::Error| SocketError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let errno = |action: &'static str| move |errno: Errno| failed(action)(errno.into());
        make_directory(path)?;
        if let Some(why) = distrusted_directory(path, geteuid().as_raw()) {
            return Err(SocketError::NotTrusted {
                path: path.to_owned(),
                why,
            });
        }
        let address = UnixAddr::new(path).map_err(errno("make"))?;
        let fd = new_socket().map_err(errno("make"))?;
        // Before it has a name: nobody else can open it in between.
        fchmod(&fd, SOCKET_MODE).map_err(errno("make"))?;
        match bind(fd.as_raw_fd(), &address) {
            Err(Errno::EADDRINUSE) => {
                remove_stale(path)?;
                bind(fd.as_raw_fd(), &address).map_err(errno("make"))?;
            }
            bound => bound.map_err(errno("make"))?,
        }
        let metadata = fs::symlink_metadata(path).map_err(failed("look at"))?;
        let socket = Self {
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
        };
        let waiting = Backlog::new(WAITING).map_err(errno("listen on"))?;
        listen(&fd, waiting).map_err(errno("listen on"))?;
        Ok((socket, UnixListener::from(fd)))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ApiSocket {
    fn drop(&mut self) {
        let is_ours = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| is_ours(&metadata))
            && let Err(error) = fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Makes the directory of a socket its owner's alone, where that is this very user: a directory that is made for
/// memtrace, such as a volume of Kubernetes, may come with the rights of all.
pub fn close_directory(path: &Path) {
    let Some(directory) = path.parent() else {
        return;
    };
    let is_ours = |metadata: &fs::Metadata| {
        metadata.is_dir() && metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o022 != 0
    };
    if fs::symlink_metadata(directory).is_ok_and(|metadata| is_ours(&metadata)) {
        // Where it fails, the socket is refused and says why.
        let _ = fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE));
    }
}

fn make_directory(path: &Path) -> Result<(), SocketError> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let Some(directory) = directory else {
        return Ok(());
    };
    match DirBuilder::new().mode(DIRECTORY_MODE).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists && !directory.is_dir() => {
            Err(SocketError::Io {
                action: "make",
                path: directory.to_owned(),
                source: error,
            })
        }
        _ => Ok(()),
    }
}

/// Removes a socket on which nobody listens; follows no link.
fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |action, source| SocketError::Io {
        action,
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata.map_err(|error| failed("look at", error))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NoSocket {
            path: path.to_owned(),
        });
    }
    let in_use = |holder| SocketError::InUse {
        path: path.to_owned(),
        holder,
    };
    let address = UnixAddr::new(path).map_err(|errno| failed("connect to", errno.into()))?;
    let fd = new_socket().map_err(|errno| failed("connect to", errno.into()))?;
    match connect(fd.as_raw_fd(), &address) {
        Ok(()) => {
            let peer = getsockopt(&fd, sockopt::PeerCredentials).ok();
            let holder = peer.and_then(|peer| u32::try_from(peer.pid()).ok());
            Err(in_use(holder.filter(|pid| *pid > 0)))
        }
        // It is there, and too busy to take another connection.
        Err(Errno::EAGAIN) => Err(in_use(None)),
        Err(Errno::ECONNREFUSED) => fs::remove_file(path).map_err(|error| failed("replace", error)),
        Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(failed("connect to", errno.into())),
    }
}

/// One that never waits.
fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::{
        fs::{PermissionsExt as _, symlink},
        net::UnixStream,
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn socket_and_directory_are_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memtrace/agent.sock");
        let (socket, _listener) = ApiSocket::listen(&path).unwrap();
        assert_eq!(
            (mode(&path), mode(&dir.path().join("memtrace"))),
            (0o600, 0o700)
        );
        UnixStream::connect(&path).unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn where_others_could_replace_it_there_is_no_socket() {
        let dir = tempfile::tempdir().unwrap();
        let open = dir.path().join("open");
        fs::create_dir(&open).unwrap();
        for (bits, is_refused) in [
            (0o777, true),
            (0o770, true),
            (0o1777, false),
            (0o755, false),
        ] {
            fs::set_permissions(&open, fs::Permissions::from_mode(bits)).unwrap();
            let path = open.join("agent.sock");
            let below = open.join("below/agent.sock");
            for path in [path, below] {
                match ApiSocket::listen(&path) {
                    Err(error) => {
                        let text = error.to_string();
                        assert!(matches!(error, SocketError::NotTrusted { .. }), "{text}");
                        assert!(
                            is_refused && text.contains("--api-socket"),
                            "{bits:o}: {text}"
                        );
                        assert!(!path.exists());
                    }
                    Ok(_) => assert!(!is_refused, "{bits:o}"),
                }
            }
        }
    }

    #[test]
    fn a_directory_of_ones_own_is_closed_and_then_good() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        fs::set_permissions(&own, fs::Permissions::from_mode(0o777)).unwrap();
        let path = own.join("agent.sock");
        close_directory(&path);
        assert_eq!(mode(&own), 0o700);
        ApiSocket::listen(&path).unwrap();
        // One that is closed enough stays as it is, and one that is not there is no error.
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755)).unwrap();
        close_directory(&path);
        assert_eq!(mode(&own), 0o755);
        close_directory(&dir.path().join("none/agent.sock"));
    }

    #[test]
    fn a_socket_on_which_nobody_listens_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let (_socket, _listener) = ApiSocket::listen(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_socket_of_another_agent_is_left_alone_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (_first, _listener) = ApiSocket::listen(&path).unwrap();
        let error = ApiSocket::listen(&path).unwrap_err().to_string();
        let pid = std::process::id().to_string();
        for wanted in [path.to_str().unwrap(), "--api-socket none", &pid] {
            assert!(error.contains(wanted), "{error}");
        }
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_took_its_place_is_not_removed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let (first, _listener) = ApiSocket::listen(&path).unwrap();
        // Kept under another name, so that its inode is not given to the next.
        fs::rename(&path, dir.path().join("old")).unwrap();
        let (second, _listener) = ApiSocket::listen(&path).unwrap();
        drop(first);
        UnixStream::connect(&path).unwrap();
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn links_and_files_are_neither_followed_nor_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        drop(UnixListener::bind(&target).unwrap());
        let link = dir.path().join("link");
        symlink(&target, &link).unwrap();
        let dangling = dir.path().join("dangling");
        symlink(dir.path().join("nowhere"), &dangling).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        for path in [&link, &dangling, &file] {
            let error = ApiSocket::listen(path).unwrap_err();
            assert!(matches!(error, SocketError::NoSocket { .. }), "{error}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        assert!(target.exists() && !dir.path().join("nowhere").exists());
    }

    #[test]
    fn only_the_last_directory_is_made_and_a_long_path_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("no/where/agent.sock");
        let error = ApiSocket::listen(&deep).unwrap_err().to_string();
        assert!(error.contains("make the directory"), "{error}");
        assert!(!dir.path().join("no").exists());
        let long = dir.path().join("x".repeat(120));
        let error = ApiSocket::listen(&long).unwrap_err().to_string();
        assert!(error.contains("107 bytes"), "{error}");
    }
}
