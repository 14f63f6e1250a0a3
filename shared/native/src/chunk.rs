//! Cuts stored or received bytes into chunks and checks each before the crate sees it.
//!
//! Checked here: magic, type, length, checksum, inflated size, claimed rows, and what the
//! crate's `apply_changes` would panic on without looking at other changes. What depends on
//! other changes is checked in `graph`.

use std::collections::HashSet;

use automerge::{Automerge, Change, ChangeHash};
use sha2::{Digest, Sha256};

use crate::account::Cost;
use crate::columns::{spend_columns, Budget, Column, Layout};
use crate::error::{guarded_check, reason, Refusal};
use crate::reader::Reader;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;
const COMPRESSED: u8 = 2;

/// Operation ids are u32 in the crate, and it panics when they overflow (ENGINE T11).
pub const MOST_OP_ID: u64 = 1 << 31;
/// Operations of one change that comes by itself: looking at each takes some 100 bytes.
const MOST_CHANGE_OPERATIONS: usize = 1 << 21;
/// The crate keeps sequence numbers as u32.
const MOST_SEQUENCE: u64 = u32::MAX as u64;

/// Specifications of the columns of a change that name actors.
mod spec {
    pub const OBJECT_ACTOR: u32 = 0x01;
    pub const KEY_ACTOR: u32 = 0x11;
    pub const PREDECESSOR_ACTOR: u32 = 0x71;
}

/// One chunk, cut but not looked into.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    kind: u8,
    checksum: [u8; 4],
    data: &'a [u8],
    /// With its header, as it came.
    pub whole: &'a [u8],
}

/// Cut the first chunk off; after an error `seek` may find the next one.
pub fn cut<'a>(reader: &mut Reader<'a>) -> Result<Chunk<'a>, Refusal> {
    let start = reader.rest();
    if reader.take(4)? != MAGIC {
        return Err(Refusal::malformed("a chunk without the magic bytes"));
    }
    let mut checksum = [0; 4];
    checksum.copy_from_slice(reader.take(4)?);
    let kind = reader.byte()?;
    let data = reader.prefixed()?;
    let whole = &start[..start.len() - reader.rest().len()];
    Ok(Chunk {
        kind,
        checksum,
        data,
        whole,
    })
}

/// Whether bytes that were cut off as a chunk are none, or not all of one.
pub fn is_no_chunk(refusal: &Refusal) -> bool {
    refusal.reason == reason::CHECKSUM || refusal.reason == reason::CHUNK_TYPE
}

impl Chunk<'_> {
    /// Whether checking it costs far more than reading its bytes: it must be inflated or opened.
    pub fn is_costly(&self) -> bool {
        self.kind != CHANGE
    }
}

/// What is left from the next bytes on that look like the beginning of a chunk.
pub fn seek(bytes: &[u8]) -> &[u8] {
    let found = bytes.windows(MAGIC.len()).position(|four| four == MAGIC);
    &bytes[found.unwrap_or(bytes.len())..]
}

/// A change that passed the checks that need no other change.
#[derive(Clone, Debug)]
pub struct CheckedChange {
    pub change: Change,
    /// It came in a saved document that could be opened: its operations refer rightly.
    pub is_proved: bool,
    pub cost: Cost,
}

/// The content of one chunk.
pub enum Checked {
    Change(Box<CheckedChange>),
    /// The changes of a saved document, dependencies first.
    Document(Vec<CheckedChange>),
    /// A saved document of which every head is known already.
    KnownDocument,
}

