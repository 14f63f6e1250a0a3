//! What each operation of a document may be referred to as, and whether new ones refer rightly.
//!
//! The graph doesn't tell: a change may name an element that isn't in its list, or a predecessor
//! under another key. The crate then panics, or keeps a document that saves and never loads
//! again, here and in every replica that is sent the change. Opening the document would tell, at
//! a cost that grows with the history. So per operation 12 bytes or less are kept: its object,
//! and its key or element. With them most changes can be told to be good or bad; the few others,
//! such as marks, are doubtful, and are tried out on the opened document.
//!
//! Operations are numbered in the order of their changes in the graph.

use std::hash::{BuildHasher, RandomState};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ExpandedChange, ObjType, ScalarValue};
use sha2::{Digest, Sha256};

use crate::error::{guarded_check, reason, Refusal};
use crate::graph::Graph;

const INSERT: u8 = 1;
const COUNTER: u8 = 2;
/// Deletions, and what isn't understood: nothing may refer to them.
const DEAD: u8 = 4;

const ROOT: u32 = 0;
const NO_OBJECT: u32 = u32::MAX >> 8;

/// Operations in a row with the same object and flags; alone if it is no insertion or deletion.
#[derive(Clone, Copy)]
pub struct Run {
    pub first: u32,
    /// The flags in the lowest byte, the object above.
    pub object: u32,
    /// The key's hash, or the number of the element; nothing for insertions.
    pub slot: u32,
}

#[derive(Clone, Copy)]
pub struct Made {
    pub by: u32,
    pub is_sequence: bool,
}

pub struct Operations {
    /// Number of the first operation of each change.
    bases: Vec<u32>,
    count: u32,
    runs: Vec<Run>,
    /// Objects 1, 2, ... with the operations that made them, ascending.
    objects: Vec<Made>,
    /// Of the hashes of keys: nobody can make two that are taken for one.
    secret: [u8; 16],
}

impl Default for Operations {
    fn default() -> Self {
        let random = RandomState::new();
        let halves = [random.hash_one(0), random.hash_one(1)];
        let mut secret = [0; 16];
        secret[..8].copy_from_slice(&halves[0].to_le_bytes());
        secret[8..].copy_from_slice(&halves[1].to_le_bytes());
        Self::from_parts(secret, Vec::new(), Vec::new())
    }
}

/// How long everything was; to return to.
pub struct Mark {
    changes: usize,
    count: u32,
    runs: usize,
    objects: usize,
}

/// What is known of the operations of a change.
#[derive(PartialEq)]
pub enum Verdict {
    Good,
    /// Try it out.
    Doubtful,
}

/// One operation that is referred to.
struct Target {
    number: u32,
    change: u32,
    flags: u8,
    object: u32,
    slot: u32,
}

impl Operations {
    /// From what was kept of them; changes are added by `skip`.
    pub fn from_parts(secret: [u8; 16], runs: Vec<Run>, objects: Vec<Made>) -> Self {
        Self {
            bases: Vec::new(),
            count: 0,
            runs,
            objects,
            secret,
        }
    }

    /// What is to be kept of the first changes.
    pub fn parts(&self, changes: usize) -> ([u8; 16], &[Run], &[Made]) {
        let count = self.bases.get(changes).copied().unwrap_or(self.count);
        let runs = self.runs.partition_point(|run| run.first < count);
        let objects = self.objects.partition_point(|made| made.by < count);
        (self.secret, &self.runs[..runs], &self.objects[..objects])
    }

    /// Count the operations of the next change, which are here already.
    pub fn skip(&mut self, operations: u32) -> Option<()> {
        self.bases.push(self.count);
        self.count = self.count.checked_add(operations)?;
        Some(())
    }

    pub fn size_bytes(&self) -> usize {
        4 * self.bases.capacity()
            + std::mem::size_of::<Run>() * self.runs.capacity()
            + std::mem::size_of::<Made>() * self.objects.capacity()
    }

    pub fn mark(&self) -> Mark {
        Mark {
            changes: self.bases.len(),
            count: self.count,
            runs: self.runs.len(),
            objects: self.objects.len(),
        }
    }

    pub fn return_to(&mut self, mark: &Mark) {
        self.bases.truncate(mark.changes);
        self.count = mark.count;
        self.runs.truncate(mark.runs);
        self.objects.truncate(mark.objects);
    }

    /// Add the operations of the change with the next index, which is in the graph, without
    /// looking at what they refer to.
    pub fn add(&mut self, graph: &Graph, change: &Change) -> Result<(), Refusal> {
        self.take(graph, &expanded(change)?).map(|_| ())
    }

    /// Add the operations of the change with the next index, which is in the graph.
    pub fn check(&mut self, graph: &Graph, change: &Change) -> Result<Verdict, Refusal> {
        let expanded = expanded(change)?;
        let verdict = self.take(graph, &expanded)?;
        // A change that the crate would encode otherwise gets another hash in a saved document.
        let again = guarded_check(|| Ok(Change::from(expanded)))?;
        if again.raw_bytes() == change.raw_bytes() {
            Ok(verdict)
        } else {
            Ok(Verdict::Doubtful)
        }
    }

