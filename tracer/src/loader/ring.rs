//! Ring buffers as asynchronous streams of records.

use std::io;

use aya::{
    Ebpf,
    maps::{MapData, MapError, RingBuf},
};
use tokio::io::{Interest, unix::AsyncFd};

/// One ring; records are handed out as bytes and freed after the call.
pub struct Ring {
    ring: AsyncFd<RingBuf<MapData>>,
}

impl Ring {
    pub(super) fn take(ebpf: &mut Ebpf, name: &str) -> Result<Self, MapError> {
        let ring = RingBuf::try_from(super::attach::map(ebpf, name)?)?;
        // SAFETY: the ring owns its descriptor and never changes it.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }
            .map_err(|error| MapError::IoError(error.into()))?;
        Ok(Self { ring })
    }

    /// Waits for records and hands each to `each`. Safe to cancel: nothing is taken before it returns.
    pub async fn drain(&mut self, each: impl FnMut(&[u8])) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        drain(guard.get_inner_mut(), each);
        guard.clear_ready();
        Ok(())
    }

    /// The next record, without waiting.
    pub fn next_now(&mut self) -> Option<Vec<u8>> {
        self.ring.get_mut().next().map(|record| record.to_vec())
    }

    /// Waits until there may be records, and takes none.
    pub async fn ready(&mut self) -> io::Result<()> {
        self.ring.readable_mut().await?.clear_ready();
        Ok(())
    }

    /// What is there now, without waiting.
    pub fn drain_now(&mut self, each: impl FnMut(&[u8])) {
        drain(self.ring.get_mut(), each);
    }
}

fn drain(ring: &mut RingBuf<MapData>, mut each: impl FnMut(&[u8])) {
    while let Some(record) = ring.next() {
        each(&record);
    }
}
