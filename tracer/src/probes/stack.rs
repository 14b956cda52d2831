//! Sampled pages with registers and stack.

use memtrace_ebpf::stack::{KIND_BRK, KIND_FAULT, KIND_MMAP, StackHead};

use super::{record, text};

/// Longest name of a thread shown, characters.
const COMM_CHARS: usize = 64;

/// What a sample stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// A page was written to that could not be written to before; `protected`: it was there.
    Page { protected: bool },
    /// `mmap` gave this many bytes.
    Mmap { bytes: u64 },
    /// `brk` gave this many bytes.
    Brk { bytes: u64 },
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StackSample<'r> {
    pub touched: Touched,
    pub pid: u32,
    pub tid: u32,
    pub cgroup_id: u64,
    /// One page in `2^shift` is sampled.
    pub shift: u32,
    /// Names the address space while it lives.
    pub mm: u64,
    /// Where its first stack began; `None` if the kernel does not tell.
    pub start_stack: Option<u64>,
    pub address: u64,
    pub boot_ns: u64,
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    /// Link register; 0 on x86-64, which has none.
    pub lr: u64,
    /// Of the process, since boot; `None` if the kernel does not tell.
    pub process_start_ns: Option<u64>,
    /// Of the thread; escaped for display.
    pub comm: String,
    /// Stack memory from `sp` upwards.
    pub stack: &'r [u8],
}

/// `None` if the record is cut short or of no known kind.
pub fn decode(bytes: &[u8]) -> Option<StackSample<'_>> {
    let head: StackHead = record(bytes)?;
    let stack = bytes.get(size_of::<StackHead>()..)?;
    let stack = stack.get(..head.stack_len as usize)?;
    let touched = match head.kind {
        KIND_FAULT => Touched::Page {
            protected: head.protected != 0,
        },
        KIND_MMAP => Touched::Mmap { bytes: head.bytes },
        KIND_BRK => Touched::Brk { bytes: head.bytes },
        _ => return None,
    };
    Some(StackSample {
        touched,
        pid: head.tgid,
        tid: head.tid,
        cgroup_id: head.cgroup_id,
        shift: head.shift.min(63),
        mm: head.mm,
        start_stack: (head.start_stack != 0).then_some(head.start_stack),
        address: head.address,
        boot_ns: head.time_ns,
        ip: head.ip,
        sp: head.sp,
        bp: head.bp,
        lr: head.lr,
        process_start_ns: (head.process_start_ns != 0).then_some(head.process_start_ns),
        comm: text(&head.comm, COMM_CHARS),
        stack,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(head: &StackHead, stack: &[u8]) -> Vec<u8> {
        // SAFETY: repr(C) without padding.
        let raw = unsafe {
            std::slice::from_raw_parts((&raw const *head).cast::<u8>(), size_of::<StackHead>())
        };
        [raw, stack].concat()
    }

    fn head() -> StackHead {
        StackHead {
            kind: KIND_FAULT,
            tgid: 10,
            tid: 11,
            shift: 6,
            cgroup_id: 3,
            mm: 4,
            start_stack: 0,
            address: 0x7000,
            bytes: 0,
            time_ns: 5,
            ip: 6,
            sp: 7,
            bp: 8,
            lr: 10,
            process_start_ns: 9,
            stack_len: 4,
            protected: 1,
            comm: *b"a\x1bb\0cdefghijklmn",
        }
    }

    #[test]
    fn a_sample_carries_the_stack_that_its_head_tells() {
        let record = bytes(&head(), b"stackbehind");
        let sample = decode(&record).unwrap();
        assert_eq!(sample.stack, b"stac");
        assert_eq!(sample.touched, Touched::Page { protected: true });
        assert_eq!(sample.start_stack, None);
        assert_eq!(sample.process_start_ns, Some(9));
        assert!(!sample.comm.contains('\x1b'), "{}", sample.comm);
    }

    #[test]
    fn records_that_are_cut_short_or_unknown_are_none() {
        let record = bytes(&head(), b"sta");
        assert_eq!(decode(&record), None);
        for length in 0..size_of::<StackHead>() {
            assert_eq!(decode(&record[..length]), None);
        }
        let unknown = StackHead { kind: 9, ..head() };
        assert_eq!(decode(&bytes(&unknown, b"stack")), None);
        let wild = StackHead {
            shift: u32::MAX,
            ..head()
        };
        assert_eq!(decode(&bytes(&wild, b"stack")).unwrap().shift, 63);
    }
}
