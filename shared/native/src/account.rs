//! What a document's changes have paid for, and how many rows new ones may have.
//!
//! A row is one operation, or one of its predecessors. Bytes pay for rows, since every character
//! takes a byte; what needs no bytes (its deletion, a list of nulls) is paid for by what was
//! applied before. Numbers that a client just names, such as operation ids, pay for nothing.

use std::ops::AddAssign;

use crate::columns::{Budget, ROWS_PER_BYTE};

/// Everything compressed in one message or blob inflates to at most this much: well above the
/// 100 MiB that a frame may have, since documents compress, and small enough for a worker.
const MOST_INFLATED_BYTES: u64 = 256 << 20;
/// The same for all blobs of a stored document, which grew from many messages.
const MOST_STORED_BYTES: u64 = 4 << 30;

/// Rows of one message that need not be paid for, as runs of nulls; the crate takes some 0.5 s
/// for them in a hostile change.
const FREE_ROWS: u64 = 1 << 18;
/// The same for all messages of a document together.
const FREE_DOCUMENT_ROWS: u64 = 1 << 20;
/// Rows of one message, however many bytes pay for them: compressed bytes are cheap.
const MOST_MESSAGE_ROWS: u64 = 1 << 24;
/// Rows of a document.
const MOST_ROWS: u64 = 1 << 26;
/// Rows of all blobs of a stored document. Not held against its bytes: they were when it came,
/// and a snapshot has fewer. Room for what was accepted and three copies of it in other files.
const MOST_STORED_ROWS: u64 = 4 * MOST_ROWS;

/// What one change cost and paid.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub rows: u64,
    /// Uncompressed bytes that exist: not those that the crate would write the change with.
    pub bytes: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.rows = self.rows.saturating_add(other.rows);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

pub struct Account {
    rows: u64,
    credit: u64,
}

impl Default for Account {
    fn default() -> Self {
        Self {
            rows: 0,
            credit: FREE_DOCUMENT_ROWS,
        }
    }
}

impl Account {
    /// Budget for one message or blob; its own bytes come on top.
    pub fn budget(&self) -> Budget {
        let earned = self.credit.saturating_sub(FREE_DOCUMENT_ROWS);
        Budget::new(
            MOST_INFLATED_BYTES,
            self.credit.min(FREE_ROWS + earned),
            MOST_MESSAGE_ROWS.min(MOST_ROWS.saturating_sub(self.rows)),
        )
    }

    /// Count changes that were applied.
    pub fn book(&mut self, cost: Cost) {
        let earned = ROWS_PER_BYTE.saturating_mul(cost.bytes);
        self.rows = self.rows.saturating_add(cost.rows);
        self.credit = self
            .credit
            .saturating_add(earned)
            .saturating_sub(cost.rows)
            .min(MOST_ROWS);
    }

    /// After loading: a snapshot takes fewer bytes than its changes did, so an honest document
    /// may seem to owe something.
    pub fn forgive(&mut self) {
        self.credit = self.credit.max(FREE_ROWS);
    }
}

/// Budget for all blobs of a stored document.
pub fn stored_budget() -> Budget {
    Budget::new(MOST_STORED_BYTES, MOST_STORED_ROWS, MOST_STORED_ROWS)
}
