//! Which failures are worth another attempt, and after how long.
//!
//! Owns the classification and the back-off. Pure but for the jitter. Must not sleep.
//! Source: OTLP specification, "Failures" and "Retryable Response Codes".

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tonic::Code;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(5);
const MAX_RETRIES: u32 = 5;
const FIRST_PERSISTENT_DELAY: Duration = Duration::from_secs(1);
const MAX_PERSISTENT_DELAY: Duration = Duration::from_secs(30);
/// A backend that asks for more is not believed.
const MAX_ASKED: Duration = Duration::from_secs(600);

/// What a failure allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::export::otlp) enum Verdict {
    /// The same request would fail again.
    GiveUp,
    Retry,
    /// The backend asked for at least this pause.
    RetryAfter(Duration),
}

impl Verdict {
    /// The pause that the backend asked for, as far as it is believed.
    pub(super) fn asked(self) -> Option<Duration> {
        match self {
            Verdict::GiveUp | Verdict::Retry => None,
            Verdict::RetryAfter(pause) => Some(pause.min(MAX_ASKED)),
        }
    }
}

/// Judges a gRPC status; `retry_after` is `RetryInfo` of its details.
pub(super) fn grpc(code: Code, retry_after: Option<Duration>) -> Verdict {
    match code {
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss => retry_after.map_or(Verdict::Retry, Verdict::RetryAfter),
        // Without RetryInfo the backend says that waiting does not help.
        Code::ResourceExhausted => retry_after.map_or(Verdict::GiveUp, Verdict::RetryAfter),
        _ => Verdict::GiveUp,
    }
}

/// Judges an HTTP status; `retry_after` is its `Retry-After` header in seconds.
pub(super) fn http(status: u16, retry_after: Option<&str>) -> Verdict {
    if !matches!(status, 429 | 502 | 503 | 504) {
        return Verdict::GiveUp;
    }
    // A date instead of seconds falls back to our own pause: the clocks may differ.
    retry_after
        .and_then(|text| text.trim().parse().ok())
        .map_or(Verdict::Retry, |seconds| {
            Verdict::RetryAfter(Duration::from_secs(seconds))
        })
}

/// Exponential back-off with jitter.
pub(in crate::export::otlp) struct Backoff {
    /// `None`: without an end.
    left: Option<u32>,
    delay: Duration,
    max: Duration,
}

impl Backoff {
    /// Bounded in number: for attempts at one request.
    pub(super) fn new() -> Self {
        Backoff {
            left: Some(MAX_RETRIES),
            delay: FIRST_DELAY,
            max: MAX_DELAY,
        }
    }

    /// For what is kept until the backend is back.
    pub(in crate::export::otlp) fn persistent() -> Self {
        Backoff {
            left: None,
            delay: FIRST_PERSISTENT_DELAY,
            max: MAX_PERSISTENT_DELAY,
        }
    }

    /// The pause before the next attempt; `None` when there is to be none.
    pub(in crate::export::otlp) fn next(&mut self, verdict: Verdict) -> Option<Duration> {
        if verdict == Verdict::GiveUp {
            return None;
        }
        let least = verdict.asked().unwrap_or_default();
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        let pause = jittered(self.delay);
        self.delay = (self.delay * 2).min(self.max);
        // Jitter on top of the asked pause too, or a fleet returns in one wave.
        Some(if least.is_zero() {
            pause
        } else {
            least.saturating_add(pause / 4)
        })
    }
}

/// Between half and all of `delay`.
fn jittered(delay: Duration) -> Duration {
    // A fresh RandomState hashes to a random number; no need for a crate of its own.
    let random = RandomState::new().hash_one(0u8) % 1024;
    let part = u32::try_from(random).unwrap_or(0);
    delay / 2 + delay / 2 * part / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_specification_names_is_retried() {
        let pause = Duration::from_secs(3);
        assert_eq!(grpc(Code::Unavailable, None), Verdict::Retry);
        assert_eq!(
            grpc(Code::Unavailable, Some(pause)),
            Verdict::RetryAfter(pause)
        );
        assert_eq!(grpc(Code::ResourceExhausted, None), Verdict::GiveUp);
        assert_eq!(
            grpc(Code::ResourceExhausted, Some(pause)),
            Verdict::RetryAfter(pause)
        );
        for code in [
            Code::InvalidArgument,
            Code::Unauthenticated,
            Code::Unimplemented,
            Code::Internal,
        ] {
            assert_eq!(grpc(code, Some(pause)), Verdict::GiveUp);
        }
        for status in [429, 502, 503, 504] {
            assert_eq!(http(status, None), Verdict::Retry);
        }
        assert_eq!(http(503, Some(" 3 ")), Verdict::RetryAfter(pause));
        assert_eq!(
            http(503, Some("Wed, 21 Oct 2026 07:28:00 GMT")),
            Verdict::Retry
        );
        for status in [400, 401, 404, 413, 500, 501] {
            assert_eq!(http(status, Some("3")), Verdict::GiveUp);
        }
    }

    #[test]
    fn pauses_grow_are_bounded_and_end() {
        let mut backoff = Backoff::new();
        let mut ceiling = FIRST_DELAY;
        for _ in 0..MAX_RETRIES {
            let pause = backoff.next(Verdict::Retry).expect("a retry");
            assert!(
                pause >= ceiling / 2 && pause <= ceiling,
                "{pause:?} of {ceiling:?}"
            );
            ceiling = (ceiling * 2).min(MAX_DELAY);
        }
        assert_eq!(backoff.next(Verdict::Retry), None);
        let asked = Duration::from_secs(4);
        assert!(
            Backoff::new()
                .next(Verdict::RetryAfter(asked))
                .expect("a retry")
                >= asked
        );
        assert_eq!(Backoff::new().next(Verdict::GiveUp), None);
    }

    #[test]
    fn a_persistent_back_off_has_no_end_and_no_pause_is_absurd() {
        let mut backoff = Backoff::persistent();
        for _ in 0..100 {
            let pause = backoff.next(Verdict::Retry).expect("a retry");
            assert!(pause <= MAX_PERSISTENT_DELAY, "{pause:?}");
        }
        let asked = Verdict::RetryAfter(Duration::from_secs(u64::MAX));
        let pause = backoff.next(asked).expect("a retry");
        assert!(pause <= MAX_ASKED + MAX_PERSISTENT_DELAY, "{pause:?}");
        assert_eq!(backoff.next(Verdict::GiveUp), None);
    }
}
