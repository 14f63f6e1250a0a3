//! Takes changes into a document's graph and queue, all or nothing.
//!
//! Nothing is logged or sent that did not pass here: others' replicas panic on bad sequence
//! numbers, unknown actors and unknown objects.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};

use automerge::ChangeHash;

use crate::account::Cost;
use crate::chunk::{self, Checked, CheckedChange};
use crate::columns::Budget;
use crate::error::{reason, Refusal};
use crate::graph::{duplicate_sequence, Graph, Mark};
use crate::queue::{is_settled, Arrival, Queue};
use crate::reader::Reader;

/// Changes taken from one message or blob, and the saved documents among its chunks.
#[derive(Default)]
pub struct Intake<'a> {
    pub changes: Vec<CheckedChange>,
    pub documents: Vec<SavedDocument<'a>>,
}

/// A saved document and the changes in it.
pub struct SavedDocument<'a> {
    /// As it came; or as we would save it, if we don't trust where it came from.
    pub whole: Cow<'a, [u8]>,
    pub hashes: Vec<ChangeHash>,
}

/// Check all chunks of a blob into `intake`; it holds the good ones before a bad one.
pub fn read_blob<'a>(
    blob: &'a [u8],
    budget: &mut Budget,
    graph: &Graph,
    intake: &mut Intake<'a>,
) -> Result<(), Refusal> {
    let mut reader = Reader::new(blob);
    while !reader.is_empty() {
        let chunk = chunk::cut(&mut reader)?;
        let known = intake.documents.len();
        read_chunk(&chunk, budget, graph, intake)?;
        for document in &mut intake.documents[known..] {
            document.whole = Cow::Owned(chunk::saved_anew(&intake.changes, &document.hashes)?);
        }
    }
    Ok(())
}

pub fn read_chunk<'a>(
    chunk: &chunk::Chunk<'a>,
    budget: &mut Budget,
    graph: &Graph,
    intake: &mut Intake<'a>,
) -> Result<(), Refusal> {
    match chunk::check(chunk, budget, |hash| graph.contains(hash))? {
        Checked::KnownDocument => {}
        Checked::Change(change) => intake.changes.push(*change),
        Checked::Document(changes) => {
            let hashes = changes.iter().map(|checked| checked.change.hash());
            intake.documents.push(SavedDocument {
                whole: Cow::Borrowed(chunk.whole),
                hashes: hashes.collect(),
            });
            intake.changes.extend(changes);
        }
    }
    Ok(())
}

/// What became of the changes.
pub struct Settled {
    /// In the graph now, dependencies first.
    pub applied: Vec<CheckedChange>,
    pub cost: Cost,
    /// Refused changes that had waited in the queue, or any in tolerant mode.
    pub refused: Vec<(Arrival, Refusal)>,
    journal: Journal,
}

/// How to undo what `settle` did so far.
struct Journal {
    mark: Mark,
    queued: HashSet<ChangeHash>,
    taken: Vec<Arrival>,
}

/// What a refused change means for the others that came with it.
#[derive(Clone, Copy, PartialEq)]
pub enum Mode {
    /// Refuse them all.
    Whole,
    /// Refuse them all, also if a dependency is missing.
    Complete,
    /// Leave out the bad one: it comes from storage.
    Tolerant,
}

/// Check changes in dependency order and add them to the graph; queue those that wait.
pub fn settle(
    arrivals: Vec<Arrival>,
    mode: Mode,
    graph: &mut Graph,
    queue: &mut Queue,
) -> Result<Settled, Refusal> {
    let mut settled = Settled {
        applied: Vec::new(),
        cost: Cost::default(),
        refused: Vec::new(),
        journal: Journal {
            mark: graph.mark(),
            queued: HashSet::new(),
            taken: Vec::new(),
        },
    };
    let result = settle_all(arrivals, mode, graph, queue, &mut settled);
    if let Err((arrival, refusal)) = result {
        settled.undo(graph, queue);
        if refusal.reason != reason::MISSING_DEPENDENCY {
            queue.refuse(&arrival.checked.change);
        }
        return Err(refusal);
    }
    for (arrival, _) in &settled.refused {
        queue.refuse(&arrival.checked.change);
    }
    if !settled.applied.is_empty() {
        graph.list_heads();
    }
    Ok(settled)
}

fn settle_all(
    arrivals: Vec<Arrival>,
    mode: Mode,
    graph: &mut Graph,
    queue: &mut Queue,
    settled: &mut Settled,
) -> Result<(), (Box<Arrival>, Refusal)> {
    let mut ready = VecDeque::new();
    for arrival in arrivals {
        if graph.contains(&arrival.hash()) || queue.contains(&arrival.hash()) {
            continue;
        }
        if is_settled(&arrival, graph) {
            ready.push_back((arrival, true));
        } else if graph.has_sequence(&arrival.checked.change) {
            let refusal = duplicate_sequence(&arrival.checked.change);
            refuse(arrival, refusal, mode, settled)?;
        } else {
            settled.journal.queued.insert(arrival.hash());
            queue.insert(arrival, graph);
        }
        while let Some((arrival, is_new)) = ready.pop_front() {
            let change = &arrival.checked.change;
            if graph.contains(&change.hash()) {
                continue;
            }
            let hash = change.hash();
            if let Err(refusal) = graph.check(&arrival.checked.change) {
                let blame = if is_new { mode } else { Mode::Tolerant };
                refuse(arrival, refusal, blame, settled)?;
                continue;
            }
            graph.push(&arrival.checked.change);
            for next in queue.take_ready(&hash) {
                let is_new = settled.journal.queued.contains(&next.hash());
                settled.journal.taken.push(next.clone());
                ready.push_back((next, is_new));
            }
            settled.cost += arrival.checked.cost;
            settled.applied.push(arrival.checked);
        }
    }
    if mode == Mode::Complete {
        let waiting = settled
            .journal
            .queued
            .iter()
            .find(|hash| queue.contains(hash));
        if let Some(arrival) = waiting.copied().and_then(|hash| queue.remove(&hash)) {
            let refusal = Refusal::new(
                reason::MISSING_DEPENDENCY,
                "a change whose dependency is missing",
            );
            return Err((Box::new(arrival), refusal));
        }
    }
    Ok(())
}

fn refuse(
    arrival: Arrival,
    refusal: Refusal,
    mode: Mode,
    settled: &mut Settled,
) -> Result<(), (Box<Arrival>, Refusal)> {
    if mode != Mode::Tolerant {
        return Err((Box::new(arrival), refusal));
    }
    settled.refused.push((arrival, refusal));
    Ok(())
}

impl Settled {
    /// Put graph and queue back to where they were before `settle`; returns those of the changes
    /// that had waited before.
    pub fn undo(self, graph: &mut Graph, queue: &mut Queue) -> Vec<Arrival> {
        let Journal {
            mark,
            queued,
            taken,
        } = self.journal;
        graph.return_to(mark);
        graph.list_heads();
        for hash in &queued {
            queue.remove(hash);
        }
        let waited = taken.into_iter();
        let waited: Vec<Arrival> = waited
            .filter(|arrival| !queued.contains(&arrival.hash()))
            .collect();
        queue.recount(graph);
        for arrival in &waited {
            queue.insert(arrival.clone(), graph);
        }
        waited
    }
}
