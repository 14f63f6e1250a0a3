//! One client's side of the sync protocol for one document, without the document.
//!
//! It obeys PROTOCOL 5.3 and 5.4 as far as they reach for a chain of changes, takes apart every
//! chunk it is sent, and holds each change's hash against the changes that were made: what is
//! damaged, made up or left out is found. With one exception: a client that has sent changes and
//! hears of an older state doesn't ask again, as the crate would while messages are under way.

use std::collections::BTreeSet;
use std::io::Read;

use automerge::sync::BloomFilter;
use automerge::ChangeHash;
use flate2::read::DeflateDecoder;
use sha2::{Digest, Sha256};

use super::script::Script;
use crate::message;
use crate::reader::Reader;

const VERSION_1: u8 = 0x42;
const VERSION_2: u8 = 0x43;
/// Length, "takes v2 messages", bit field: takes SYNC_RESET.
const FLAGS: [u8; 3] = [0x02, 0x02, 0x84];
const SYNC_RESET: u8 = 0x01;
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED: u8 = 2;
const MOST_INFLATED: u64 = 1 << 30;
/// So often in a row a server may ask for what it was sent.
const MOST_REPEATS: u32 = 8;

pub struct Session {
    /// It has the first so many changes of the chain.
    pub have: u32,
    /// The server has the first so many, by its own word; None: it has not spoken.
    pub theirs: Option<u32>,
    pub duplicates: u64,
    pending: BTreeSet<u32>,
    shared: u32,
    sent: u32,
    last_sent: Option<u32>,
    in_flight: bool,
    wanted: bool,
    peer_takes_v2: bool,
    repeats: u32,
}

impl Session {
    pub fn new(have: u32) -> Self {
        Self {
            have,
            theirs: None,
            duplicates: 0,
            pending: BTreeSet::new(),
            shared: 0,
            sent: 0,
            last_sent: None,
            in_flight: false,
            wanted: false,
            peer_takes_v2: false,
            repeats: 0,
        }
    }

    /// Take a message in; the error says what is wrong with it.
    pub fn receive(&mut self, script: &Script, bytes: &[u8]) -> Result<(), String> {
        let received = message::read(bytes).map_err(|refusal| refusal.detail)?;
        self.in_flight = false;
        for blob in &received.blobs {
            let mut reader = Reader::new(blob);
            while !reader.is_empty() {
                self.take_chunk(script, &mut reader)?;
            }
        }
        let mut theirs = 0;
        for head in &received.message.heads {
            let place = script
                .place(head)
                .ok_or("the server names a head that nobody has made")?;
            theirs = theirs.max(place + 1);
        }
        self.theirs = Some(theirs);
        if theirs == 0 {
            self.last_sent = None;
            self.sent = 0;
        }
        if theirs <= self.have {
            self.shared = theirs;
        }
        self.wanted = !received.message.need.is_empty();
        if let Some(flags) = received.message.flags {
            self.peer_takes_v2 = true;
            if flags.contains(SYNC_RESET) {
                self.sent = theirs.min(self.have);
            }
        }
        Ok(())
    }

    /// Write what the server is owed into `out`; false if that is nothing.
    pub fn generate(&mut self, script: &Script, out: &mut Vec<u8>) -> Result<bool, String> {
        let theirs = self.theirs.unwrap_or(0);
        let mut from = self.sent.max(theirs).min(self.have);
        if self.wanted {
            self.wanted = false;
            if from == self.have && self.sent > 0 {
                self.repeats += 1;
                from = theirs.min(self.have);
            }
            if self.repeats > MOST_REPEATS {
                return Err("the server asks again and again for what it was sent".into());
            }
        } else {
            self.repeats = 0;
        }
        let to = if self.theirs.is_some() {
            self.have
        } else {
            from
        };
        let need = self.need(script, theirs);
        let is_news = self.last_sent != Some(self.have);
        // Nothing is asked twice while the answer is under way.
        if !is_news && from == to && (need.is_none() || self.in_flight) {
            return Ok(false);
        }
        self.write(script, out, need, from, to)?;
        self.last_sent = Some(self.have);
        self.sent = self.sent.max(to);
        self.in_flight = true;
        Ok(true)
    }

    /// What is missing for the first gap, or for the server's heads.
    fn need(&self, script: &Script, theirs: u32) -> Option<ChangeHash> {
        if let Some(first) = self.pending.first() {
            return Some(script.hashes[*first as usize - 1]);
        }
        (theirs > self.have).then(|| script.hashes[theirs as usize - 1])
    }

