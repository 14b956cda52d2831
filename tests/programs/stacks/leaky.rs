//! As leaky.c, in Rust.

use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

const TICKS: usize = 400;
const REST_TICKS: usize = 1000;
const WARM_TICKS: usize = 60;
const LEAKED: usize = 120_000;
const CACHED: usize = 100_000;
const CACHED_A_TICK: usize = 10;
const REQUEST: usize = 2 << 20;

mod ledger {
    pub struct Ledger<T>(pub Vec<Vec<T>>);

    impl<T: Clone> Ledger<T> {
        #[inline(never)]
        pub fn leak(&mut self, value: T, count: usize) {
            self.0.push(vec![value; count]);
        }
    }
}

#[inline(never)]
fn warm_cache(cache: &mut Vec<Vec<u8>>) {
    for _ in 0..CACHED_A_TICK {
        cache.push(vec![1; CACHED]);
    }
}

#[inline(never)]
fn serve_request() {
    drop(black_box(vec![1u8; black_box(REQUEST)]));
}

unsafe extern "C" {
    fn mallopt(parameter: i32, value: i32) -> i32;
}
const M_MMAP_THRESHOLD: i32 = -3;

fn main() {
    // SAFETY: a number.
    unsafe { mallopt(M_MMAP_THRESHOLD, 128 << 10) };
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    let mut ledger = ledger::Ledger(Vec::new());
    let mut cache = Vec::new();
    for tick in 0..TICKS + REST_TICKS {
        serve_request();
        if tick < WARM_TICKS {
            warm_cache(&mut cache);
        }
        if tick < TICKS {
            ledger.leak(black_box(7u32), LEAKED / 4);
        }
        if tick == TICKS {
            let cached = WARM_TICKS * CACHED_A_TICK * CACHED;
            println!(
                r#"{{"leaked": {}, "cached": {cached}, "touched": {}}}"#,
                TICKS * LEAKED,
                TICKS * REQUEST
            );
            std::io::stdout().flush().unwrap();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    black_box((&ledger.0, &cache));
}
