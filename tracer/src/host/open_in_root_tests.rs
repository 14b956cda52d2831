use super::*;

/// Leases `file` to itself, as everybody may an own file that nobody else has open.
pub(crate) fn lease(file: &File) {
    const F_SETLEASE: i32 = 1024;
    // SAFETY: calls on a descriptor that lives through them; with no owner, breaking the lease sends
    // no SIGIO, which would end the process.
    unsafe {
        let taken = libc::fcntl(
            file.as_raw_fd(),
            F_SETLEASE,
            i32::from(libc::F_WRLCK as i16),
        );
        assert_eq!(taken, 0, "{}", io::Error::last_os_error());
        assert_eq!(libc::fcntl(file.as_raw_fd(), libc::F_SETOWN, 0), 0);
    }
}

#[test]
fn a_file_under_a_lease_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("leased");
    std::fs::write(&path, "text").unwrap();
    let root = Root::at(directory.path()).unwrap();
    assert!(root.open(Path::new("/leased"), true).is_ok());
    let leased = File::open(&path).unwrap();
    lease(&leased);
    let refused = root.open(Path::new("/leased"), true).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    drop(leased);
    assert!(root.open(Path::new("/leased"), false).is_ok());
}

#[test]
fn a_pipe_is_no_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pipe");
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let root = Root::at(directory.path()).unwrap();
    assert!(root.open(Path::new("/pipe"), true).is_err());
}
