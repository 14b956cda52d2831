//! Names under churn, by the thread that the agent has for them. A measurement: `--ignored --nocapture`.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use super::{
    CriConfig,
    fake::Fake,
    tests::{container, id, world},
};
use crate::identity::{
    directory::Directory,
    facts::{Update, Wanted},
    names::NamingOptions,
    sources::{Sources, SourcesConfig},
};

/// A container lives this long.
const LIFE: Duration = Duration::from_millis(100);
const BETWEEN: Duration = Duration::from_millis(20);
const MEASURED: Duration = Duration::from_secs(10);

/// Of the thread of the sources.
fn cpu() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let thread = tasks
        .map(|task| task.path())
        .find(|task| {
            fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == "memtrace-names")
        })
        .unwrap();
    let schedstat = fs::read_to_string(thread.join("schedstat")).unwrap();
    let ran = schedstat.split(' ').next().unwrap();
    Duration::from_nanos(ran.parse().unwrap())
}

#[test]
#[ignore = "a measurement of a minute"]
fn fifty_containers_a_second_are_named_while_they_live() {
    for others in [0, 100, 1000] {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("cri.sock");
        let fake = Fake::start(&socket);
        fake.with(|fake| *fake = world(0..others));
        let mut sources = Sources::start(SourcesConfig {
            cri: Some(CriConfig::at(socket)),
            ..SourcesConfig::default()
        })
        .unwrap();
        let mut known = Directory::new(NamingOptions::default());
        while !matches!(sources.updates.blocking_recv().unwrap(), Update::Source(..)) {}

        let (before, began) = (cpu(), Instant::now());
        let mut living = HashMap::new();
        let (mut delays, mut in_agent) = (Vec::new(), Duration::ZERO);
        let (mut made, mut late) = (0_usize, 0);
        while began.elapsed() < MEASURED {
            if began.elapsed() >= BETWEEN * u32::try_from(made).unwrap() {
                let number = 10_000 + made;
                fake.with(|fake| fake.containers.push(container(number)));
                living.insert(id(number), Instant::now());
                let container_id = id(number);
                sources.want(&Wanted { container_id });
                made += 1;
            }
            while let Ok(update) = sources.updates.try_recv() {
                let taken = Instant::now();
                known.apply(update, began.elapsed());
                in_agent += taken.elapsed();
            }
            living.retain(|id, made: &mut Instant| {
                if known.knows(id) {
                    delays.push(made.elapsed());
                    return false;
                }
                late += usize::from(made.elapsed() > LIFE);
                made.elapsed() <= LIFE
            });
            // Dead ones stay listed for a while, as with kubelets.
            fake.with(|fake| {
                let listed = fake.containers.len();
                let dead = listed.saturating_sub(others + 100);
                fake.containers.drain(others..others + dead);
            });
            std::thread::sleep(Duration::from_micros(500));
        }
        let share = |part: Duration| 100.0 * part.as_secs_f64() / began.elapsed().as_secs_f64();
        delays.sort_unstable();
        println!(
            "{others} others: {made} made, {} named in time, {late} late; delay p50 {:?}, p99 {:?}; \
             lists a second {:.1}; CPU of the thread {:.2} %, of taking updates in {:.2} %",
            delays.len(),
            delays[delays.len() / 2],
            delays[delays.len() * 99 / 100],
            fake.with(|fake| fake.lists as f64) / began.elapsed().as_secs_f64(),
            share(cpu() - before),
            share(in_agent),
        );
        assert_eq!(late, 0);
        drop(sources);
        std::thread::sleep(Duration::from_millis(200));
    }
}
