//! Reads the primitives of automerge's formats from untrusted bytes; never panics.

use automerge::ChangeHash;

use crate::error::Refusal;

/// What is left of the input.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn byte(&mut self) -> Result<u8, Refusal> {
        Ok(self.take(1)?[0])
    }

    pub fn take(&mut self, count: u64) -> Result<&'a [u8], Refusal> {
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= self.rest.len())
            .ok_or_else(|| Refusal::malformed("a length exceeds the bytes that are left"))?;
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        Ok(taken)
    }

    /// Unsigned LEB128.
    pub fn unsigned(&mut self) -> Result<u64, Refusal> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Refusal::malformed("a number exceeds 64 bits"))
    }

    /// Signed LEB128.
    pub fn signed(&mut self) -> Result<i64, Refusal> {
        let mut value = 0i64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                if shift < 57 && byte & 0x40 != 0 {
                    value |= -1i64 << (shift + 7);
                }
                return Ok(value);
            }
        }
        Err(Refusal::malformed("a number exceeds 64 bits"))
    }

    pub fn prefixed(&mut self) -> Result<&'a [u8], Refusal> {
        let length = self.unsigned()?;
        self.take(length)
    }

    /// A count of items of at least `smallest` bytes each, so that no list outgrows the input.
    pub fn count(&mut self, smallest: usize, limit: usize) -> Result<usize, Refusal> {
        let count = self.unsigned()?;
        let most = (self.rest.len() / smallest).min(limit);
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= most)
            .ok_or_else(|| Refusal::malformed(format!("a list claims {count} items")))
    }

    pub fn hash(&mut self) -> Result<ChangeHash, Refusal> {
        ChangeHash::try_from(self.take(32)?).map_err(|_| Refusal::malformed("a bad hash"))
    }

    pub fn hashes(&mut self, limit: usize) -> Result<Vec<ChangeHash>, Refusal> {
        let count = self.count(32, limit)?;
        (0..count).map(|_| self.hash()).collect()
    }
}
