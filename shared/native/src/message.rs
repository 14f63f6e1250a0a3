//! Sync messages: read from untrusted bytes into the crate's `Message`, and written.
//!
//! Not `Message::decode`: it panics on a Bloom filter with 0 bits per entry and trusts counts.
//! Not `Message::encode`: it wants the changes copied before it copies them. The layout is in
//! PROTOCOL 5.1. Changes are handed out apart, unparsed.

use automerge::sync::{BloomFilter, ChunkList, Have, Message, MessageFlags, MessageVersion};
use automerge::ChangeHash;

use crate::chunk::leb128;
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
/// Enough for six million changes; a peer's filter is kept until it was answered.
const MOST_BLOOM_BYTES: usize = 1 << 23;

const VERSION_1: u8 = 0x42;
const VERSION_2: u8 = 0x43;
const BITFIELD_MARKER: u8 = 0x80;
/// The one flag of old cores: that they take the second version.
const TAKES_V2: u8 = 0x02;

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

/// A message of ours.
pub struct Outgoing<'a> {
    /// The changes as one blob, not each for itself.
    pub is_v2: bool,
    pub heads: &'a [ChangeHash],
    pub need: &'a [ChangeHash],
    pub have: Option<&'a Have>,
    /// The changes' bytes: chunks, or a saved document and chunks.
    pub parts: &'a [&'a [u8]],
    pub flags: u8,
}

pub fn encode(message: &Outgoing<'_>) -> Vec<u8> {
    let body: usize = message.parts.iter().map(|part| part.len() + 10).sum();
    let hashes = message.heads.len() + message.need.len();
    let mut out = Vec::with_capacity(body + 32 * hashes + 128);
    out.push(if message.is_v2 { VERSION_2 } else { VERSION_1 });
    put_hashes(&mut out, message.heads);
    put_hashes(&mut out, message.need);
    out.extend(leb128(message.have.iter().len()));
    if let Some(have) = message.have {
        put_hashes(&mut out, &have.last_sync);
        let bloom = have.bloom.to_bytes();
        out.extend(leb128(bloom.len()));
        out.extend(bloom);
    }
    if message.is_v2 {
        out.extend(leb128(usize::from(!message.parts.is_empty())));
        if !message.parts.is_empty() {
            out.extend(leb128(message.parts.iter().map(|part| part.len()).sum()));
        }
        message
            .parts
            .iter()
            .for_each(|part| out.extend_from_slice(part));
    } else {
        out.extend(leb128(message.parts.len()));
        for part in message.parts {
            out.extend(leb128(part.len()));
            out.extend_from_slice(part);
        }
    }
    out.extend([2, TAKES_V2, BITFIELD_MARKER | message.flags]);
    out
}

fn put_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    out.extend(leb128(hashes.len()));
    hashes.iter().for_each(|hash| out.extend(hash.as_ref()));
}