    fn take(&mut self, graph: &Graph, change: &ExpandedChange) -> Result<Verdict, Refusal> {
        let index = self.bases.len() as u32;
        self.bases.push(self.count);
        let mut verdict = Verdict::Good;
        for operation in &change.operations {
            let context = Context {
                operations: self,
                graph,
                index,
                actor: &change.actor_id,
            };
            let (run, is_good) = context.look_at(operation)?;
            if !is_good {
                verdict = Verdict::Doubtful;
            }
            if let OpType::Make(kind) = operation.action {
                self.objects.push(Made {
                    by: self.count,
                    is_sequence: matches!(kind, ObjType::List | ObjType::Text),
                });
            }
            self.push(run);
            self.count += 1;
        }
        Ok(verdict)
    }

    fn push(&mut self, run: Run) {
        let flags = run.object as u8;
        let is_long = flags == INSERT || flags == DEAD;
        let last = self.runs.last();
        if !is_long || last.is_none_or(|last| last.object != run.object) {
            self.runs.push(run);
        }
    }

    fn hash(&self, key: &[u8]) -> u32 {
        let mut hasher = Sha256::new();
        hasher.update(self.secret);
        hasher.update(key);
        let hash = hasher.finalize();
        u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
    }

    fn target(&self, number: u32, change: u32) -> Option<Target> {
        let behind = self.runs.partition_point(|run| run.first <= number);
        let run = &self.runs[behind.checked_sub(1)?];
        let flags = run.object as u8;
        Some(Target {
            number,
            change,
            flags,
            object: run.object >> 8,
            slot: if flags & INSERT != 0 {
                number
            } else {
                run.slot
            },
        })
    }

    fn object_made_by(&self, number: u32) -> Option<(u32, bool)> {
        let place = self
            .objects
            .binary_search_by_key(&number, |made| made.by)
            .ok()?;
        let object = u32::try_from(place + 1).ok().filter(|it| *it < NO_OBJECT)?;
        Some((object, self.objects[place].is_sequence))
    }
}

fn expanded(change: &Change) -> Result<ExpandedChange, Refusal> {
    guarded_check(|| Ok(change.decode()))
}

/// Where an operation stands.
struct Context<'a> {
    operations: &'a Operations,
    graph: &'a Graph,
    /// Of its change.
    index: u32,
    actor: &'a ActorId,
}

impl Context<'_> {
    /// What to keep of it, and whether all that it refers to is as it should be.
    fn look_at(&self, operation: &Op) -> Result<(Run, bool), Refusal> {
        let number = self.operations.count;
        let (object, is_sequence) = match &operation.obj {
            ObjectId::Root => (ROOT, false),
            ObjectId::Id(id) => self
                .find(id)?
                .and_then(|target| self.operations.object_made_by(target.number))
                .ok_or_else(unknown_object)?,
        };
        let mut is_good = true;
        let slot = match &operation.key {
            Key::Map(key) => {
                is_good &= !is_sequence && !operation.insert;
                self.operations.hash(key.as_bytes())
            }
            Key::Seq(element) => {
                is_good &= is_sequence;
                let element = match element {
                    ElementId::Head => None,
                    ElementId::Id(id) => Some(self.find(id)?.ok_or_else(unknown_element)?),
                };
                is_good &= element.as_ref().map_or(operation.insert, |element| {
                    element.flags & INSERT != 0 && element.object == object
                });
                element.map_or(number, |element| element.number)
            }
        };
        for id in operation.pred.iter() {
            let before = self.find(id)?.ok_or_else(unknown_predecessor)?;
            is_good &= before.flags & DEAD == 0
                && before.object == object
                && before.slot == slot
                && !operation.insert;
            if matches!(operation.action, OpType::Increment(_)) {
                is_good &= before.flags & COUNTER != 0;
            }
        }
        let has_any = !operation.pred.is_empty();
        let mut flags = if operation.insert { INSERT } else { 0 };
        match &operation.action {
            OpType::Make(_) => {}
            OpType::Put(ScalarValue::Counter(_)) => flags |= COUNTER,
            OpType::Put(_) => {}
            OpType::Increment(_) => is_good &= has_any,
            OpType::Delete => {
                is_good &= has_any && !operation.insert;
                flags |= DEAD;
            }
            OpType::MarkBegin(_) | OpType::MarkEnd(_) => is_good = false,
        }
        let run = Run {
            first: number,
            object: object << 8 | u32::from(flags),
            slot,
        };
        Ok((run, is_good))
    }

    /// An operation before this one, in its change's past.
    fn find(&self, id: &OpId) -> Result<Option<Target>, Refusal> {
        let Some(change) = self.graph.change_with(id.actor(), id.counter()) else {
            return Ok(None);
        };
        let start = u64::from(self.graph.columns.start_ops[change as usize]);
        let number = self.operations.bases[change as usize] + (id.counter() - start) as u32;
        if number >= self.operations.count {
            return Ok(None);
        }
        // Its own actor's changes are all in its past.
        let is_past = id.actor() == self.actor || self.graph.is_past(change, self.index)?;
        Ok(self
            .operations
            .target(number, change)
            .filter(|target| is_past && target.change <= self.index))
    }
}

fn unknown_object() -> Refusal {
    let detail = "an operation in an object that is not in its past";
    Refusal::new(reason::UNKNOWN_OBJECT, detail)
}

fn unknown_element() -> Refusal {
    Refusal::malformed("an element that is not in the change's past")
}

fn unknown_predecessor() -> Refusal {
    Refusal::malformed("a predecessor that is not in the change's past")
}
