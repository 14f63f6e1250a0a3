//! A WebSocket client on a non-blocking socket: the upgrade, framing, pings.
//!
//! Own framing, because a generator on one core must take as many frames as a server on another
//! one can send: no allocation per frame, one read and one write for all frames that are there.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use mio::net::TcpStream;

/// The pair of RFC 6455, section 1.3: it needs no SHA-1 to check.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const MOST_HEADER_BYTES: usize = 16 * 1024;
const MOST_MESSAGE_BYTES: u64 = 1 << 30;

/// How every fault begins that may be the doing of a server that has too much to do.
const LOST: &str = "connection lost";

const CONTINUATION: u8 = 0;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

pub struct Socket {
    pub stream: TcpStream,
    upgraded: bool,
    input: Vec<u8>,
    /// Of a message in several frames.
    fragments: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    mask: u32,
}

/// One cut frame: its kind, whether it is the last of its message, and where its payload is.
struct Frame {
    opcode: u8,
    is_final: bool,
    start: usize,
    end: usize,
}

impl Socket {
    pub fn connect(address: SocketAddr, host: &str, path: &str) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        Ok(Self {
            stream: TcpStream::from_std(stream),
            upgraded: false,
            input: Vec::new(),
            fragments: Vec::new(),
            output: request.into_bytes(),
            written: 0,
            mask: 0x9e37_79b9,
        })
    }

    /// Read what is there and hand out every whole message; `on_message` may send.
    ///
    /// Returns the number of bytes read. `scratch` may be dirty.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        mut on_message: impl FnMut(&mut Outbox<'_>, &[u8]) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut total = 0;
        loop {
            let count = match self.stream.read(scratch) {
                Ok(0) => return Err(format!("{LOST}: closed by the server")),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(total),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(format!("{LOST}: {error}")),
            };
            total += count;
            if self.input.is_empty() {
                let used = self.take(&scratch[..count], &mut on_message)?;
                self.input.extend_from_slice(&scratch[used..count]);
            } else {
                let mut input = std::mem::take(&mut self.input);
                input.extend_from_slice(&scratch[..count]);
                let used = self.take(&input, &mut on_message)?;
                input.drain(..used);
                if input.is_empty() {
                    // A long message is a rarity; its buffer would be kept by each client.
                    input = Vec::new();
                }
                self.input = input;
            }
            // Less than asked for: nothing more is there, and another read would only say so.
            // What comes later is a new event.
            if count < scratch.len() {
                return Ok(total);
            }
        }
    }

    /// Queue a message; `flush` sends it.
    pub fn send(&mut self, parts: &[&[u8]]) {
        self.outbox().send(parts);
    }

    /// Send a close frame and what is queued, as far as the system takes it at once.
    pub fn say_goodbye(&mut self) {
        self.outbox().frame(CLOSE, &[&1000u16.to_be_bytes()]);
        // The socket is closed at once, whatever comes of this.
        let _ = self.flush();
    }

    pub fn flush(&mut self) -> Result<(), String> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(format!("{LOST}: {error}")),
            }
        }
        self.output.clear();
        self.output.shrink_to(1 << 16);
        self.written = 0;
        Ok(())
    }

    fn outbox(&mut self) -> Outbox<'_> {
        Outbox {
            output: &mut self.output,
            mask: &mut self.mask,
        }
    }

    /// Take the frames at the beginning of `bytes`; returns how many bytes they had.
    fn take(
        &mut self,
        bytes: &[u8],
        on_message: &mut impl FnMut(&mut Outbox<'_>, &[u8]) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut used = 0;
        if !self.upgraded {
            match upgrade(bytes)? {
                Some(length) => used = length,
                None => return Ok(0),
            }
            self.upgraded = true;
            on_message(&mut self.outbox(), &[])?;
        }
        while let Some(frame) = cut(bytes, used)? {
            let payload = &bytes[frame.start..frame.end];
            used = frame.end;
            match frame.opcode {
                BINARY if frame.is_final => on_message(&mut self.outbox(), payload)?,
                BINARY | CONTINUATION => {
                    self.fragments.extend_from_slice(payload);
                    if frame.is_final {
                        let whole = std::mem::take(&mut self.fragments);
                        on_message(&mut self.outbox(), &whole)?;
                    }
                }
                PING => self.outbox().frame(PONG, &[payload]),
                PONG => (),
                CLOSE => return Err(close_reason(payload)),
                other => return Err(format!("a frame of type {other}")),
            }
        }
        Ok(used)
    }
}

/// Where messages are queued while a socket's input is being read.
pub struct Outbox<'a> {
    output: &'a mut Vec<u8>,
    mask: &'a mut u32,
}

impl Outbox<'_> {
    pub fn send(&mut self, parts: &[&[u8]]) {
        self.frame(BINARY, parts);
    }

    fn frame(&mut self, opcode: u8, parts: &[&[u8]]) {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let out = &mut *self.output;
        out.push(FINAL | opcode);
        match length {
            0..=125 => out.push(0x80 | length as u8),
            126..=0xffff => {
                out.push(0x80 | 126);
                out.extend((length as u16).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend((length as u64).to_be_bytes());
            }
        }
        // xorshift32: servers must have something to unmask.
        *self.mask ^= *self.mask << 13;
        *self.mask ^= *self.mask >> 17;
        *self.mask ^= *self.mask << 5;
        let mask = self.mask.to_be_bytes();
        out.extend(mask);
        let start = out.len();
        for part in parts {
            out.extend_from_slice(part);
        }
        for (byte, key) in out[start..].iter_mut().zip(mask.into_iter().cycle()) {
            *byte ^= key;
        }
    }
}

/// The length of a whole answer to the upgrade request.
fn upgrade(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        if bytes.len() > MOST_HEADER_BYTES {
            return Err("the server's answer has no end".into());
        }
        return Ok(None);
    };
    let answer = String::from_utf8_lossy(&bytes[..end]);
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        return Err(format!("no WebSocket: {status}"));
    }
    if !answer.contains(ACCEPT) {
        return Err("no WebSocket: the answer has a wrong key".into());
    }
    Ok(Some(end + 4))
}

fn cut(bytes: &[u8], at: usize) -> Result<Option<Frame>, String> {
    let rest = &bytes[at..];
    if rest.len() < 2 {
        return Ok(None);
    }
    if rest[0] & 0x70 != 0 || rest[1] & 0x80 != 0 {
        return Err("a frame with reserved bits or a mask".into());
    }
    let (length, header) = match rest[1] {
        126 if rest.len() >= 4 => (u64::from(u16::from_be_bytes([rest[2], rest[3]])), 4),
        127 if rest.len() >= 10 => {
            let mut length = [0; 8];
            length.copy_from_slice(&rest[2..10]);
            (u64::from_be_bytes(length), 10)
        }
        126 | 127 => return Ok(None),
        length => (u64::from(length), 2),
    };
    if length > MOST_MESSAGE_BYTES {
        return Err(format!("a frame of {length} bytes"));
    }
    let start = at + header;
    let end = start + length as usize;
    Ok((end <= bytes.len()).then_some(Frame {
        opcode: rest[0] & 0x0f,
        is_final: rest[0] & FINAL != 0,
        start,
        end,
    }))
}

fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => format!(
            "{LOST}: closed by the server with {} {}",
            u16::from_be_bytes([*high, *low]),
            String::from_utf8_lossy(reason)
        ),
        _ => format!("{LOST}: closed by the server without a code"),
    }
}
