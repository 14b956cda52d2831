//! Names for code: perf maps that programs write, and answers of the worker that reads their files.
//!
//! The first byte says which.

use std::{cell::LazyCell, fs::File, io::Write as _, net::Shutdown, os::unix::net::UnixStream};

use memtrace::symbols::{
    perf_map,
    wire::{MOST_TEXT, Reply, Request, receive},
};

use crate::scratch::Scratch;

/// Among them both ends of all, and neighbours.
const ADDRESSES: [u64; 12] = [
    0,
    1,
    0x10,
    0x1000,
    0x1001,
    0x1fff,
    0x2000,
    0x7f00_0000_0000,
    0x7f00_0000_1000,
    0x7fff_ffff_ffff,
    u64::MAX - 1,
    u64::MAX,
];
/// Replacements for what is no UTF-8 take three bytes each.
const MOST_NAME_BYTES: usize = 3 * MOST_TEXT;

thread_local! {
    static MAP: LazyCell<Scratch> = LazyCell::new(|| Scratch::new(&["perf.map"]));
}

pub fn run(data: &[u8]) {
    match data.split_first() {
        Some((0, map)) => of_map(map),
        Some((1, message)) => of_worker(message),
        _ => {}
    }
}

fn of_map(map: &[u8]) {
    MAP.with(|files| {
        files.fill(map);
        let file = File::open(files.path().join("perf.map")).expect("the file is there");
        let names = perf_map::names(file, &ADDRESSES);
        assert_eq!(names.len(), ADDRESSES.len());
        for name in names.iter().flatten() {
            assert!(!name.is_empty() && name.len() <= MOST_NAME_BYTES);
        }
        // The other addresses do not change what one is called.
        for (address, name) in ADDRESSES.iter().zip(&names) {
            let file = File::open(files.path().join("perf.map")).expect("the file is there");
            assert_eq!(&perf_map::names(file, &[*address])[0], name, "{address:#x}");
        }
    });
}

fn of_worker(message: &[u8]) {
    for of_reply in [true, false] {
        let (mut sender, receiver) = UnixStream::pair().expect("there are descriptors");
        sender.write_all(message).expect("the socket has room");
        sender.shutdown(Shutdown::Write).expect("it is connected");
        // It ends with an error or with what was sent.
        if of_reply {
            while let Ok(Some(_)) = receive::<Reply>(&receiver, None) {}
        } else {
            while let Ok(Some(_)) = receive::<Request>(&receiver, None) {}
        }
    }
}
