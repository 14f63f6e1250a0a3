//! A document's changes: the crate's document, our graph of it, and the queue.
//!
//! Changes go in here from storage, peers and the application, checked and read back; the three
//! parts always agree.

use std::collections::HashMap;

use automerge::{Automerge, Change, ChangeHash};

use crate::account::{stored_budget, Account, Cost};
use crate::chunk;
use crate::columns::Budget;
use crate::error::{guarded, Failure, Panicked, Refusal};
use crate::graph::Graph;
use crate::ingest::{read_chunk, settle, Adoptable, Intake, Mode, SavedDocument, Settled};
use crate::queue::{Arrival, Queue};
use crate::reader::Reader;

/// Each try costs a checksum over what the bytes claim to be; in sum at most so many times the
/// whole blob.
const MOST_SEARCHES: usize = 8;

/// Estimates for `size_bytes`, from a document typed one character per change.
const BYTES_PER_CHANGE: usize = 250;
const BYTES_PER_OPERATION: usize = 40;

pub struct History {
    pub document: Automerge,
    pub graph: Graph,
    pub queue: Queue,
    /// Counts the changes applied.
    pub version: u64,
    pub account: Account,
    operation_count: usize,
    change_bytes: usize,
}

/// Index of a blob, and what is wrong with it.
pub type Problem = (usize, Refusal);

/// What became of the changes of one message or blob.
pub struct Taken {
    /// To persist, in an order in which they can be loaded.
    pub chunks: Vec<Vec<u8>>,
    /// Changes that had waited and were refused now, with their senders.
    pub blamed: Vec<(Option<i64>, Refusal)>,
}

impl History {
    /// An empty one; `queue_bytes` bounds the changes that wait.
    pub fn new(queue_bytes: usize) -> Self {
        Self {
            document: Automerge::new(),
            graph: Graph::default(),
            queue: Queue::new(queue_bytes),
            version: 0,
            account: Account::default(),
            operation_count: 0,
            change_bytes: 0,
        }
    }

    /// Load blobs; returns what is wrong with each that has a bad part, in order.
    pub fn load(blobs: &[&[u8]], queue_bytes: usize) -> Result<(Self, Vec<Problem>), Panicked> {
        let mut history = Self::new(queue_bytes);
        history.graph.set_loading(true);
        let mut problems = Vec::new();
        let (arrivals, adoptable) = history.read_all_stored(blobs, &mut problems);
        let taken = history.take_stored(arrivals, adoptable, &mut problems);
        if let Err(Failure::Panicked(panicked)) = taken {
            return Err(panicked);
        }
        history.queue.forget_peers();
        history.graph.set_loading(false);
        history.account.forgive();
        problems.sort_by_key(|(index, _)| *index);
        problems.dedup_by_key(|(index, _)| *index);
        Ok((history, problems))
    }

    /// The index of the blob takes the place of the peer.
    fn read_all_stored(
        &self,
        blobs: &[&[u8]],
        problems: &mut Vec<Problem>,
    ) -> (Vec<Arrival>, Option<Adoptable>) {
        let mut budget = stored_budget();
        let mut arrivals = Vec::new();
        let mut intake = Intake::default();
        for (index, blob) in blobs.iter().enumerate() {
            let read = self.read_stored(blob, &mut budget, &mut intake);
            problems.extend(read.err().map(|refusal| (index, refusal)));
            arrivals.extend(intake.changes.drain(..).map(|checked| Arrival {
                checked,
                peer: i64::try_from(index).ok(),
            }));
        }
        (arrivals, intake.adoptable)
    }

    /// Take what can be applied. If something can't be, look for it by halves: that is slow, but
    /// only foreign files have such changes, and all others must load.
    fn take_stored(
        &mut self,
        mut arrivals: Vec<Arrival>,
        adoptable: Option<Adoptable>,
        problems: &mut Vec<Problem>,
    ) -> Result<(), Failure> {
        let before = self.graph.heads();
        let spare = arrivals.clone();
        let mut settled = self.settle(arrivals, Mode::Tolerant)?;
        let applied = Applied::of(&mut settled);
        match self.commit(applied, adoptable, before) {
            Err(Failure::Refused(refusal)) => {
                settled.undo(&mut self.graph, &mut self.queue);
                arrivals = spare;
                if arrivals.len() > 1 {
                    let rest = arrivals.split_off(arrivals.len() / 2);
                    self.take_stored(arrivals, None, problems)?;
                    return self.take_stored(rest, None, problems);
                }
                problems.extend(arrivals.iter().map(|bad| (blob_of(bad), refusal.clone())));
            }
            other => other?,
        }
        problems.extend(
            settled
                .refused
                .iter()
                .map(|(bad, why)| (blob_of(bad), why.clone())),
        );
        Ok(())
    }

