//! How a chunk lies in a segment: a header of fixed size, then the encoded request.
//!
//! Owns the layout and its checks. The one byte that changes later, whether the chunk still waits,
//! is not in a checksum: it is written over in place, and no crash can tear a byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const MAGIC: [u8; 4] = *b"MTQ1";
const WAITS: u8 = b'W';
const SETTLED: u8 = b'S';
/// Magic, state and 3 zeros, log records, bytes of the body, its checksum, the header's checksum.
pub(super) const HEADER_BYTES: usize = 24;
const STATE_AT: u64 = 4;
/// Longer than any chunk that is written; a header that says more is damage.
const LARGEST_BODY: u32 = 64 << 20;
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISCSI);

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Location {
    pub(super) segment: u64,
    /// Of the header.
    pub(super) offset: u64,
    body_bytes: u32,
}

impl Location {
    pub(super) fn body_bytes(&self) -> usize {
        self.body_bytes as usize
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }
}

/// Header and body; `None` if the body is too long to be a chunk.
pub(super) fn encode(body: &[u8], records: u32) -> Option<Vec<u8>> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= LARGEST_BODY)?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&[WAITS, 0, 0, 0]);
    bytes.extend_from_slice(&records.to_le_bytes());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&CRC.checksum(body).to_le_bytes());
    bytes.extend_from_slice(&header_checksum(&bytes).to_le_bytes());
    bytes.extend_from_slice(body);
    Some(bytes)
}

pub(super) fn location(segment: u64, offset: u64, body: &[u8]) -> Location {
    Location {
        segment,
        offset,
        // `encode` took it.
        body_bytes: u32::try_from(body.len()).unwrap_or(u32::MAX),
    }
}

/// A chunk as its header tells it.
pub(super) struct Found {
    pub(super) location: Location,
    pub(super) records: u32,
    pub(super) waits: bool,
    body_checksum: u32,
}

/// The header there; `None` if there is none that is whole.
pub(super) fn find(file: &File, segment: u64, offset: u64) -> Option<Found> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, offset).ok()?;
    let [m0, m1, m2, m3, state, _, _, _, fields @ ..] = &header;
    let (fields, _) = fields.as_chunks::<4>();
    let [records, length, body_checksum, checksum] = fields else {
        return None;
    };
    let body_bytes = u32::from_le_bytes(*length);
    if [*m0, *m1, *m2, *m3] != MAGIC
        || u32::from_le_bytes(*checksum) != header_checksum(&header)
        || body_bytes > LARGEST_BODY
    {
        return None;
    }
    Some(Found {
        location: Location {
            segment,
            offset,
            body_bytes,
        },
        records: u32::from_le_bytes(*records),
        waits: *state == WAITS,
        body_checksum: u32::from_le_bytes(*body_checksum),
    })
}

/// Appends the body to `into`; `false`, and nothing appended, if it is not what was written.
pub(super) fn read(file: &File, location: Location, into: &mut Vec<u8>) -> bool {
    let before = into.len();
    let whole = find(file, location.segment, location.offset).is_some_and(|found| {
        into.resize(before + location.body_bytes(), 0);
        let body = into.get_mut(before..).unwrap_or_default();
        found.location == location
            && file
                .read_exact_at(body, location.offset + HEADER_BYTES as u64)
                .is_ok()
            && CRC.checksum(body) == found.body_checksum
    });
    if !whole {
        into.truncate(before);
    }
    whole
}

/// From now on an agent that finds the chunk leaves it out.
pub(super) fn settle(file: &File, location: Location) -> io::Result<()> {
    file.write_all_at(&[SETTLED], location.offset + STATE_AT)
}

/// Of all of the header but the state and itself.
fn header_checksum(header: &[u8]) -> u32 {
    let mut digest = CRC.digest();
    digest.update(header.get(..4).unwrap_or_default());
    digest.update(header.get(8..20).unwrap_or_default());
    digest.finalize()
}
