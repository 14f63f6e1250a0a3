//! What each operation of a document may be referred to as, and whether new ones refer rightly.
//!
//! The graph doesn't tell: a change may name an element that isn't in its list, or a predecessor
//! under another key. The crate then panics, or keeps a document that saves and never loads
//! again, here and in every replica that is sent the change; some such changes it takes, and dies
//! of the next honest one. Opening the document would tell of the first kind only, at a cost that
//! grows with the history. So per operation 12 bytes or less are kept: its object, and its key or
//! element. What no honest client writes is refused; the little that can't be told from that is
//! doubtful, such as marks, and is tried out on the opened document.
//!
//! Operations are numbered in the order of their changes in the graph.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use automerge::legacy::{ElementId, Key, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ExpandedChange, ObjType, ScalarValue};
use sha2::{Digest, Sha256};

use crate::error::{guarded_check, reason, Refusal};
use crate::graph::{Graph, MOST_STEPS};

const INSERT: u8 = 1;
const COUNTER: u8 = 2;
/// Deletions, and what isn't understood: nothing may refer to them.
const DEAD: u8 = 4;
/// The begin or end of a mark: others may be inserted behind it, and that is all.
const MARK: u8 = 8;

const ROOT: u32 = 0;
const MOST_OBJECTS: u32 = u32::MAX >> 8;

/// Larger counters and increments are refused: their sum may leave 64 bits, where the crate
/// panics. JavaScript has none.
const MOST_COUNTED: u64 = 1 << 53;
/// Larger increments are tried out: nobody can send enough of the smaller ones.
const MOST_PLAIN_INCREMENT: u64 = 1 << 32;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Map,
    List,
    Text,
    /// Of clients long ago; the crate can't read the keys of one.
    Table,
}

impl Kind {
    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn from_number(number: u32) -> Option<Self> {
        [Self::Map, Self::List, Self::Text, Self::Table]
            .into_iter()
            .find(|kind| kind.number() == number)
    }

    fn is_sequence(self) -> bool {
        matches!(self, Self::List | Self::Text)
    }
}

impl From<ObjType> for Kind {
    fn from(kind: ObjType) -> Self {
        match kind {
            ObjType::Map => Self::Map,
            ObjType::List => Self::List,
            ObjType::Text => Self::Text,
            ObjType::Table => Self::Table,
        }
    }
}

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
    pub kind: Kind,
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

/// What is known of the operations of a change that is not refused.
#[derive(PartialEq)]
pub enum Verdict {
    Good,
    /// Try it out.
    Doubtful,
}

/// One operation that is referred to.
struct Target {
    number: u32,
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

    /// Add the operations of the change with the next index, which is in the graph, whatever they
    /// refer to: they are stored already.
    pub fn add(&mut self, graph: &Graph, change: &Change) -> Result<(), Refusal> {
        let expanded = expanded(change)?;
        let mut place = Place::of(self.begin(), &expanded);
        for operation in &expanded.operations {
            let run = self.look_at(graph, &mut place, operation);
            self.keep(operation, run.ok().map(|(run, _)| run));
        }
        Ok(())
    }

    /// Add the operations of the change with the next index, which is in the graph, if no client
    /// can come to harm by them.
    pub fn check(&mut self, graph: &Graph, change: &Change) -> Result<Verdict, Refusal> {
        let expanded = expanded(change)?;
        let mut place = Place::of(self.begin(), &expanded);
        let mut verdict = Verdict::Good;
        for operation in &expanded.operations {
            let (run, is_good) = self.look_at(graph, &mut place, operation)?;
            if !is_good {
                verdict = Verdict::Doubtful;
            }
            self.keep(operation, Some(run));
        }
        // A change that the crate would encode otherwise gets another hash in a saved document.
        let again = guarded_check(|| Ok(Change::from(expanded)))?;
        if again.raw_bytes() == change.raw_bytes() {
            Ok(verdict)
        } else {
            Ok(Verdict::Doubtful)
        }
    }

    /// Returns the index of the change that begins.
    fn begin(&mut self) -> u32 {
        self.bases.push(self.count);
        self.bases.len() as u32 - 1
    }

