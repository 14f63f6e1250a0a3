//! A document's changes: the graph of them, their bytes, and the queue of those that wait.
//!
//! Changes go in here from storage, peers and the application, checked; the parts always agree.
//! The document itself is opened only to try out doubtful changes, to save it whole, or to look
//! into it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use automerge::{Automerge, Change, ChangeHash};

use crate::account::{stored_budget, Account, Cost};
use crate::archive::{Archive, Base};
use crate::chunk::{self, CheckedChange};
use crate::columns::Budget;
use crate::error::Refusal;
use crate::exchange::View;
use crate::graph::{Graph, Heads};
use crate::ingest::{read_chunk, settle, Intake, Mode, SavedDocument};
use crate::operations::{Operations, Verdict};
use crate::queue::{Arrival, Queue};
use crate::reader::Reader;
use crate::sidecar;
use crate::walk::difference;

/// Each try costs a checksum over what the bytes claim to be; in sum at most so many times the
/// whole blob.
const MOST_SEARCHES: usize = 8;

/// A smaller document is opened faster than a second file is read.
const LEAST_SIDECAR_CHANGES: u32 = 64;

/// Operations of a change, or their predecessors, that may be looked at on the event loop.
const LIGHT_ROWS: u64 = 4096;

/// A history without changes.
const EMPTY_BYTES: usize = 1_000;

pub struct History {
    pub graph: Graph,
    pub queue: Queue,
    pub archive: Archive,
    pub account: Account,
    /// Of all changes in the graph; None if something that was stored can't be read.
    operations: Option<Operations>,
    /// Of all changes in the graph.
    cost: Cost,
}

/// Index of a blob, and what is wrong with it.
pub type Problem = (usize, Refusal);

/// What became of the changes of one message or blob.
pub struct Taken {
    /// To persist, in an order in which they can be loaded.
    pub chunks: Vec<Vec<u8>>,
    /// Changes that are in the graph now.
    pub count: u64,
    /// Changes that had waited and were refused now, with their senders.
    pub blamed: Vec<(Option<i64>, Refusal)>,
}

impl History {
    /// An empty one; `queue_bytes` bounds the changes that wait.
    pub fn new(queue_bytes: usize) -> Self {
        Self {
            graph: Graph::default(),
            queue: Queue::new(queue_bytes),
            archive: Archive::default(),
            account: Account::default(),
            operations: Some(Operations::default()),
            cost: Cost::default(),
        }
    }

    /// Load blobs; returns what is wrong with each that has a bad part, in order.
    ///
    /// A document among them that the sidecar belongs to is not opened.
    pub fn load(
        blobs: &[&[u8]],
        sidecar: Option<&[u8]>,
        queue_bytes: usize,
    ) -> (Self, Vec<Problem>) {
        let mut history = Self::new(queue_bytes);
        let known = sidecar.and_then(|bytes| history.take_sidecar(bytes, blobs));
        history.graph.set_loading(true);
        let mut problems = Vec::new();
        history.take_stored(blobs, known, &mut problems);
        history.queue.forget_peers();
        history.graph.set_loading(false);
        history.graph.shrink();
        history.account.forgive();
        problems.sort_by_key(|(index, _)| *index);
        problems.dedup_by_key(|(index, _)| *index);
        (history, problems)
    }

    /// Returns the index of the blob that need not be read any more.
    fn take_sidecar(&mut self, bytes: &[u8], blobs: &[&[u8]]) -> Option<usize> {
        let (index, found) = sidecar::decode(bytes, blobs)?;
        self.graph = found.graph;
        self.operations = Some(found.operations);
        self.book(found.cost);
        self.archive.set_base(Base {
            bytes: Arc::from(blobs[index]),
            prefix: Some(found.count),
            cost: found.cost,
            has_sidecar: true,
        });
        Some(index)
    }