/// Check one chunk and take its changes out; `known` tells which hashes need no second look.
pub fn check(
    chunk: &Chunk<'_>,
    budget: &mut Budget,
    known: impl Fn(&ChangeHash) -> bool,
) -> Result<Checked, Refusal> {
    budget.pay_rows(chunk.data.len());
    match chunk.kind {
        CHANGE => {
            let change = check_change(chunk, chunk.whole, chunk.data, budget)?;
            Ok(Checked::Change(Box::new(change)))
        }
        COMPRESSED => {
            let data = budget.inflate(chunk.data)?;
            budget.pay_rows(data.len());
            let whole = change_chunk(chunk.checksum, &data);
            let change = check_change(chunk, &whole, &data, budget)?;
            Ok(Checked::Change(Box::new(change)))
        }
        DOCUMENT => {
            check_checksum(chunk, DOCUMENT, chunk.data)?;
            let (heads, mut cost) = check_document(chunk.data, budget)?;
            if heads.iter().all(known) {
                return Ok(Checked::KnownDocument);
            }
            cost.bytes += chunk.data.len() as u64;
            let changes = guarded_check(|| {
                let document = Automerge::load(chunk.whole)
                    .map_err(|error| Refusal::malformed(error.to_string()))?;
                Ok(document.get_changes(&[]))
            })?;
            let mut changes = changes
                .into_iter()
                .map(inspect_change)
                .collect::<Result<Vec<_>, _>>()?;
            changes
                .iter_mut()
                .for_each(|checked| checked.is_proved = true);
            share_payment(&mut changes, cost.bytes);
            Ok(Checked::Document(changes))
        }
        other => Err(Refusal::new(
            reason::CHUNK_TYPE,
            format!("chunk type {other}"),
        )),
    }
}

fn check_checksum(chunk: &Chunk<'_>, kind: u8, data: &[u8]) -> Result<(), Refusal> {
    let mut hasher = Sha256::new();
    hasher.update([kind]);
    hasher.update(leb128(data.len()));
    hasher.update(data);
    if hasher.finalize()[..4] == chunk.checksum {
        Ok(())
    } else {
        Err(Refusal::new(
            reason::CHECKSUM,
            "a chunk's checksum does not match its bytes",
        ))
    }
}

fn change_chunk(checksum: [u8; 4], data: &[u8]) -> Vec<u8> {
    let mut whole = Vec::with_capacity(data.len() + 19);
    whole.extend(MAGIC);
    whole.extend(checksum);
    whole.push(CHANGE);
    whole.extend(leb128(data.len()));
    whole.extend(data);
    whole
}

pub fn leb128(value: usize) -> Vec<u8> {
    let mut value = value;
    let mut bytes = Vec::with_capacity(5);
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// The crate computes the hash anyhow: only of what doesn't parse the checksum is made here, since
/// then it is torn rather than malformed.
fn check_change(
    chunk: &Chunk<'_>,
    whole: &[u8],
    data: &[u8],
    budget: &mut Budget,
) -> Result<CheckedChange, Refusal> {
    let parsed = parse_change(whole, data, budget);
    let is_whole = |parsed: &CheckedChange| parsed.change.hash().0[..4] == chunk.checksum;
    if !parsed.as_ref().is_ok_and(is_whole) {
        check_checksum(chunk, CHANGE, data)?;
    }
    parsed
}

fn parse_change(whole: &[u8], data: &[u8], budget: &mut Budget) -> Result<CheckedChange, Refusal> {
    let columns = change_columns(data)?;
    if columns.iter().any(Column::is_compressed) {
        return Err(Refusal::malformed("a change with compressed columns"));
    }
    let cost = spend_columns(&columns, budget)?;
    let change = guarded_check(|| {
        Change::try_from(whole).map_err(|error| Refusal::malformed(error.to_string()))
    })?;
    if change.len() > MOST_CHANGE_OPERATIONS {
        let detail = format!("a change of {} operations", change.len());
        return Err(Refusal::new(reason::TOO_LARGE, detail));
    }
    let mut checked = inspect_columns(change, &columns)?;
    checked.cost.rows = cost.rows;
    Ok(checked)
}

/// A saved document as we would save it, from its changes.
///
/// The crate doesn't look at the order of the operations in one, and no hash depends on it: a
/// stranger's could show another text under the same heads.
pub fn saved_anew(changes: &[CheckedChange], hashes: &[ChangeHash]) -> Result<Vec<u8>, Refusal> {
    let hashes: HashSet<&ChangeHash> = hashes.iter().collect();
    let of_it = changes.iter().map(|checked| &checked.change);
    let of_it = of_it.filter(|change| hashes.contains(&change.hash()));
    let of_it: Vec<Change> = of_it.cloned().collect();
    guarded_check(|| {
        let mut document = Automerge::new();
        document
            .apply_changes(of_it)
            .map_err(|error| Refusal::malformed(error.to_string()))?;
        let saved = document.save();
        let again =
            Automerge::load(&saved).map_err(|error| Refusal::malformed(error.to_string()))?;
        if again.get_heads() == document.get_heads() {
            return Ok(saved);
        }
        Err(Refusal::malformed(
            "a document that is saved with other heads",
        ))
    })
}

/// The changes of a saved document pay what its bytes do, each its part: the crate writes them
/// out in many times as many bytes.
fn share_payment(changes: &mut [CheckedChange], bytes: u64) {
    let all: u64 = changes.iter().map(|checked| checked.cost.bytes).sum();
    for checked in changes {
        let part = u128::from(checked.cost.bytes) * u128::from(bytes.min(all));
        checked.cost.bytes = (part / u128::from(all.max(1))) as u64;
    }
}

fn change_columns(data: &[u8]) -> Result<Vec<Column<'_>>, Refusal> {
    let mut reader = Reader::new(data);
    reader.hashes(usize::MAX)?;
    reader.prefixed()?;
    reader.unsigned()?;
    reader.unsigned()?;
    reader.signed()?;
    reader.prefixed()?;
    let actors = reader.count(1, usize::MAX)?;
    for _ in 0..actors {
        reader.prefixed()?;
    }
    Layout::read(&mut reader)?.columns(&mut reader)
}