    /// None for an operation that can't be referred to.
    fn keep(&mut self, operation: &Op, run: Option<Run>) {
        if let OpType::Make(kind) = operation.action {
            self.objects.push(Made {
                by: self.count,
                kind: kind.into(),
            });
        }
        self.push(run.unwrap_or(Run {
            first: self.count,
            object: MOST_OBJECTS << 8 | u32::from(DEAD),
            slot: 0,
        }));
        self.count += 1;
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

    fn target(&self, number: u32) -> Option<Target> {
        let behind = self.runs.partition_point(|run| run.first <= number);
        let run = &self.runs[behind.checked_sub(1)?];
        let flags = run.object as u8;
        Some(Target {
            number,
            flags,
            object: run.object >> 8,
            slot: if flags & INSERT != 0 {
                number
            } else {
                run.slot
            },
        })
    }

    fn object_made_by(&self, number: u32) -> Option<(u32, Kind)> {
        let place = self
            .objects
            .binary_search_by_key(&number, |made| made.by)
            .ok()?;
        let object = u32::try_from(place + 1)
            .ok()
            .filter(|it| *it < MOST_OBJECTS)?;
        Some((object, self.objects[place].kind))
    }

    /// What to keep of an operation, and whether it is certainly good.
    fn look_at(
        &self,
        graph: &Graph,
        place: &mut Place<'_>,
        operation: &Op,
    ) -> Result<(Run, bool), Refusal> {
        let (object, kind) = match &operation.obj {
            ObjectId::Root => (ROOT, Kind::Map),
            ObjectId::Id(id) => self
                .find(graph, place, id)?
                .and_then(|target| self.object_made_by(target.number))
                .ok_or_else(unknown_object)?,
        };
        let mut is_good = kind != Kind::Table;
        let slot = self.slot(graph, place, operation, object, kind)?;
        let is_increment = matches!(operation.action, OpType::Increment(_));
        let mut counts = false;
        let mut last = None;
        for id in operation.pred.iter() {
            let before = self.find(graph, place, id)?;
            let before = before.ok_or_else(unknown_predecessor)?;
            let is_one = before.flags & (DEAD | MARK) == 0
                && before.object == object
                && before.slot == slot
                && last != Some(before.number);
            if !is_one {
                return Err(Refusal::malformed("a predecessor of another place"));
            }
            counts |= before.flags & COUNTER != 0;
            last = Some(before.number);
        }
        let has_any = last.is_some();
        if operation.insert && has_any || is_increment && !counts {
            return Err(Refusal::malformed(
                "an operation with the wrong predecessors",
            ));
        }
        let mut flags = if operation.insert { INSERT } else { 0 };
        match &operation.action {
            OpType::Delete if has_any => flags |= DEAD,
            OpType::Delete => return Err(Refusal::malformed("a deletion of nothing")),
            // Replicas that apply one change after the other can't replace what is in a text.
            _ if kind == Kind::Text && !operation.insert => {
                return Err(Refusal::malformed("a text is edited like a list"));
            }
            _ if kind.is_sequence() && !operation.insert && !has_any => {
                return Err(Refusal::malformed("an element without what it replaces"));
            }
            OpType::MarkBegin(_) | OpType::MarkEnd(_) => {
                if !operation.insert {
                    return Err(Refusal::malformed("a mark that is not inserted"));
                }
                flags |= MARK;
                is_good = false;
            }
            OpType::Make(made) => is_good &= *made != ObjType::Table,
            OpType::Put(ScalarValue::Counter(counter)) => {
                check_counted(i64::from(counter).unsigned_abs())?;
                flags |= COUNTER;
            }
            OpType::Put(ScalarValue::Unknown { .. }) => is_good = false,
            OpType::Put(_) => {}
            OpType::Increment(by) => {
                check_counted(by.unsigned_abs())?;
                is_good &= by.unsigned_abs() <= MOST_PLAIN_INCREMENT;
            }
        }
        let run = Run {
            first: self.count,
            object: object << 8 | u32::from(flags),
            slot,
        };
        Ok((run, is_good))
    }

    /// What it is about in its object: a key, or an element.
    fn slot(
        &self,
        graph: &Graph,
        place: &mut Place<'_>,
        operation: &Op,
        object: u32,
        kind: Kind,
    ) -> Result<u32, Refusal> {
        let misplaced = || Refusal::malformed("an operation in an object of another kind");
        match &operation.key {
            Key::Map(_) if kind.is_sequence() || operation.insert => Err(misplaced()),
            Key::Map(key) => Ok(self.hash(key.as_bytes())),
            Key::Seq(_) if !kind.is_sequence() => Err(misplaced()),
            Key::Seq(ElementId::Head) if operation.insert => Ok(self.count),
            Key::Seq(ElementId::Head) => Err(misplaced()),
            Key::Seq(ElementId::Id(id)) => {
                let element = self.find(graph, place, id)?;
                let element = element.ok_or_else(unknown_element)?;
                let is_one = element.flags & INSERT != 0 && element.object == object;
                if !is_one || (!operation.insert && element.flags & MARK != 0) {
                    return Err(unknown_element());
                }
                Ok(element.number)
            }
        }
    }

    /// An operation before the next one, in its change's past.
    fn find(
        &self,
        graph: &Graph,
        place: &mut Place<'_>,
        id: &OpId,
    ) -> Result<Option<Target>, Refusal> {
        let Some(change) = graph.change_with(id.actor(), id.counter()) else {
            return Ok(None);
        };
        let Some(base) = self.bases.get(change as usize) else {
            return Ok(None);
        };
        let start = u64::from(graph.columns.start_ops[change as usize]);
        let number = base + (id.counter() - start) as u32;
        if number >= self.count || !place.has_past(graph, id.actor(), change)? {
            return Ok(None);
        }
        Ok(self.target(number))
    }
}

fn expanded(change: &Change) -> Result<ExpandedChange, Refusal> {
    guarded_check(|| Ok(change.decode()))
}

/// The change that is looked at, and what is known of its past.
struct Place<'a> {
    index: u32,
    actor: &'a ActorId,
    past: HashMap<u32, bool>,
    steps: u64,
}

impl<'a> Place<'a> {
    fn of(index: u32, change: &'a ExpandedChange) -> Self {
        Self {
            index,
            actor: &change.actor_id,
            past: HashMap::new(),
            steps: MOST_STEPS,
        }
    }

    fn has_past(&mut self, graph: &Graph, actor: &ActorId, change: u32) -> Result<bool, Refusal> {
        // Its own actor's changes are all in its past.
        if actor == self.actor {
            return Ok(change <= self.index);
        }
        if let Some(known) = self.past.get(&change) {
            return Ok(*known);
        }
        let is_past = graph.is_ancestor(change, &[self.index], &mut self.steps)?;
        self.past.insert(change, is_past);
        Ok(is_past)
    }
}

fn check_counted(number: u64) -> Result<(), Refusal> {
    if number <= MOST_COUNTED {
        return Ok(());
    }
    Err(Refusal::malformed(format!("a counter of {number}")))
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