    fn take_stored(&mut self, blobs: &[&[u8]], known: Option<usize>, problems: &mut Vec<Problem>) {
        let mut budget = stored_budget();
        let mut arrivals = Vec::new();
        let mut documents = Vec::new();
        for (index, blob) in blobs.iter().enumerate() {
            if Some(index) == known {
                continue;
            }
            let mut intake = Intake::default();
            let read = self.read_stored(blob, &mut budget, &mut intake);
            problems.extend(read.err().map(|refusal| (index, refusal)));
            documents.extend(intake.documents);
            arrivals.extend(intake.changes.into_iter().map(|checked| Arrival {
                checked,
                peer: i64::try_from(index).ok(),
            }));
        }
        let largest = self.beginning(&documents);
        if let Some(document) = largest {
            // First, so that its changes are the first ones of the graph.
            let hashes: HashSet<&ChangeHash> = document.hashes.iter().collect();
            arrivals.sort_by_key(|arrival| !hashes.contains(&arrival.hash()));
        }
        let settled = settle(arrivals, Mode::Tolerant, &mut self.graph, &mut self.queue);
        let Ok(settled) = settled else {
            return; // tolerant: nothing is refused as a whole
        };
        for checked in &settled.applied {
            let Some(operations) = &mut self.operations else {
                break;
            };
            if operations.add(&self.graph, &checked.change).is_err() {
                self.operations = None;
            }
        }
        self.keep(&settled.applied, largest);
        let is_a_blob = |base: &Base| blobs.iter().any(|blob| **blob == *base.bytes);
        self.archive.note_sidecar(|base| !is_a_blob(base));
        self.book(settled.cost);
        let refused = settled.refused.into_iter();
        problems.extend(refused.map(|(bad, why)| (blob_of(&bad), why)));
    }

