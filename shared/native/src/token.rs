//! Resume tokens: what a new owner of a document must know to continue with a peer (DESIGN 4).
//!
//! Opaque to whoever keeps them: version, flags, and the heads known to be shared. A token made
//! for a message that may not have reached the peer must not take the place of an older one.

use crate::error::Refusal;
use crate::exchange::{Capabilities, Exchange};
use crate::graph::Heads;
use crate::reader::Reader;

const VERSION: u8 = 1;

/// A gateway keeps one token for each document of each connection, so a document with any number
/// of heads must not make it large. Some of the shared heads are shared as well: what is left out
/// is found again by the handshake.
const MOST_HEADS: usize = 64;

const TAKES_V2: u8 = 1;
const TAKES_RESET: u8 = 2;
const PEER_READ_ONLY: u8 = 4;
const RESET_PENDING: u8 = 8;
const WAS_READ_ONLY: u8 = 16;

pub fn encode(state: &Exchange) -> Vec<u8> {
    let flags = [
        (state.capabilities.is_some(), TAKES_V2),
        (
            state.capabilities.is_some_and(|they| they.sync_reset),
            TAKES_RESET,
        ),
        (state.peer_read_only, PEER_READ_ONLY),
        (state.needs_reset, RESET_PENDING),
        (state.read_only, WAS_READ_ONLY),
    ];
    let flags = flags.iter().filter(|(is_set, _)| *is_set);
    let mut out = vec![VERSION, flags.fold(0, |all, (_, flag)| all | flag)];
    for head in state.shared_heads.iter().take(MOST_HEADS) {
        out.extend(head.as_ref());
    }
    out
}

/// The state in which a new owner begins; `read_only` is our role for the peer now.
pub fn decode(token: &[u8], read_only: bool) -> Result<Exchange, Refusal> {
    let mut reader = Reader::new(token);
    if reader.byte()? != VERSION {
        return Err(Refusal::malformed("a resume token of another version"));
    }
    let flags = reader.byte()?;
    let mut heads = Vec::new();
    while !reader.is_empty() && heads.len() < MOST_HEADS {
        heads.push(reader.hash()?);
    }
    let is = |flag: u8| flags & flag != 0;
    let may_write_again = is(WAS_READ_ONLY) && !read_only;
    let mut state = Exchange::new(read_only);
    state.shared_heads = Heads::from(heads);
    state.capabilities = is(TAKES_V2).then_some(Capabilities {
        sync_reset: is(TAKES_RESET),
    });
    state.peer_read_only = is(PEER_READ_ONLY);
    state.needs_reset = is(RESET_PENDING) || may_write_again;
    Ok(state)
}
