//! What the kernel writes into its log about one OOM, parsed. Must not read the log.

use std::collections::HashMap;

/// Everything that was logged about one OOM. The kernel drops all but the `Killed process` messages
/// when there are many (10 headers in 5 seconds).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub invocation: Option<Invocation>,
    /// `memory`: usage and limit of the cgroup whose limit it was.
    pub memory: Option<Counter>,
    /// `swap` (v2) or `memory+swap` (v1).
    pub swap: Option<Counter>,
    pub choice: Option<Choice>,
    /// In the order in which they were killed; a member of a group can be there twice.
    pub kills: Vec<Kill>,
    /// The cgroup with `memory.oom.group`.
    pub group: Option<String>,
    /// Pages that each task had swapped out, by pid.
    pub swapped_pages: HashMap<u32, u64>,
    /// Position of `swapents` in the table of tasks.
    swap_column: Option<usize>,
}

/// `NAME invoked oom-killer`. Source: mm/oom_kill.c, dump_header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    pub comm: String,
    pub gfp_mask: u32,
    pub gfp_flags: String,
    pub order: i32,
    pub oom_score_adj: i32,
}

/// `memory: usage 32768kB, limit 32768kB, failcnt 12`. Source: mm/memcontrol.c.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    pub usage_kib: u64,
    pub limit_kib: u64,
    pub failures: u64,
}

/// `oom-kill:constraint=…`. Source: mm/oom_kill.c, dump_oom_summary and dump_oom_victim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Such as `CONSTRAINT_MEMCG`.
    pub constraint: String,
    /// `None`: `global_oom`, or a constraint without a cgroup.
    pub charged_cgroup: Option<String>,
    pub victim_cgroup: Option<String>,
    pub pid: u32,
    pub uid: u32,
}

/// One `Killed process` message, in its own units. Source: mm/oom_kill.c, __oom_kill_process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// `Memory cgroup out of memory`, not `Out of memory`.
    pub by_cgroup: bool,
    pub pid: u32,
    /// As /dev/kmsg escapes it.
    pub comm: String,
    pub total_vm_kib: u64,
    pub anon_kib: u64,
    pub file_kib: u64,
    pub shmem_kib: u64,
    pub uid: u32,
    pub page_tables_kib: u64,
    pub oom_score_adj: i64,
}

/// A message about an OOM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Invocation(Invocation),
    Memory(Counter),
    Swap(Counter),
    Columns { swap: usize },
    Task { line: String },
    Choice(Choice),
    Kill(Kill),
    Group(String),
}

impl Message {
    /// From one record of /dev/kmsg; `None` if it is about something else.
    pub fn parse(record: &str) -> Option<Self> {
        let text = record.split_once(';').map_or(record, |(_, text)| text);
        let text = text.lines().next()?;
        if let Some((comm, rest)) = text.split_once(" invoked oom-killer: ") {
            return invocation(comm, rest).map(Self::Invocation);
        }
        if let Some(rest) = text.strip_prefix("memory: usage ") {
            return counter(rest).map(Self::Memory);
        }
        let swap = text.strip_prefix("swap: usage ");
        if let Some(rest) = swap.or_else(|| text.strip_prefix("memory+swap: usage ")) {
            return counter(rest).map(Self::Swap);
        }
        if text.starts_with("[  pid  ]") {
            let mut names = text.strip_prefix("[  pid  ]")?.split_whitespace();
            let swap = names.position(|name| name == "swapents")?;
            return Some(Self::Columns { swap });
        }
        if text.starts_with('[') {
            let line = text.to_owned();
            return Some(Self::Task { line });
        }
        if let Some(rest) = text.strip_prefix("oom-kill:") {
            return choice(rest).map(Self::Choice);
        }
        if let Some(rest) = text.strip_prefix("Tasks in ") {
            let (cgroup, _) = rest.split_once(" are going to be killed")?;
            return Some(Self::Group(cgroup.to_owned()));
        }
        Kill::parse(text).map(Self::Kill)
    }
}

