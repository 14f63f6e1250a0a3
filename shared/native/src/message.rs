//! Reads sync messages from untrusted bytes into the crate's `Message`.
//!
//! Not `Message::decode`: it panics on a Bloom filter with 0 bits per entry and trusts counts.
//! The layout is in PROTOCOL 5.1. Changes are handed out apart, unparsed.

use automerge::sync::{BloomFilter, ChunkList, Have, Message, MessageFlags, MessageVersion};
use automerge::ChangeHash;

use crate::error::{reason, Refusal};
use crate::reader::Reader;

/// Heads, needed hashes or last_sync hashes in one message; honest ones have a few.
const MOST_HASHES: usize = 1 << 16;
/// Bloom filters in one message; honest ones have one.
const MOST_HAVES: usize = 8;
/// Change blobs in one message; a v1 message has one per change.
const MOST_BLOBS: usize = 1 << 20;
/// The crate uses 10 bits per entry and 7 probes; other values within reason are legal.
const MOST_BITS_PER_ENTRY: u64 = 64;
const MOST_PROBES: u64 = 64;
/// The crate counts bits in a u32, and adds two such numbers.
const MOST_BLOOM_BYTES: usize = 1 << 27;

const VERSION_1: u8 = 0x42;
const VERSION_2: u8 = 0x43;
const BITFIELD_MARKER: u8 = 0x80;

/// A sync message whose parts are within bounds.
pub struct Received<'a> {
    /// Without its changes.
    pub message: Message,
    /// Each holds one or more chunks, unchecked.
    pub blobs: Vec<&'a [u8]>,
}

/// Take a sync message apart; every count is held against the bytes that are there.
pub fn read(bytes: &[u8]) -> Result<Received<'_>, Refusal> {
    let mut reader = Reader::new(bytes);
    let version = match reader.byte()? {
        VERSION_1 => MessageVersion::V1,
        VERSION_2 => MessageVersion::V2,
        other => return Err(Refusal::malformed(format!("message type {other:#04x}"))),
    };
    let heads = distinct(reader.hashes(MOST_HASHES)?);
    let need = distinct(reader.hashes(MOST_HASHES)?);
    let have_count = reader.count(2, MOST_HAVES)?;
    let have = (0..have_count)
        .map(|_| read_have(&mut reader))
        .collect::<Result<_, _>>()?;
    let blob_count = reader.count(1, MOST_BLOBS)?;
    let blobs = (0..blob_count)
        .map(|_| reader.prefixed())
        .collect::<Result<_, _>>()?;
    let flags = if reader.is_empty() {
        None
    } else {
        Some(read_flags(reader.prefixed()?))
    };
    Ok(Received {
        message: Message {
            heads,
            need,
            have,
            changes: ChunkList::empty(),
            flags,
            version,
        },
        blobs,
    })
}

/// Sorted and without duplicates: the crate compares heads as lists, and would send a change as
/// often as it is named in `need`.
fn distinct(mut hashes: Vec<ChangeHash>) -> Vec<ChangeHash> {
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}

fn read_have(reader: &mut Reader<'_>) -> Result<Have, Refusal> {
    let last_sync = distinct(reader.hashes(MOST_HASHES)?);
    let bytes = reader.prefixed()?;
    check_bloom(bytes)?;
    let bloom = BloomFilter::try_from(bytes)
        .map_err(|error| Refusal::new(reason::BLOOM, error.to_string()))?;
    Ok(Have { last_sync, bloom })
}

fn check_bloom(bytes: &[u8]) -> Result<(), Refusal> {
    if bytes.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::new(bytes);
    let entries = reader.unsigned()?;
    let bits_per_entry = reader.unsigned()?;
    let probes = reader.unsigned()?;
    let length = reader.rest().len();
    let honest = entries <= u64::from(u32::MAX)
        && (1..=MOST_BITS_PER_ENTRY).contains(&bits_per_entry)
        && (1..=MOST_PROBES).contains(&probes)
        && length <= MOST_BLOOM_BYTES
        && (entries * bits_per_entry).div_ceil(8) == length as u64;
    if honest {
        return Ok(());
    }
    let shape =
        format!("{entries} entries of {bits_per_entry} bits, {probes} probes, {length} bytes");
    Err(Refusal::new(reason::BLOOM, shape))
}

fn read_flags(bytes: &[u8]) -> MessageFlags {
    let mut flags = MessageFlags::new();
    for byte in bytes.iter().filter(|byte| **byte & BITFIELD_MARKER != 0) {
        flags.set(byte & !BITFIELD_MARKER);
    }
    flags
}
