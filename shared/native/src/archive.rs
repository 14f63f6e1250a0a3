//! The bytes of a document's changes: one opaque saved document, and single changes beside it.
//!
//! Every change of the graph is in the saved document or in the tail. Copies of changes in the
//! saved document may be kept besides, as single changes: of the newest, and of those that a
//! peer needs that takes nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use automerge::{Automerge, Change, ChangeHash};

use crate::account::Cost;
use crate::chunk::CheckedChange;
use crate::error::{guarded_check, Refusal};
use crate::graph::Graph;

/// Copies of the newest changes that are kept when a new snapshot has them: who was away for a
/// moment gets them and not the whole document.
const RECENT_BYTES: usize = 256 << 10;

/// A map's own bytes for each change in it, roughly.
const BYTES_PER_ENTRY: usize = 48;

/// A saved document.
#[derive(Clone)]
pub struct Base {
    pub bytes: Arc<[u8]>,
    /// How many changes it has, if they are the first ones of the graph.
    pub prefix: Option<u32>,
    pub cost: Cost,
    /// Whether there is a sidecar of it already, or nothing to lay it beside.
    pub has_sidecar: bool,
}

#[derive(Default)]
pub struct Archive {
    base: Option<Base>,
    tail: Changes,
    copies: Changes,
}

/// Changes as single chunks, by index.
#[derive(Default)]
struct Changes {
    chunks: BTreeMap<u32, Arc<[u8]>>,
    bytes: usize,
}

impl Changes {
    fn insert(&mut self, index: u32, chunk: Arc<[u8]>) {
        self.bytes += chunk.len();
        if let Some(old) = self.chunks.insert(index, chunk) {
            self.bytes -= old.len();
        }
    }

    fn size_bytes(&self) -> usize {
        self.bytes + BYTES_PER_ENTRY * self.chunks.len()
    }
}

impl Archive {
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    pub fn set_base(&mut self, base: Base) {
        self.base = Some(base);
    }

    pub fn note_sidecar(&mut self, has_one: impl FnOnce(&Base) -> bool) {
        if let Some(base) = &mut self.base {
            base.has_sidecar = base.has_sidecar || has_one(base);
        }
    }

    pub fn add(&mut self, index: u32, chunk: &[u8]) {
        self.tail.insert(index, Arc::from(chunk));
    }

    pub fn get(&self, index: u32) -> Option<&Arc<[u8]>> {
        let kept = self.tail.chunks.get(&index);
        kept.or_else(|| self.copies.chunks.get(&index))
    }

    pub fn is_in_tail(&self, index: u32) -> bool {
        self.tail.chunks.contains_key(&index)
    }

    /// The document as it is kept on disk: the snapshot, and the changes behind it.
    pub fn stored_bytes(&self) -> usize {
        self.base.as_ref().map_or(0, |base| base.bytes.len()) + self.tail.bytes
    }

    pub fn size_bytes(&self) -> usize {
        let base = self.base.as_ref().map_or(0, |base| base.bytes.len());
        base + self.tail.size_bytes() + self.copies.size_bytes()
    }

    /// Put a new saved document in the place of the old one; `rest` are the changes that it
    /// doesn't have, ascending.
    pub fn rebase(&mut self, base: Base, rest: &[u32]) {
        let old = std::mem::take(&mut self.tail);
        for (index, chunk) in old.chunks {
            if rest.binary_search(&index).is_ok() {
                self.tail.insert(index, chunk);
            } else {
                self.copies.insert(index, chunk);
            }
        }
        self.base = Some(base);
        self.trim();
    }

    /// Let go of copies, the oldest first, until only recent ones are left.
    pub fn trim(&mut self) {
        while self.copies.bytes > RECENT_BYTES {
            let Some((_, chunk)) = self.copies.chunks.pop_first() else {
                return;
            };
            self.copies.bytes -= chunk.len();
        }
    }

    /// Take copies of changes out of the saved document, by opening it.
    pub fn thaw(&mut self, graph: &Graph, wanted: &[u32]) -> Result<(), Refusal> {
        let Some(base) = &self.base else {
            return Ok(());
        };
        let changes = guarded_check(|| Ok(load(&base.bytes)?.get_changes(&[])))?;
        for change in changes {
            if let Some(index) = graph.find(&change.hash()) {
                if wanted.binary_search(&index).is_ok() {
                    self.copies.insert(index, Arc::from(change.raw_bytes()));
                }
            }
        }
        Ok(())
    }

    /// Apply changes to the opened document, which has the heads `before`, and find them in it.
    ///
    /// A mark whose end lies before its begin is applied and read back, but the document saves and
    /// never loads again; only loading tells.
    pub fn try_out(&self, changes: &[CheckedChange], before: &[ChangeHash]) -> Result<(), Refusal> {
        let mut document = self.open(before)?;
        let changes: Vec<Change> = changes
            .iter()
            .map(|checked| checked.change.clone())
            .collect();
        guarded_check(|| {
            let mut expected: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
            document
                .apply_changes(changes)
                .map_err(|error| Refusal::malformed(error.to_string()))?;
            let changes = document.get_changes(before);
            let mut found: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
            expected.sort_unstable();
            found.sort_unstable();
            if found != expected {
                return Err(Refusal::malformed("operations that can't be read back"));
            }
            load(&document.save()).map(|_| ())
        })
    }

    /// Open the document, with everything that is here; its heads must be these.
    pub fn open(&self, heads: &[ChangeHash]) -> Result<Automerge, Refusal> {
        guarded_check(|| {
            let mut document = match &self.base {
                Some(base) => load(&base.bytes)?,
                None => Automerge::new(),
            };
            let changes = self.tail.chunks.values();
            let changes = changes.map(|chunk| parse(chunk));
            let changes = changes.collect::<Result<Vec<_>, _>>()?;
            document
                .apply_changes(changes)
                .map_err(|error| Refusal::malformed(error.to_string()))?;
            if document.get_heads() == heads {
                return Ok(document);
            }
            Err(Refusal::malformed("the document opens with other heads"))
        })
    }
}

fn parse(chunk: &[u8]) -> Result<Change, Refusal> {
    Change::try_from(chunk).map_err(|error| Refusal::malformed(error.to_string()))
}

fn load(bytes: &[u8]) -> Result<Automerge, Refusal> {
    Automerge::load(bytes).map_err(|error| Refusal::malformed(error.to_string()))
}