impl Report {
    /// Whether this message can only belong to the next OOM.
    pub fn ends_before(&self, message: &Message) -> bool {
        match message {
            Message::Invocation(_) => *self != Self::default(),
            // The other members of a group come behind the message about the group.
            Message::Kill(_) => !self.kills.is_empty() && self.group.is_none(),
            _ => false,
        }
    }

    pub fn take(&mut self, message: Message) {
        match message {
            Message::Invocation(invocation) => self.invocation = Some(invocation),
            Message::Memory(counter) => self.memory = Some(counter),
            Message::Swap(counter) => self.swap = Some(counter),
            Message::Columns { swap } => self.swap_column = Some(swap),
            Message::Task { line } => self.swapped_pages.extend(self.swapped(&line)),
            Message::Choice(choice) => self.choice = Some(choice),
            Message::Kill(kill) => self.kills.push(kill),
            Message::Group(cgroup) => self.group = Some(cgroup),
        }
    }

    fn swapped(&self, line: &str) -> Option<(u32, u64)> {
        let (pid, rest) = line.strip_prefix('[')?.split_once(']')?;
        let pages = rest.split_whitespace().nth(self.swap_column?)?;
        Some((pid.trim().parse().ok()?, pages.parse().ok()?))
    }

    /// What was logged about that process, the last time.
    pub fn kill_of(&self, pid: u32) -> Option<&Kill> {
        self.kills.iter().rev().find(|kill| kill.pid == pid)
    }
}

fn invocation(comm: &str, rest: &str) -> Option<Invocation> {
    let (mask, rest) = rest.strip_prefix("gfp_mask=0x")?.split_once('(')?;
    let (flags, rest) = rest.split_once("), ")?;
    Some(Invocation {
        comm: comm.to_owned(),
        gfp_mask: u32::from_str_radix(mask, 16).ok()?,
        gfp_flags: flags.to_owned(),
        order: i32::try_from(number_after(rest, "order=")?).ok()?,
        oom_score_adj: i32::try_from(number_after(rest, "oom_score_adj=")?).ok()?,
    })
}

fn counter(rest: &str) -> Option<Counter> {
    Some(Counter {
        usage_kib: unsigned(rest, "")?,
        limit_kib: unsigned(rest, "limit ")?,
        failures: unsigned(rest, "failcnt ")?,
    })
}

fn choice(rest: &str) -> Option<Choice> {
    let field = |name: &str| {
        let (_, value) = rest.split_once(name)?;
        Some(value.split(',').next().unwrap_or(value).to_owned())
    };
    Some(Choice {
        constraint: field("constraint=")?,
        charged_cgroup: field(",oom_memcg="),
        victim_cgroup: field(",task_memcg="),
        pid: field(",pid=")?.parse().ok()?,
        uid: field(",uid=")?.parse().ok()?,
    })
}

impl Kill {
    fn parse(text: &str) -> Option<Self> {
        let (cause, rest) = text.split_once(": Killed process ")?;
        let (pid, rest) = rest.split_once(" (")?;
        let (comm, rest) = rest.split_once(") total-vm:")?;
        let by_cgroup = match cause {
            "Memory cgroup out of memory" => true,
            "Out of memory" => false,
            _ => return None,
        };
        Some(Self {
            by_cgroup,
            pid: pid.parse().ok()?,
            comm: comm.to_owned(),
            total_vm_kib: unsigned(rest, "")?,
            anon_kib: unsigned(rest, "anon-rss:")?,
            file_kib: unsigned(rest, "file-rss:")?,
            shmem_kib: unsigned(rest, "shmem-rss:")?,
            uid: u32::try_from(unsigned(rest, "UID:")?).ok()?,
            page_tables_kib: unsigned(rest, "pgtables:")?,
            oom_score_adj: number_after(rest, "oom_score_adj:")?,
        })
    }
}

fn number_after(text: &str, name: &str) -> Option<i64> {
    let rest = match name {
        "" => text,
        name => text.split_once(name)?.1,
    };
    let end = rest
        .find(|character: char| !character.is_ascii_digit() && character != '-')
        .unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn unsigned(text: &str, name: &str) -> Option<u64> {
    number_after(text, name).and_then(|value| u64::try_from(value).ok())
}
