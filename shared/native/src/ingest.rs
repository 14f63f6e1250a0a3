//! Takes changes into a document's graph and queue, all or nothing.
//!
//! Nothing reaches the crate's `apply_changes` that did not pass here: it panics on bad
//! sequence numbers, unknown actors and unknown objects.

use std::collections::{HashSet, VecDeque};

use automerge::{ActorId, Automerge, Change, ChangeHash, ObjId, ReadDoc};

use crate::account::Cost;
use crate::chunk::{self, Checked, CheckedChange};
use crate::columns::Budget;
use crate::error::{guarded_check, reason, Refusal};
use crate::graph::{duplicate_sequence, Graph, Mark};
use crate::queue::{is_settled, Arrival, Queue};
use crate::reader::Reader;

/// Changes taken from one message or blob, and the saved documents among its chunks.
#[derive(Default)]
pub struct Intake<'a> {
    pub changes: Vec<CheckedChange>,
    pub documents: Vec<SavedDocument<'a>>,
    /// The largest of the documents, if there is nothing yet that it would be merged into.
    pub adoptable: Option<Adoptable>,
}

/// A document chunk and the changes in it.
pub struct SavedDocument<'a> {
    pub whole: &'a [u8],
    pub hashes: Vec<ChangeHash>,
}

/// A loaded document and the changes in it: an empty one becomes it, which costs a fraction of
/// applying its changes.
pub struct Adoptable {
    pub document: Automerge,
    pub hashes: HashSet<ChangeHash>,
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
        read_chunk(&chunk, budget, graph, intake)?;
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
        Checked::Document(document, changes) => {
            let hashes: Vec<ChangeHash> = changes
                .iter()
                .map(|checked| checked.change.hash())
                .collect();
            let largest = intake
                .adoptable
                .as_ref()
                .map_or(0, |other| other.hashes.len());
            if graph.len() == 0 && hashes.len() > largest {
                intake.adoptable = Some(Adoptable {
                    document: *document,
                    hashes: hashes.iter().copied().collect(),
                });
            }
            intake.documents.push(SavedDocument {
                whole: chunk.whole,
                hashes,
            });
            intake.changes.extend(changes);
        }
    }
    Ok(())
}

/// What became of the changes; nothing is applied to the crate's document yet.
pub struct Settled {
    /// Dependencies first.
    pub applied: Vec<Change>,
    /// Whether one of them marks text.
    pub has_marks: bool,
    pub cost: Cost,
    /// Refused changes that had waited in the queue, or any in tolerant mode.
    pub refused: Vec<(Arrival, Refusal)>,
    journal: Journal,
}

/// How to undo it.
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
    document: &Automerge,
) -> Result<Settled, Refusal> {
    let mut settled = Settled {
        applied: Vec::new(),
        has_marks: false,
        cost: Cost::default(),
        refused: Vec::new(),
        journal: Journal {
            mark: graph.mark(),
            queued: HashSet::new(),
            taken: Vec::new(),
        },
    };
    let result = settle_all(arrivals, mode, graph, queue, document, &mut settled);
    if let Err((arrival, refusal)) = result {
        settled.undo(graph, queue);
        if refusal.reason != reason::MISSING_DEPENDENCY {
            queue.refuse(&arrival);
        }
        return Err(refusal);
    }
    for (arrival, _) in &settled.refused {
        queue.refuse(arrival);
    }
    // What is stored waits whatever its size: compaction must see that something does.
    if mode != Mode::Tolerant {
        queue.trim();
    }
    Ok(settled)
}

fn settle_all(
    arrivals: Vec<Arrival>,
    mode: Mode,
    graph: &mut Graph,
    queue: &mut Queue,
    document: &Automerge,
    settled: &mut Settled,
) -> Result<(), (Box<Arrival>, Refusal)> {
    let mut made = HashSet::new();
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
            queue.insert(arrival);
        }
        while let Some((arrival, is_new)) = ready.pop_front() {
            let change = &arrival.checked.change;
            if graph.contains(&change.hash()) {
                continue;
            }
            let verdict = graph
                .check(change)
                .and_then(|()| check_objects(&arrival.checked, document, &mut made));
            if let Err(refusal) = verdict {
                let blame = if is_new { mode } else { Mode::Tolerant };
                refuse(arrival, refusal, blame, settled)?;
                continue;
            }
            graph.push(change);
            for next in queue.take_ready(&change.hash(), graph) {
                let is_new = settled.journal.queued.contains(&next.hash());
                settled.journal.taken.push(next.clone());
                ready.push_back((next, is_new));
            }
            settled.has_marks |= arrival.checked.has_marks;
            settled.cost += arrival.checked.cost;
            settled.applied.push(arrival.checked.change);
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
    /// Put graph and queue back to where they were before `settle`; returns those of the
    /// changes that had waited before.
    pub fn undo(&mut self, graph: &mut Graph, queue: &mut Queue) -> Vec<Arrival> {
        let journal = &mut self.journal;
        graph.return_to(std::mem::replace(&mut journal.mark, graph.mark()));
        for hash in &journal.queued {
            queue.remove(hash);
        }
        journal
            .taken
            .retain(|arrival| !journal.queued.contains(&arrival.hash()));
        for arrival in &journal.taken {
            queue.insert(arrival.clone());
        }
        std::mem::take(&mut journal.taken)
    }
}

/// The crate panics on an operation in an object that does not exist.
fn check_objects(
    checked: &CheckedChange,
    document: &Automerge,
    made: &mut HashSet<(u64, ActorId)>,
) -> Result<(), Refusal> {
    let change = &checked.change;
    let start = change.start_op().get();
    let actors: Vec<&ActorId> = change.actors().collect();
    for (counter, actor) in &checked.objects {
        let own = *actor == 0
            && counter.checked_sub(start).is_some_and(|row| {
                checked
                    .made
                    .iter()
                    .any(|(from, to)| (*from..*to).contains(&row))
            });
        let actor = actors
            .get(*actor)
            .ok_or_else(|| Refusal::malformed("an object of an actor not in the list"))?;
        if own || made.contains(&(*counter, (*actor).clone())) {
            continue;
        }
        let id = ObjId::Id(*counter, (*actor).clone(), 0);
        guarded_check(|| {
            document.object_type(&id).map_err(|_| {
                Refusal::new(
                    reason::UNKNOWN_OBJECT,
                    "an operation in an object not known",
                )
            })
        })?;
    }
    for (from, to) in &checked.made {
        made.extend((*from..*to).map(|row| (start + row, change.actor_id().clone())));
    }
    Ok(())
}