    /// The document among these that the history may begin with, if it is empty.
    fn beginning<'d, 'a>(
        &self,
        documents: &'d [SavedDocument<'a>],
    ) -> Option<&'d SavedDocument<'a>> {
        let largest = documents
            .iter()
            .max_by_key(|document| document.hashes.len());
        largest.filter(|_| self.graph.len() == 0)
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

    /// What generating messages reads.
    pub fn view(&self, like_crate: bool) -> View<'_> {
        View {
            graph: &self.graph,
            queue: &self.queue,
            archive: &self.archive,
            like_crate,
        }
    }

    /// Memory held, from what is reserved.
    pub fn size_bytes(&self) -> usize {
        let operations = self.operations.as_ref().map_or(0, Operations::size_bytes);
        let kept = self.graph.size_bytes() + self.archive.size_bytes() + self.queue.bytes();
        EMPTY_BYTES + operations + kept
    }

    /// Take the changes of one message or blob. None, and nothing was done, if only light work was
    /// asked for and this isn't.
    pub fn take(
        &mut self,
        intake: Intake<'_>,
        peer: Option<i64>,
        mode: Mode,
        only_light: bool,
    ) -> Result<Option<Taken>, Refusal> {
        let Intake { changes, documents } = intake;
        let changes = changes.into_iter();
        let mut arrivals: Vec<Arrival> = changes.map(|checked| Arrival { checked, peer }).collect();
        let mut blamed = Vec::new();
        loop {
            let spare = (self.queue.len() > 0).then(|| arrivals.clone());
            let outcome =
                self.settle_and_prove(std::mem::take(&mut arrivals), mode, &documents, only_light);
            match (outcome, spare) {
                (Ok(mut taken), _) => {
                    taken.blamed.extend(blamed);
                    self.queue.trim();
                    return Ok(Some(taken));
                }
                (Err(Failed::NotLight), _) => return Ok(None),
                (Err(Failed::OfWaiting(bad, refusal)), Some(spare)) => {
                    // The sender of what waited, not this one, is to blame; the others go on.
                    for arrival in &bad {
                        self.queue.remove(&arrival.hash());
                        self.queue.refuse(&arrival.checked.change);
                        blamed.push((arrival.peer, refusal.clone()));
                    }
                    arrivals = spare;
                }
                (Err(Failed::OfWaiting(_, refusal) | Failed::Alone(refusal)), _) => {
                    return Err(refusal);
                }
            }
        }
    }

    fn settle_and_prove(
        &mut self,
        arrivals: Vec<Arrival>,
        mode: Mode,
        documents: &[SavedDocument<'_>],
        only_light: bool,
    ) -> Result<Taken, Failed> {
        let before = self.graph.heads().clone();
        let largest = self.beginning(documents);
        let settled = settle(arrivals, mode, &mut self.graph, &mut self.queue);
        let settled = settled.map_err(Failed::Alone)?;
        let mark = self.operations.as_ref().map(Operations::mark);
        if let Err(unproved) = self.prove(&settled.applied, &before, only_light) {
            if let (Some(operations), Some(mark)) = (&mut self.operations, mark) {
                operations.return_to(&mark);
            }
            let Unproved::Bad(suspects, refusal) = unproved else {
                settled.undo(&mut self.graph, &mut self.queue);
                return Err(Failed::NotLight);
            };
            let is_suspect = |hash: &ChangeHash| suspects.contains(hash);
            let applied = settled.applied.iter().map(|checked| &checked.change);
            let bad: Vec<Change> = applied
                .filter(|change| is_suspect(&change.hash()))
                .cloned()
                .collect();
            let waited = settled.undo(&mut self.graph, &mut self.queue);
            let waited = waited.into_iter();
            let waited: Vec<Arrival> = waited
                .filter(|arrival| is_suspect(&arrival.hash()))
                .collect();
            if !waited.is_empty() {
                return Err(Failed::OfWaiting(waited, refusal));
            }
            bad.iter().for_each(|change| self.queue.refuse(change));
            return Err(Failed::Alone(refusal));
        }
        self.keep(&settled.applied, largest);
        self.book(settled.cost);
        let blamed = settled.refused.into_iter();
        Ok(Taken {
            count: settled.applied.len() as u64,
            chunks: chunks_to_persist(&settled.applied, documents),
            blamed: blamed
                .map(|(arrival, refusal)| (arrival.peer, refusal))
                .collect(),
        })
    }

    /// Make sure that all operations of changes that are in the graph now refer rightly.
    fn prove(
        &mut self,
        applied: &[CheckedChange],
        before: &Heads,
        only_light: bool,
    ) -> Result<(), Unproved> {
        if applied.is_empty() {
            return Ok(());
        }
        let is_light = |checked: &CheckedChange| checked.cost.rows <= LIGHT_ROWS;
        if only_light && !applied.iter().all(is_light) {
            return Err(Unproved::NotLight);
        }
        let mut doubtful = Vec::new();
        for checked in applied {
            let hash = checked.change.hash();
            let verdict = match &mut self.operations {
                Some(operations) => operations
                    .check(&self.graph, &checked.change)
                    .map_err(|refusal| Unproved::Bad(vec![hash], refusal))?,
                None => Verdict::Doubtful,
            };
            if verdict == Verdict::Doubtful && !checked.is_proved {
                doubtful.push(hash);
            }
        }
        match (doubtful.is_empty(), only_light) {
            (true, _) => Ok(()),
            (false, true) => Err(Unproved::NotLight),
            (false, false) => self
                .archive
                .try_out(applied, before)
                .map_err(|refusal| Unproved::Bad(doubtful, refusal)),
        }
    }

    /// Keep the bytes of changes that are in the graph now: single, or as the saved document in
    /// which they came.
    fn keep(&mut self, applied: &[CheckedChange], document: Option<&SavedDocument<'_>>) {
        let count = document.map_or(0, |document| document.hashes.len() as u32);
        let is_first = |hash: &ChangeHash| self.graph.find(hash).is_some_and(|at| at < count);
        let base = document.filter(|document| document.hashes.iter().all(is_first));
        if let Some(document) = base {
            let mut cost = Cost::default();
            let of_base = applied
                .iter()
                .filter(|checked| is_first(&checked.change.hash()));
            of_base.for_each(|checked| cost += checked.cost);
            self.archive.set_base(Base {
                bytes: Arc::from(document.whole.as_ref()),
                prefix: Some(count),
                cost,
                has_sidecar: false,
            });
        }
        let covered = if base.is_some() { count } else { 0 };
        for checked in applied {
            if let Some(index) = self.graph.find(&checked.change.hash()) {
                if index >= covered {
                    self.archive.add(index, checked.change.raw_bytes());
                }
            }
        }
    }

    fn book(&mut self, cost: Cost) {
        self.cost += cost;
        self.account.book(cost);
    }

    /// Put a snapshot with these heads in the place of the bytes that it has; false if it has
    /// changes that are not known here.
    pub fn rebase(&mut self, snapshot: &[u8], heads: &[ChangeHash]) -> bool {
        let known = self.graph.known(heads);
        if known.len() != heads.len() {
            return false;
        }
        let ours = self.graph.head_indices().to_vec();
        let rest = difference(&self.graph, &ours, &known);
        if !rest.iter().all(|index| self.archive.is_in_tail(*index)) {
            return false; // the saved document here has more
        }
        let base = Base {
            bytes: Arc::from(snapshot),
            prefix: None,
            cost: Cost::default(),
            has_sidecar: true,
        };
        self.archive.rebase(base, &rest);
        true
    }

    /// The document, opened.
    pub fn open(&self) -> Result<Automerge, Refusal> {
        self.archive.open(self.graph.heads())
    }

    /// The sidecar of a snapshot that has everything that is here; empty if it can't have one.
    pub fn sidecar_of(&self, snapshot: &[u8]) -> Vec<u8> {
        let count = self.graph.len() as u32;
        self.operations
            .as_ref()
            .map_or_else(Vec::new, |operations| {
                sidecar::encode(&self.graph, operations, count, self.cost, snapshot)
            })
    }

    /// The sidecar of the saved document that this began with, if it has none and deserves one.
    pub fn missing_sidecar(&mut self) -> Option<Vec<u8>> {
        let base = self.archive.base().filter(|base| !base.has_sidecar)?;
        let count = base
            .prefix
            .filter(|count| *count >= LEAST_SIDECAR_CHANGES)?;
        let operations = self.operations.as_ref()?;
        let encoded = sidecar::encode(&self.graph, operations, count, base.cost, &base.bytes);
        self.archive.note_sidecar(|_| true);
        Some(encoded)
    }
}

/// Why changes were not taken.
enum Failed {
    /// These had waited in the queue, and are to blame.
    OfWaiting(Vec<Arrival>, Refusal),
    Alone(Refusal),
    NotLight,
}

enum Unproved {
    NotLight,
    /// One of these changes, or all, are bad.
    Bad(Vec<ChangeHash>, Refusal),
}

fn blob_of(arrival: &Arrival) -> usize {
    let index = arrival.peer.and_then(|index| usize::try_from(index).ok());
    index.unwrap_or_default()
}

/// The changes one by one; but a saved document whole if that is smaller.
fn chunks_to_persist(applied: &[CheckedChange], documents: &[SavedDocument<'_>]) -> Vec<Vec<u8>> {
    let changes = || applied.iter().map(|checked| &checked.change);
    if documents.is_empty() {
        return changes()
            .map(|change| change.raw_bytes().to_vec())
            .collect();
    }
    let mut sizes: HashMap<ChangeHash, usize> = changes()
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
    let rest = changes().filter(|change| sizes.contains_key(&change.hash()));
    chunks.extend(rest.map(|change| change.raw_bytes().to_vec()));
    chunks
}