    /// A bad part doesn't hide the chunks behind it: what looks like the beginning of one is tried.
    fn read_stored<'a>(
        &self,
        blob: &'a [u8],
        budget: &mut Budget,
        intake: &mut Intake<'a>,
    ) -> Result<(), Refusal> {
        let mut rest = blob;
        let mut result = Ok(());
        let mut searched = 0;
        while !rest.is_empty() && searched <= MOST_SEARCHES * blob.len() {
            let mut reader = Reader::new(rest);
            let (refusal, is_torn, length) = match chunk::cut(&mut reader) {
                Ok(chunk) => match read_chunk(&chunk, budget, &self.graph, intake) {
                    Ok(()) => {
                        rest = reader.rest();
                        continue;
                    }
                    Err(refusal) => {
                        let is_torn = chunk::is_no_chunk(&refusal);
                        (refusal, is_torn, chunk.whole.len())
                    }
                },
                Err(refusal) => (refusal, true, 1),
            };
            result = result.and(Err(refusal));
            if is_torn {
                searched += length;
                rest = chunk::seek(&rest[1..]);
            } else {
                rest = reader.rest();
            }
        }
        result
    }

    pub fn size_bytes(&self) -> usize {
        self.graph.len() * BYTES_PER_CHANGE
            + self.operation_count * BYTES_PER_OPERATION
            + self.change_bytes
            + self.queue.bytes()
    }

    /// Take the changes of one message or blob.
    pub fn take(
        &mut self,
        intake: Intake<'_>,
        peer: Option<i64>,
        mode: Mode,
    ) -> Result<Taken, Failure> {
        let Intake {
            changes,
            documents,
            adoptable,
        } = intake;
        let arrivals: Vec<Arrival> = changes
            .into_iter()
            .map(|checked| Arrival { checked, peer })
            .collect();
        let spare = (self.queue.len() > 0).then(|| arrivals.clone());
        let outcome = self.settle_and_commit(arrivals, mode, &documents, adoptable);
        let (Err(Failed::WithQueued(refusal, queued)), Some(arrivals)) = (&outcome, spare) else {
            return outcome.map_err(Failure::from);
        };
        // The bad change may be one that waited: its sender, not this one, is to blame.
        for arrival in queued {
            self.queue.remove(&arrival.hash());
            self.queue.refuse(arrival);
        }
        let mut taken = self.settle_and_commit(arrivals, mode, &documents, None)?;
        let blamed = queued.iter().map(|arrival| (arrival.peer, refusal.clone()));
        taken.blamed.extend(blamed);
        Ok(taken)
    }

    fn settle_and_commit(
        &mut self,
        arrivals: Vec<Arrival>,
        mode: Mode,
        documents: &[SavedDocument<'_>],
        adoptable: Option<Adoptable>,
    ) -> Result<Taken, Failed> {
        let before = self.graph.heads();
        let mut settled = self.settle(arrivals, mode).map_err(Failed::Alone)?;
        let applied = Applied::of(&mut settled);
        let chunks = chunks_to_persist(&applied.changes, documents);
        match self.commit(applied, adoptable, before) {
            Ok(()) => Ok(Taken {
                chunks,
                blamed: settled
                    .refused
                    .into_iter()
                    .map(|(arrival, refusal)| (arrival.peer, refusal))
                    .collect(),
            }),
            Err(Failure::Panicked(panicked)) => Err(Failed::Panicked(panicked)),
            Err(Failure::Refused(refusal)) => {
                let queued = settled.undo(&mut self.graph, &mut self.queue);
                if queued.is_empty() {
                    return Err(Failed::Alone(refusal));
                }
                Err(Failed::WithQueued(refusal, queued))
            }
        }
    }

    fn settle(&mut self, arrivals: Vec<Arrival>, mode: Mode) -> Result<Settled, Refusal> {
        settle(
            arrivals,
            mode,
            &mut self.graph,
            &mut self.queue,
            &self.document,
        )
    }

    /// Hand settled changes to the crate.
    ///
    /// The checks before can't see everything that its operations refer to: an element that
    /// doesn't exist panics, a predecessor that doesn't exist gives a document that saves and
    /// never loads again. So a panic is survived by building the document anew from the changes
    /// that were in it before, and what was applied is read back.
    fn commit(
        &mut self,
        applied: Applied,
        adoptable: Option<Adoptable>,
        mut before: Vec<ChangeHash>,
    ) -> Result<(), Failure> {
        let has_marks = applied.has_marks;
        let cost = applied.cost;
        let mut applied = applied.changes;
        if applied.is_empty() {
            return Ok(());
        }
        let count = applied.len() as u64;
        let operations: usize = applied.iter().map(Change::len).sum();
        let bytes: usize = applied.iter().map(|change| change.raw_bytes().len()).sum();
        let floor = before.clone();
        if let Some(Adoptable { document, hashes }) = adoptable {
            let is_in = |change: &Change| hashes.contains(&change.hash());
            let is_whole = applied.iter().filter(|change| is_in(change)).count() == hashes.len();
            if before.is_empty() && is_whole {
                applied.retain(|change| !is_in(change));
                before = document.get_heads();
                self.document = document;
            }
        }
        let document = &mut self.document;
        let result = guarded(|| {
            let has_news = !applied.is_empty();
            apply_and_read_back(document, applied, &before)?;
            if has_marks && has_news {
                return save_and_load(document);
            }
            Ok(())
        });
        match result {
            Ok(Ok(())) => {
                self.version += count;
                self.operation_count += operations;
                self.change_bytes += bytes;
                self.account.book(cost);
                Ok(())
            }
            Ok(Err(detail)) | Err(Panicked(detail)) => {
                self.rebuild(&floor)?;
                Err(Refusal::malformed(detail).into())
            }
        }
    }

    /// Make the crate's document anew, from its own changes up to `heads`.
    fn rebuild(&mut self, heads: &[ChangeHash]) -> Result<(), Panicked> {
        let document = &self.document;
        let rebuilt = guarded(|| document.fork_at(heads));
        match rebuilt {
            Ok(Ok(document)) if document.get_heads() == heads => {
                self.document = document;
                Ok(())
            }
            Ok(Ok(_)) => Err(Panicked("heads differ after rebuilding".to_owned())),
            Ok(Err(error)) => Err(Panicked(error.to_string())),
            Err(panicked) => Err(panicked),
        }
    }
}