/// Spend what a saved document's columns claim; returns its heads.
fn check_document(data: &[u8], budget: &mut Budget) -> Result<(Vec<ChangeHash>, Cost), Refusal> {
    let mut reader = Reader::new(data);
    let actors = reader.count(1, usize::MAX)?;
    for _ in 0..actors {
        reader.prefixed()?;
    }
    let heads = reader.hashes(usize::MAX)?;
    let changes = Layout::read(&mut reader)?;
    let operations = Layout::read(&mut reader)?;
    let mut columns = changes.columns(&mut reader)?;
    columns.extend(operations.columns(&mut reader)?);
    let cost = spend_columns(&columns, budget)?;
    Ok((heads, cost))
}

/// What `apply_changes` trusts in a single change.
fn inspect_change(change: Change) -> Result<CheckedChange, Refusal> {
    let raw = change.raw_bytes().to_vec();
    let data = cut(&mut Reader::new(&raw))?.data;
    inspect_columns(change, &change_columns(data)?)
}

/// The same, of the change with these columns.
fn inspect_columns(change: Change, columns: &[Column<'_>]) -> Result<CheckedChange, Refusal> {
    if change.seq() == 0 || change.seq() > MOST_SEQUENCE {
        return Err(Refusal::new(
            reason::SEQUENCE,
            format!("sequence number {}", change.seq()),
        ));
    }
    let start = change.start_op().get();
    if start.saturating_add(change.len() as u64) > MOST_OP_ID {
        return Err(Refusal::new(
            reason::OP_ID,
            format!("operations start at {start}"),
        ));
    }
    if change.seq() != 1 && guarded_check(|| Ok(change.author().is_some()))? {
        return Err(Refusal::new(
            reason::SEQUENCE,
            "an author named after the first change",
        ));
    }
    let column = |spec| columns.iter().find(|column| column.plain_spec() == spec);
    let actor_count = change.other_actor_ids().len() as u64 + 1;
    for spec in [spec::OBJECT_ACTOR, spec::KEY_ACTOR, spec::PREDECESSOR_ACTOR] {
        for run in column(spec).into_iter().flat_map(Column::runs) {
            if run?.value.is_some_and(|actor| actor >= actor_count) {
                return Err(Refusal::malformed(
                    "an operation names an actor not in its list",
                ));
            }
        }
    }
    let cost = Cost {
        rows: change.len() as u64,
        bytes: change.raw_bytes().len() as u64,
    };
    Ok(CheckedChange {
        change,
        is_proved: false,
        cost,
    })
}
