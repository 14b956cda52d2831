//! Whether the state directory is this user's alone: what lies there is believed.
//!
//! Owns the warning of one that others may write to. Must not change rights that somebody else gave.

use std::{
    fs::{self, Metadata},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use crate::host::{
    escape::display,
    trust::{distrust, distrusted_directory},
};

const MOST_PATH_CHARS: usize = 4096;

/// What to warn of where somebody else than root and `own` could write to the directory, to one in it, or put
/// another one in its place; `None`: nobody could, or there is no directory.
pub fn warning(state_dir: &Path, own: u32) -> Option<String> {
    // Through a link: it is what the operator named. Who could change that link counts below.
    let found = fs::metadata(state_dir).ok().filter(Metadata::is_dir)?;
    let here = distrusted(state_dir, &found, own).or_else(|| distrusted_inside(state_dir, own));
    let (why, remedy) = match here {
        Some(why) => (
            why,
            format!("look through it and make it this user's alone (chown {own}, chmod 700)"),
        ),
        None => (
            distrusted_directory(state_dir, own)?,
            "let nobody but root and this user write there".to_owned(),
        ),
    };
    Some(format!(
        "{why}: who can write there can forge or remove incidents in {}; {remedy}, or choose another --state-dir",
        shown(state_dir)
    ))
}

/// The first of its subdirectories that others could write to; follows no link.
fn distrusted_inside(state_dir: &Path, own: u32) -> Option<String> {
    let entries = fs::read_dir(state_dir).ok()?;
    entries.flatten().find_map(|entry| {
        let found = entry.metadata().ok().filter(Metadata::is_dir)?;
        distrusted(&entry.path(), &found, own)
    })
}

fn distrusted(directory: &Path, found: &Metadata, own: u32) -> Option<String> {
    let (owner, mode) = (found.uid(), found.mode());
    let why = distrust(owner, mode, own)?;
    Some(format!(
        "{why} {} (owner {owner}, mode {:04o})",
        shown(directory),
        mode & 0o7777
    ))
}

fn shown(path: &Path) -> String {
    display(path.as_os_str().as_encoded_bytes(), MOST_PATH_CHARS)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::Permissions,
        os::unix::fs::{PermissionsExt as _, chown, symlink},
        path::PathBuf,
    };

    use nix::unistd::geteuid;

    use super::*;

    fn made(directory: PathBuf, mode: u32) -> PathBuf {
        fs::create_dir(&directory).unwrap();
        set_mode(&directory, mode);
        directory
    }

    fn set_mode(directory: &Path, mode: u32) {
        fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
    }

    fn told(state_dir: &Path) -> Option<String> {
        warning(state_dir, geteuid().as_raw())
    }

    #[test]
    fn a_directory_that_others_may_write_to_is_warned_of_with_a_remedy() {
        let place = tempfile::tempdir().unwrap();
        let state = made(place.path().join("state"), 0o700);
        for mode in [0o700, 0o750, 0o755] {
            set_mode(&state, mode);
            assert_eq!(told(&state), None, "{mode:o}");
        }
        // Who may add to a sticky one may add incidents.
        for mode in [0o770, 0o777, 0o1777] {
            set_mode(&state, mode);
            let text = told(&state).unwrap();
            let shown_mode = format!("mode {mode:04o}");
            for part in [
                state.to_str().unwrap(),
                &shown_mode,
                "forge or remove incidents",
                "chmod 700",
                "another --state-dir",
            ] {
                assert!(text.contains(part), "no {part} in {text}");
            }
        }
    }

    #[test]
    fn one_of_another_user_is_warned_of_with_its_owner() {
        let place = tempfile::tempdir().unwrap();
        let state = made(place.path().join("state"), 0o700);
        let (owner, own) = match geteuid().as_raw() {
            // Root is trusted by everybody.
            0 => {
                chown(&state, Some(1), None).unwrap();
                (1, 0)
            }
            user => (user, user + 1),
        };
        let text = warning(&state, own).unwrap();
        let why = format!("user {owner} owns {} (owner {owner}", state.display());
        assert!(text.starts_with(&why), "{text}");
        assert!(text.contains(&format!("chown {own}")), "{text}");
    }

    #[test]
    fn its_subdirectories_count_and_links_in_it_are_not_followed() {
        let place = tempfile::tempdir().unwrap();
        let state = made(place.path().join("state"), 0o700);
        let open = made(place.path().join("open"), 0o777);
        let incidents = made(state.join("incidents"), 0o700);
        symlink(&open, state.join("growth")).unwrap();
        assert_eq!(told(&state), None);
        set_mode(&incidents, 0o777);
        let text = told(&state).unwrap();
        assert!(text.contains(incidents.to_str().unwrap()), "{text}");
    }

    #[test]
    fn where_others_could_put_another_one_in_its_place_that_is_told() {
        let place = tempfile::tempdir().unwrap();
        let parent = made(place.path().join("parent"), 0o777);
        let state = made(parent.join("state"), 0o700);
        let text = told(&state).unwrap();
        let why = format!("everybody may write {}: ", parent.display());
        assert!(text.starts_with(&why), "{text}");
        // Nobody is to close the likes of /tmp for everybody else.
        assert!(!text.contains("chmod 700"), "{text}");
        set_mode(&parent, 0o1777);
        assert_eq!(told(&state), None);
    }

    #[test]
    fn one_that_a_link_leads_to_is_looked_at_itself() {
        let place = tempfile::tempdir().unwrap();
        let state = made(place.path().join("state"), 0o700);
        let link = place.path().join("link");
        symlink(&state, &link).unwrap();
        assert_eq!(told(&link), None);
        set_mode(&state, 0o777);
        assert!(told(&link).is_some());
    }

    #[test]
    fn what_is_no_directory_is_not_warned_of() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("file");
        fs::write(&file, "").unwrap();
        set_mode(&file, 0o666);
        assert_eq!(told(&file), None);
        assert_eq!(told(&place.path().join("none")), None);
    }
}
