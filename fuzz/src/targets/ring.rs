//! Records of the BPF rings, one behind the other, and the incidents that are made of them.
//!
//! A record is its ring (1 byte), its length (2 bytes, little endian) and its bytes.

use jiff::Timestamp;
use memtrace::{
    export::console::incident,
    incident::{
        Incident,
        assembly::{Assembler, HostFacts, Surroundings},
    },
    kernel::fields::OomConstraints,
    probes::{lifecycle, oom, stack},
};
use memtrace_ebpf::oom::{ARGS_LEN, EXECUTABLE_LEN, MOST_LEVELS};

use crate::promise;

const PAGE: u64 = 4096;
const COMM_CHARS: usize = 64;
const MOST_RECORDS: usize = 64;
const WIDTH: usize = 100;

/// A host that knows some cgroups by their ids.
struct Host;

impl Surroundings for Host {
    fn cgroup(&self, id: u64) -> Option<String> {
        (id % 4 != 0).then(|| format!("/cgroup-{id}"))
    }

    fn is_above(&self, upper: u64, lower: u64) -> bool {
        upper <= lower
    }

    fn wall_clock(&self, boot_ns: u64) -> Timestamp {
        Timestamp::from_nanosecond(i128::from(boot_ns)).unwrap_or(Timestamp::MAX)
    }

    fn gfp_flags(&self, mask: u32) -> Option<String> {
        (mask % 2 == 0).then(|| format!("{mask:#x}"))
    }
}

pub fn run(mut data: &[u8]) {
    let mut assembler = Assembler::new(HostFacts {
        boot_id: "boot".to_owned(),
        constraints: OomConstraints {
            none: Some(0),
            cpuset: Some(1),
            memory_policy: Some(2),
            memcg: Some(3),
        },
        single_node: false,
        sees_signals: true,
        sees_deaths: true,
        swap_counts_memory: true,
        page_bytes: PAGE,
    });
    for _ in 0..MOST_RECORDS {
        let [ring, low, high, rest @ ..] = data else {
            break;
        };
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (record, behind) = rest.split_at(length);
        data = behind;
        match ring % 3 {
            0 => of_oom(record, &mut assembler),
            1 => drop(lifecycle::decode(record, PAGE)),
            _ => of_stack(record),
        }
    }
    assembler.close_all().iter().for_each(told);
}

fn of_oom(record: &[u8], assembler: &mut Assembler) {
    let Some(decoded) = oom::decode(record, PAGE) else {
        return;
    };
    match &decoded {
        oom::OomRecord::Charge(charge) => assert!(charge.levels.len() <= MOST_LEVELS),
        oom::OomRecord::Mark(victim) | oom::OomRecord::Signal(victim) => {
            let text = |text: &Option<String>, most| {
                text.iter().for_each(|text| promise::line(text, most));
            };
            text(&victim.comm, COMM_CHARS);
            text(&victim.command_line, 4 * ARGS_LEN + 1);
            text(&victim.executable, 4 * EXECUTABLE_LEN);
            text(&victim.sender_process_comm, COMM_CHARS);
            promise::line(&victim.sender_comm, COMM_CHARS);
        }
        _ => {}
    }
    assembler.feed(decoded, &Host);
    while let Some(incident) = assembler.next_opened() {
        told(incident);
    }
    if let Some(at) = assembler.next_close() {
        while let Some(incident) = assembler.next_closed(at) {
            told(&incident);
        }
    }
}

/// As a line, as a report, and as JSON that says the same when it is read again.
fn told(incident: &Incident) {
    promise::printable(&incident::line(incident));
    promise::printable(&incident::report(incident, false, WIDTH));
    let text = serde_json::to_string(incident).expect("an incident is JSON");
    let read: Incident = serde_json::from_str(&text).expect("an incident is read back");
    assert_eq!(&read, incident);
}

fn of_stack(record: &[u8]) {
    if let Some(sample) = stack::decode(record) {
        assert!(sample.stack.len() < record.len());
        assert!(sample.shift < 64);
        promise::line(&sample.comm, COMM_CHARS);
    }
}
