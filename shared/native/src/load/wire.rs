//! The CBOR messages that the generator sends and reads (PROTOCOL 1.2 and 2).
//!
//! Written as JavaScript clients write them: a map with a 16-bit header, keys in their order.

use minicbor::data::{Tag, Type};
use minicbor::Decoder;

const MAP_16: u8 = 0xb9;
const TEXT: u8 = 3;
const BYTES: u8 = 2;

pub fn join(peer_id: &str) -> Vec<u8> {
    let mut out = map(4);
    text_entry(&mut out, "type", "join");
    text_entry(&mut out, "senderId", peer_id);
    text(&mut out, "peerMetadata");
    out.push(0xa1);
    text(&mut out, "isEphemeral");
    out.push(0xf5);
    text(&mut out, "supportedProtocolVersions");
    out.push(0x81);
    text(&mut out, "1");
    out
}

/// Everything of a `sync` or `request` before its data.
pub fn sync_head(kind: &str, sender: &str, target: &str, document_id: &str) -> Vec<u8> {
    let mut out = map(5);
    text_entry(&mut out, "type", kind);
    text_entry(&mut out, "senderId", sender);
    text_entry(&mut out, "targetId", target);
    text_entry(&mut out, "documentId", document_id);
    text(&mut out, "data");
    out
}

/// The header of the byte string that follows `sync_head`.
pub fn bytes_header(out: &mut Vec<u8>, length: usize) {
    header(out, BYTES, length);
}

/// What is read of a message; all other keys are skipped.
#[derive(Default)]
pub struct Incoming<'a> {
    pub kind: &'a str,
    pub sender_id: &'a str,
    pub document_id: &'a str,
    pub message: &'a str,
    pub data: &'a [u8],
}

pub fn read(frame: &[u8]) -> Result<Incoming<'_>, String> {
    read_map(frame).map_err(|error| format!("not a message: {error}"))
}

fn read_map(frame: &[u8]) -> Result<Incoming<'_>, minicbor::decode::Error> {
    let mut decoder = Decoder::new(frame);
    let mut incoming = Incoming::default();
    let mut left = decoder.map()?;
    loop {
        match left {
            Some(0) => return Ok(incoming),
            Some(count) => left = Some(count - 1),
            None if decoder.datatype()? == Type::Break => return Ok(incoming),
            None => (),
        }
        match decoder.str()? {
            "type" => incoming.kind = decoder.str()?,
            "senderId" => incoming.sender_id = decoder.str()?,
            "documentId" => incoming.document_id = decoder.str()?,
            "message" => incoming.message = decoder.str()?,
            "data" => {
                if decoder.datatype()? == Type::Tag {
                    let _: Tag = decoder.tag()?;
                }
                incoming.data = decoder.bytes()?;
            }
            _ => decoder.skip()?,
        }
    }
}

fn map(entries: u16) -> Vec<u8> {
    let mut out = vec![MAP_16];
    out.extend(entries.to_be_bytes());
    out
}

fn text_entry(out: &mut Vec<u8>, key: &str, value: &str) {
    text(out, key);
    text(out, value);
}

fn text(out: &mut Vec<u8>, value: &str) {
    header(out, TEXT, value.len());
    out.extend(value.as_bytes());
}

fn header(out: &mut Vec<u8>, major: u8, length: usize) {
    let major = major << 5;
    match length {
        0..=23 => out.push(major | length as u8),
        24..=0xff => out.extend([major | 24, length as u8]),
        0x100..=0xffff => {
            out.push(major | 25);
            out.extend((length as u16).to_be_bytes());
        }
        _ => {
            out.push(major | 26);
            out.extend((length as u32).to_be_bytes());
        }
    }
}
