//! What lies at an address of a process that is no file's: generated code, the vDSO.

use super::wire::Region;
use crate::host::{ProcRoot, mappings::Mapping};

/// Regions of `addresses`, which are sorted; [`Region::Unknown`] of all if the process is gone.
pub fn regions(pid: u32, addresses: &[u64]) -> Vec<Region> {
    let mut regions = vec![Region::Unknown; addresses.len()];
    let mappings = ProcRoot::default().mappings(pid, &mut Vec::new());
    for mapping in mappings.unwrap_or_default() {
        let first = addresses.partition_point(|address| *address < mapping.range.start);
        let after = addresses.partition_point(|address| *address < mapping.range.end);
        if let Some(within) = regions.get_mut(first..after) {
            within.fill(region(&mapping));
        }
    }
    regions
}

fn region(mapping: &Mapping) -> Region {
    match mapping.path.as_slice() {
        b"[vdso]" => Region::Vdso,
        name if mapping.executable && mapping.inode == 0 && !name.starts_with(b"[vsyscall") => {
            Region::Generated
        }
        _ => Region::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::mappings::mapping;

    #[test]
    fn generated_code_is_executable_memory_without_a_file() {
        let region =
            |line: &str| mapping(line.trim_end().as_bytes()).map(|mapping| region(&mapping));
        assert_eq!(
            region("7f00-7f10 rwxp 00000000 00:00 0 \n"),
            Some(Region::Generated)
        );
        assert_eq!(
            region("7f00-7f10 r-xp 00000000 00:00 0 [anon:v8]\n"),
            Some(Region::Generated)
        );
        assert_eq!(
            region("7f00-7f10 rw-p 00000000 00:00 0 [heap]\n"),
            Some(Region::Unknown)
        );
        assert_eq!(
            region("7f00-7f10 r-xp 00000000 08:01 77 /bin/x\n"),
            Some(Region::Unknown)
        );
        assert_eq!(
            region("7f00-7f10 r-xp 00000000 00:00 0 [vdso]\n"),
            Some(Region::Vdso)
        );
        for broken in ["", "x", "7f00-", "7f00-7f10", "z-z rwxp 0 0 0\n"] {
            assert_eq!(region(broken), None, "{broken}");
        }
    }

    #[test]
    fn addresses_of_this_process_are_told_apart() {
        let local = 0_u64;
        let mut addresses = [1, std::ptr::from_ref(&local).addr() as u64, u64::MAX];
        addresses.sort_unstable();
        let regions = regions(std::process::id(), &addresses);
        assert_eq!(regions, [Region::Unknown; 3]);
        assert_eq!(super::regions(u32::MAX, &[1]), [Region::Unknown]);
    }
}