    fn write(
        &self,
        script: &Script,
        out: &mut Vec<u8>,
        need: Option<ChangeHash>,
        from: u32,
        to: u32,
    ) -> Result<(), String> {
        let is_v2 = self.peer_takes_v2;
        out.push(if is_v2 { VERSION_2 } else { VERSION_1 });
        write_hashes(out, script.heads(self.have));
        write_hashes(out, need.as_slice());
        if self.pending.is_empty() {
            out.push(1);
            write_hashes(out, script.heads(self.shared));
            let since = &script.hashes[self.shared as usize..self.have as usize];
            if since.is_empty() {
                out.push(0);
            } else {
                write_prefixed(out, &[&BloomFilter::from_hashes(since.iter()).to_bytes()]);
            }
        } else {
            out.push(0);
        }
        if from == to {
            out.push(0);
        } else if !is_v2 {
            return Err("the server takes no v2 messages; it is too old for this".into());
        } else if from < script.history {
            out.push(1);
            write_prefixed(out, &[&script.saved, script.chunks(script.history, to)]);
        } else {
            out.push(1);
            write_prefixed(out, &[script.chunks(from, to)]);
        }
        out.extend(FLAGS);
        Ok(())
    }

    fn take_chunk(&mut self, script: &Script, reader: &mut Reader<'_>) -> Result<(), String> {
        let malformed = |refusal: crate::error::Refusal| refusal.detail;
        let start = reader.rest();
        if reader.take(4).map_err(malformed)? != MAGIC {
            return Err("a chunk without the magic bytes".into());
        }
        let checksum = reader.take(4).map_err(malformed)?;
        let kind = reader.byte().map_err(malformed)?;
        let data = reader.prefixed().map_err(malformed)?;
        let hashed = &start[8..start.len() - reader.rest().len()];
        let digest = match kind {
            COMPRESSED => digest_of_compressed(data)?,
            _ => Sha256::digest(hashed).into(),
        };
        if digest[..4] != *checksum {
            return Err("a chunk whose checksum is wrong".into());
        }
        match kind {
            CHANGE | COMPRESSED => {
                let place = script
                    .place(&ChangeHash(digest))
                    .ok_or("a change that nobody has made")?;
                self.take_change(place);
                Ok(())
            }
            DOCUMENT => self.take_document(script, data),
            other => Err(format!("a chunk of type {other}")),
        }
    }

    fn take_change(&mut self, place: u32) {
        if place < self.have || (place > self.have && !self.pending.insert(place)) {
            self.duplicates += 1;
        } else if place == self.have {
            self.advance(place + 1);
        }
    }

    /// A whole document: all changes below its heads.
    fn take_document(&mut self, script: &Script, data: &[u8]) -> Result<(), String> {
        let malformed = |refusal: crate::error::Refusal| refusal.detail;
        let mut reader = Reader::new(data);
        let actors = reader.count(1, usize::MAX).map_err(malformed)?;
        for _ in 0..actors {
            reader.prefixed().map_err(malformed)?;
        }
        for head in reader.hashes(1 << 16).map_err(malformed)? {
            let place = script
                .place(&head)
                .ok_or("a document with a head that nobody has made")?;
            if place >= self.have {
                self.advance(place + 1);
            } else {
                self.duplicates += 1;
            }
        }
        Ok(())
    }

    fn advance(&mut self, have: u32) {
        self.have = have;
        while let Some(first) = self.pending.first().copied() {
            if first > self.have {
                return;
            }
            self.pending.pop_first();
            self.have = self.have.max(first + 1);
        }
    }
}

fn digest_of_compressed(data: &[u8]) -> Result<[u8; 32], String> {
    let mut whole = vec![CHANGE];
    let mut inflated = Vec::new();
    DeflateDecoder::new(data)
        .take(MOST_INFLATED)
        .read_to_end(&mut inflated)
        .map_err(|error| format!("a compressed change: {error}"))?;
    write_prefixed(&mut whole, &[&inflated]);
    Ok(Sha256::digest(&whole).into())
}

fn write_hashes(out: &mut Vec<u8>, hashes: &[ChangeHash]) {
    write_unsigned(out, hashes.len());
    for hash in hashes {
        out.extend_from_slice(&hash.0);
    }
}

fn write_prefixed(out: &mut Vec<u8>, parts: &[&[u8]]) {
    write_unsigned(out, parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn write_unsigned(out: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