/// Changes that were settled together, dependencies first.
struct Applied {
    changes: Vec<Change>,
    has_marks: bool,
    cost: Cost,
}

impl Applied {
    fn of(settled: &mut Settled) -> Self {
        Self {
            changes: std::mem::take(&mut settled.applied),
            has_marks: settled.has_marks,
            cost: settled.cost,
        }
    }
}

/// Why changes could not be committed.
enum Failed {
    /// Changes that had waited in the queue were among them.
    WithQueued(Refusal, Vec<Arrival>),
    Alone(Refusal),
    Panicked(Panicked),
}

impl From<Failed> for Failure {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::WithQueued(refusal, _) | Failed::Alone(refusal) => Self::Refused(refusal),
            Failed::Panicked(panicked) => Self::Panicked(panicked),
        }
    }
}

fn blob_of(arrival: &Arrival) -> usize {
    let index = arrival.peer.and_then(|index| usize::try_from(index).ok());
    index.unwrap_or_default()
}

/// Apply changes to a document that has the heads `before`, and find them in it.
fn apply_and_read_back(
    document: &mut Automerge,
    changes: Vec<Change>,
    before: &[ChangeHash],
) -> Result<(), String> {
    let mut expected: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
    document
        .apply_changes(changes)
        .map_err(|error| error.to_string())?;
    let changes = document.get_changes(before);
    let mut found: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
    expected.sort_unstable();
    found.sort_unstable();
    if found == expected {
        Ok(())
    } else {
        Err("operations that can't be read back".to_owned())
    }
}

/// A mark whose end lies before its begin is applied and read back, but the document saves and
/// never loads again; only loading tells. That costs the whole document, for marks alone.
fn save_and_load(document: &Automerge) -> Result<(), String> {
    Automerge::load(&document.save())
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// The changes one by one; but a saved document whole if that is smaller.
fn chunks_to_persist(applied: &[Change], documents: &[SavedDocument<'_>]) -> Vec<Vec<u8>> {
    let mut sizes: HashMap<ChangeHash, usize> = applied
        .iter()
        .map(|change| (change.hash(), change.raw_bytes().len()))
        .collect();
    let mut chunks = Vec::new();
    for document in documents {
        let single: usize = document
            .hashes
            .iter()
            .filter_map(|hash| sizes.get(hash))
            .sum();
        if single > document.whole.len() {
            document.hashes.iter().for_each(|hash| {
                sizes.remove(hash);
            });
            chunks.push(document.whole.to_vec());
        }
    }
    let rest = applied
        .iter()
        .filter(|change| sizes.contains_key(&change.hash()));
    chunks.extend(rest.map(|change| change.raw_bytes().to_vec()));
    chunks
}
