//! Turns among those who are answered at length, and the bodies that are written in a turn.
//!
//! Owns how many answers are held in memory at once, and who makes way: a reader that takes nothing of its
//! answer loses it when another waits, so nobody waits for who is stuck. Knows nothing of what is written.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::Notify;

/// A reader that took nothing for so long makes way for who waits.
const STUCK: Duration = Duration::from_millis(500);
/// Between two looks whether one is stuck.
const LOOK: Duration = Duration::from_millis(50);

/// Written at once: a reader is stuck when it takes none.
pub const PIECE_BYTES: usize = 64 << 10;

/// An answer that had to make way: its connection ends before the answer does.
#[derive(Debug, thiserror::Error)]
#[error("nothing was read of the answer while others waited")]
pub struct MadeWay;

type Pieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// What is still to be written in one turn.
#[derive(Default)]
struct Rest {
    pieces: Option<Pieces>,
    /// Its reader was given a piece then, and asked for no other; `None`: it is not the reader who is waited for.
    given: Option<Instant>,
    made_way: bool,
}

type Shared = Arc<Mutex<Rest>>;

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic left behind is dropped with its connection.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As many as there may be at once.
pub struct Turns {
    most: usize,
    taken: Mutex<Taken>,
    given_back: Notify,
}

#[derive(Default)]
struct Taken {
    last: u64,
    by_age: BTreeMap<u64, Shared>,
}

impl Turns {
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            taken: Mutex::default(),
            given_back: Notify::new(),
        })
    }

    /// The next turn; `None` if none comes within `patience`.
    pub async fn take(turns: &Arc<Self>, patience: Duration) -> Option<Turn> {
        let free = async {
            loop {
                let given_back = turns.given_back.notified();
                if let Some(turn) = turns.try_take() {
                    return turn;
                }
                tokio::select! {
                    () = given_back => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        };
        let (age, rest) = tokio::time::timeout(patience, free).await.ok()?;
        let turns = Arc::clone(turns);
        Some(Turn { turns, age, rest })
    }

    fn try_take(&self) -> Option<(u64, Shared)> {
        let mut taken = locked(&self.taken);
        if taken.by_age.len() >= self.most {
            let age = taken.longest_stuck()?;
            let rest = taken.by_age.remove(&age)?;
            let mut rest = locked(&rest);
            rest.made_way = true;
            rest.pieces = None;
        }
        taken.last += 1;
        let (age, rest) = (taken.last, Shared::default());
        taken.by_age.insert(age, Arc::clone(&rest));
        Some((age, rest))
    }
}

impl Taken {
    /// The one whose reader took nothing for longest, if that is long.
    fn longest_stuck(&self) -> Option<u64> {
        let given = |(age, rest): (&u64, &Shared)| Some((locked(rest).given?, *age));
        let (since, age) = self.by_age.iter().filter_map(given).min()?;
        (since.elapsed() >= STUCK).then_some(age)
    }
}

/// Copies: the piece that a stuck reader leaves in its connection must not hold the whole answer.
pub fn pieces(mut bytes: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
        (!piece.is_empty()).then(|| Bytes::copy_from_slice(&piece))
    })
}

/// A turn; dropping it gives it back.
pub struct Turn {
    turns: Arc<Turns>,
    age: u64,
    rest: Shared,
}

impl Turn {
    /// A body that is written as it is read. The turn ends with it.
    pub fn body(self, pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
        locked(&self.rest).pieces = Some(Box::new(pieces));
        Body::from_stream(stream::iter(Written {
            turn: self,
            has_ended: false,
        }))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        locked(&self.turns.taken).by_age.remove(&self.age);
        self.turns.given_back.notify_one();
    }
}

struct Written {
    turn: Turn,
    has_ended: bool,
}

impl Iterator for Written {
    type Item = Result<Bytes, MadeWay>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let mut rest = locked(&self.turn.rest);
        rest.given = None;
        let piece = match rest.made_way {
            true => Some(Err(MadeWay)),
            false => rest.pieces.as_mut().and_then(Iterator::next).map(Ok),
        };
        match &piece {
            Some(Ok(_)) => rest.given = Some(Instant::now()),
            Some(Err(_)) | None => self.has_ended = true,
        }
        piece
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    const AT_ONCE: Duration = Duration::ZERO;

    fn some(count: usize) -> impl Iterator<Item = Bytes> + Send + 'static {
        std::iter::repeat_n(Bytes::from_static(b"piece"), count)
    }

    #[tokio::test]
    async fn a_reader_that_is_stuck_makes_way_and_is_not_told_a_part_as_the_whole() {
        let turns = Turns::new(1);
        let mut stuck = Turns::take(&turns, SOON).await.unwrap().body(some(3));
        assert!(stuck.frame().await.unwrap().is_ok());
        let next = Turns::take(&turns, SOON).await.unwrap();
        assert!(stuck.frame().await.unwrap().is_err());
        // Its end gives nothing back: the turn is another's.
        drop(stuck);
        assert!(Turns::take(&turns, AT_ONCE).await.is_none());
        drop(next);
        assert!(Turns::take(&turns, AT_ONCE).await.is_some());
    }

    #[tokio::test]
    async fn what_is_not_yet_written_or_is_being_read_keeps_its_turn() {
        let turns = Turns::new(2);
        let _asking = Turns::take(&turns, SOON).await.unwrap();
        let mut read = Turns::take(&turns, SOON).await.unwrap().body(some(100));
        assert!(read.frame().await.unwrap().is_ok());
        // None of them has been waited for long.
        assert!(Turns::take(&turns, AT_ONCE).await.is_none());
        let all = read.collect().await.unwrap().to_bytes();
        assert_eq!(all.len(), 99 * b"piece".len());
        // The whole answer ended its turn. Those who still ask the agent wait for no reader.
        let _also_asking = Turns::take(&turns, AT_ONCE).await.unwrap();
        tokio::time::sleep(STUCK).await;
        assert!(Turns::take(&turns, LOOK).await.is_none());
    }
}
