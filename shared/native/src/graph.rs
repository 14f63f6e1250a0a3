//! The graph of a document's changes, and the checks that need it (DESIGN 5; ENGINE T1, T2,
//! T11, T12).
//!
//! Every change in the graph passed them, in this order: its dependencies are in the graph, its
//! actor's previous change is an ancestor, its operations are numbered above both, and every
//! actor that it names occurs in its causal past. Changes are numbered by index, dependencies
//! below their dependents; columns by index keep it small.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use automerge::{ActorId, Change, ChangeHash};
use hashbrown::HashTable;

use crate::chains::{Chains, OutOfSteps};
use crate::error::{reason, Refusal};

/// How far an honest author's numbering may be ahead of how many operations we know: it comes from
/// those of other branches that the author holds and we don't yet. Not ahead of the highest
/// number: then a few thousand changes would use up all there are.
const MOST_OP_ID_GAP: u64 = 1 << 20;

/// Changes that no other one depends on: every message names them all.
const MOST_HEADS: usize = 4096;

/// Steps through the graph that looking for ancestors may take: a document's bytes earn them, up
/// to a bound that takes some 0.2 s. Honest changes need a few each.
pub const MOST_STEPS: u64 = 1 << 22;
const STEPS_PER_BYTE: u64 = 16;

/// Heads of a document, sorted; shared by all who name them.
pub type Heads = Arc<[ChangeHash]>;

#[derive(Clone, Default)]
pub struct Author {
    pub id: Option<ActorId>,
    /// Index of the change with sequence number i + 1.
    pub changes: Vec<u32>,
}

/// What is kept of each change, by index.
#[derive(Default)]
pub struct Columns {
    pub hashes: Vec<ChangeHash>,
    pub actors: Vec<u32>,
    pub start_ops: Vec<u32>,
    pub max_ops: Vec<u32>,
    /// Where the dependencies of each end in `edges`.
    pub edge_ends: Vec<u32>,
    pub edges: Vec<u32>,
}

impl Columns {
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    pub fn deps(&self, index: u32) -> &[u32] {
        let index = index as usize;
        let start = match index.checked_sub(1) {
            Some(before) => self.edge_ends[before] as usize,
            None => 0,
        };
        &self.edges[start..self.edge_ends[index] as usize]
    }

    fn truncate(&mut self, length: usize) {
        let edges = length.checked_sub(1).map_or(0, |last| self.edge_ends[last]);
        self.hashes.truncate(length);
        self.actors.truncate(length);
        self.start_ops.truncate(length);
        self.max_ops.truncate(length);
        self.edge_ends.truncate(length);
        self.edges.truncate(edges as usize);
    }

    fn size_bytes(&self) -> usize {
        let per_change = 32 * self.hashes.capacity()
            + 4 * (self.actors.capacity() + self.start_ops.capacity())
            + 4 * (self.max_ops.capacity() + self.edge_ends.capacity());
        per_change + 4 * self.edges.capacity()
    }
}

pub struct Graph {
    pub columns: Columns,
    index: HashTable<u32>,
    hasher: RandomState,
    pub authors: Vec<Author>,
    author_index: HashMap<ActorId, u32>,
    heads: BTreeSet<ChangeHash>,
    head_list: Heads,
    head_indices: Vec<u32>,
    chains: Chains,
    /// Operations in all changes.
    op_count: u64,
    /// How far stored changes were ahead of that when they were loaded.
    op_gap: u64,
    max_op: u64,
    steps: u64,
    is_loading: bool,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            columns: Columns::default(),
            index: HashTable::new(),
            hasher: RandomState::new(),
            authors: Vec::new(),
            author_index: HashMap::new(),
            heads: BTreeSet::new(),
            head_list: Arc::from([]),
            head_indices: Vec::new(),
            chains: Chains::default(),
            op_count: 0,
            op_gap: 0,
            max_op: 0,
            steps: MOST_STEPS,
            is_loading: false,
        }
    }
}

/// Where to return to when a later change of the same message is refused.
pub struct Mark {
    length: usize,
    heads: BTreeSet<ChangeHash>,
    op_count: u64,
    max_op: u64,
    steps: u64,
}

impl Graph {
    /// From what a sidecar has, whose numbers are all within bounds. None if it contradicts
    /// itself.
    pub fn from_columns(columns: Columns, authors: Vec<Author>) -> Option<Self> {
        let mut graph = Self {
            columns,
            authors,
            ..Self::default()
        };
        let count = u32::try_from(graph.columns.len()).ok()?;
        graph.index.reserve(count as usize, |_| 0);
        let mut is_head = vec![true; count as usize];
        for index in 0..count {
            let hash = graph.columns.hashes[index as usize];
            let Self {
                columns,
                index: table,
                hasher,
                ..
            } = &mut graph;
            let key = hasher.hash_one(hash);
            let is_known = |other: &u32| columns.hashes[*other as usize] == hash;
            if table.find(key, is_known).is_some() {
                return None;
            }
            let rehash = |other: &u32| hasher.hash_one(columns.hashes[*other as usize]);
            table.insert_unique(key, index, rehash);
            for dep in columns.deps(index) {
                is_head[*dep as usize] = false;
            }
            graph.chains.push(graph.columns.deps(index));
            let author = graph.columns.actors[index as usize] as usize;
            graph.authors[author].changes.push(index);
        }
        for (index, author) in graph.authors.iter().enumerate() {
            let id = author.id.clone().filter(|_| !author.changes.is_empty())?;
            if graph.author_index.insert(id, index as u32).is_some() {
                return None;
            }
        }
        let hashes = graph.columns.hashes.iter().zip(&is_head);
        graph.heads = hashes
            .filter(|(_, is)| **is)
            .map(|(hash, _)| *hash)
            .collect();
        graph.max_op = graph
            .columns
            .max_ops
            .iter()
            .copied()
            .max()
            .unwrap_or(0)
            .into();
        let ops = graph.columns.max_ops.iter().zip(&graph.columns.start_ops);
        graph.op_count = ops.map(|(max, start)| u64::from(max + 1 - start)).sum();
        graph.list_heads();
        Some(graph)
    }

    pub fn len(&self) -> usize {
        self.columns.len()
    }

    /// While loading, don't hold changes against bounds that depend on what came before them:
    /// what is stored was accepted, maybe in another order, and must load.
    pub fn set_loading(&mut self, is_loading: bool) {
        self.is_loading = is_loading;
        self.op_gap = self.max_op.saturating_sub(self.op_count);
    }

    pub fn find(&self, hash: &ChangeHash) -> Option<u32> {
        let is_it = |index: &u32| self.columns.hashes[*index as usize] == *hash;
        self.index.find(self.hasher.hash_one(hash), is_it).copied()
    }

    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.find(hash).is_some()
    }

    pub fn hash(&self, index: u32) -> ChangeHash {
        self.columns.hashes[index as usize]
    }

    /// Indices of those hashes that are known.
    pub fn known<'a>(&self, hashes: impl IntoIterator<Item = &'a ChangeHash>) -> Vec<u32> {
        hashes
            .into_iter()
            .filter_map(|hash| self.find(hash))
            .collect()
    }

    pub fn heads(&self) -> &Heads {
        &self.head_list
    }

    pub fn size_bytes(&self) -> usize {
        const PER_AUTHOR: usize = 160;
        let authors = self.authors.iter();
        let by_author: usize = authors.map(|author| 4 * author.changes.capacity()).sum();
        self.columns.size_bytes()
            + 5 * self.index.capacity()
            + self.chains.size_bytes()
            + by_author
            + PER_AUTHOR * self.authors.len()
    }

    /// Give back what the columns have reserved for growth.
    pub fn shrink(&mut self) {
        let columns = &mut self.columns;
        columns.hashes.shrink_to_fit();
        for column in [
            &mut columns.actors,
            &mut columns.start_ops,
            &mut columns.max_ops,
            &mut columns.edge_ends,
            &mut columns.edges,
        ] {
            column.shrink_to_fit();
        }
        for author in &mut self.authors {
            author.changes.shrink_to_fit();
        }
        self.chains.shrink();
    }

    /// Whether another change with this actor and sequence number is in the graph already.
    pub fn has_sequence(&self, change: &Change) -> bool {
        self.author_index
            .get(change.actor_id())
            .is_some_and(|author| {
                self.authors[*author as usize].changes.len() as u64 >= change.seq()
            })
    }

    /// Whether `index` is among `descendants` or their ancestors; takes from `steps`.
    pub fn is_ancestor(
        &self,
        index: u32,
        descendants: &[u32],
        steps: &mut u64,
    ) -> Result<bool, OutOfSteps> {
        self.chains.is_ancestor(index, descendants, steps)
    }

    /// Whether the change may follow on what is here. Its dependencies are all in the graph.
    pub fn check(&mut self, change: &Change) -> Result<(), Refusal> {
        if self.is_loading {
            let mut unbounded = u64::MAX;
            return self.check_within(change, &mut unbounded);
        }
        let mut steps = self.steps + STEPS_PER_BYTE * change.raw_bytes().len() as u64;
        let result = self.check_within(change, &mut steps);
        self.steps = steps.min(MOST_STEPS);
        result
    }

    fn check_within(&self, change: &Change, steps: &mut u64) -> Result<(), Refusal> {
        let deps = self.known(change.deps());
        let author = self.author_index.get(change.actor_id()).copied();
        let own = author.map_or(&[][..], |author| &self.authors[author as usize].changes);
        if own.len() as u64 >= change.seq() {
            return Err(duplicate_sequence(change));
        }
        if own.len() as u64 + 1 != change.seq() {
            return Err(Refusal::new(
                reason::SEQUENCE,
                format!("sequence number {} follows on {}", change.seq(), own.len()),
            ));
        }
        let previous = own.last().copied();
        if let Some(previous) = previous {
            if !self.chains.is_ancestor(previous, &deps, steps)? {
                return Err(Refusal::new(
                    reason::SEQUENCE,
                    "the author's previous change is not an ancestor",
                ));
            }
        }
        let joined = change.deps().iter().filter(|dep| self.heads.contains(dep));
        if !self.is_loading && self.heads.len().saturating_sub(joined.count()) >= MOST_HEADS {
            return Err(Refusal::new(
                reason::TOO_COMPLEX,
                "too many branches are not merged",
            ));
        }
        self.check_op_ids(change, &deps, previous)?;
        self.check_actors(change, &deps, author, steps)
    }

    fn check_op_ids(
        &self,
        change: &Change,
        deps: &[u32],
        previous: Option<u32>,
    ) -> Result<(), Refusal> {
        let start = change.start_op().get();
        let below = deps
            .iter()
            .chain(&previous)
            .map(|index| u64::from(self.columns.max_ops[*index as usize]))
            .max()
            .unwrap_or(0);
        if start <= below {
            let detail = format!("operations start at {start}, a dependency ends at {below}");
            return Err(Refusal::new(reason::OP_ID, detail));
        }
        // A saved document doesn't tell where an empty change starts: one above its dependencies
        // is assumed, and with anything else it never loads again.
        if change.is_empty() && start != below + 1 {
            let detail = format!("an empty change at {start}, a dependency ends at {below}");
            return Err(Refusal::new(reason::OP_ID, detail));
        }
        if !self.is_loading && start > self.op_count + self.op_gap + MOST_OP_ID_GAP {
            let detail = format!("operations start at {start}, {} are known", self.op_count);
            return Err(Refusal::new(reason::OP_ID, detail));
        }
        Ok(())
    }

    /// An actor is in the past if its first change is.
    fn check_actors(
        &self,
        change: &Change,
        deps: &[u32],
        author: Option<u32>,
        steps: &mut u64,
    ) -> Result<(), Refusal> {
        let unknown = || {
            Refusal::new(
                reason::UNKNOWN_ACTOR,
                "an actor is named that is not in the change's past",
            )
        };
        for actor in change.other_actor_ids() {
            let index = *self.author_index.get(actor).ok_or_else(unknown)?;
            if Some(index) == author {
                continue;
            }
            let first = self.authors[index as usize].changes.first();
            let first = *first.ok_or_else(unknown)?;
            if !self.chains.is_ancestor(first, deps, steps)? {
                return Err(unknown());
            }
        }
        Ok(())
    }

    /// The change that has the operation with this actor and number.
    pub fn change_with(&self, actor: &ActorId, counter: u64) -> Option<u32> {
        let counter = u32::try_from(counter).ok()?;
        let author = &self.authors[*self.author_index.get(actor)? as usize];
        let starts_before = |index: &u32| self.columns.start_ops[*index as usize] <= counter;
        let behind = author.changes.partition_point(starts_before);
        let index = author.changes[behind.checked_sub(1)?];
        (self.columns.max_ops[index as usize] >= counter).then_some(index)
    }

    /// Add a change that passed `check` since the graph last changed.
    pub fn push(&mut self, change: &Change) {
        let deps = self.known(change.deps());
        let index = self.columns.len() as u32;
        let author = match self.author_index.get(change.actor_id()) {
            Some(author) => *author,
            None => {
                let author = self.authors.len() as u32;
                self.author_index.insert(change.actor_id().clone(), author);
                self.authors.push(Author {
                    id: Some(change.actor_id().clone()),
                    ..Author::default()
                });
                author
            }
        };
        let start = change.start_op().get();
        self.chains.push(&deps);
        self.authors[author as usize].changes.push(index);
        for dep in change.deps() {
            self.heads.remove(dep);
        }
        self.heads.insert(change.hash());
        self.op_count += change.len() as u64;
        self.max_op = self.max_op.max(change.max_op());
        let columns = &mut self.columns;
        columns.hashes.push(change.hash());
        columns.actors.push(author);
        columns.start_ops.push(start as u32);
        columns.max_ops.push(change.max_op() as u32);
        columns.edges.extend(&deps);
        columns.edge_ends.push(columns.edges.len() as u32);
        let hasher = &self.hasher;
        let rehash = |other: &u32| hasher.hash_one(columns.hashes[*other as usize]);
        self.index
            .insert_unique(hasher.hash_one(change.hash()), index, rehash);
    }

    /// Make the list of heads anew, after changes were added or taken away.
    pub fn list_heads(&mut self) {
        self.head_list = self.heads.iter().copied().collect();
        self.head_indices = self.known(&self.heads);
    }

    /// Indices of the heads, in their order.
    pub fn head_indices(&self) -> &[u32] {
        &self.head_indices
    }

    pub fn mark(&self) -> Mark {
        Mark {
            length: self.columns.len(),
            heads: self.heads.clone(),
            op_count: self.op_count,
            max_op: self.max_op,
            steps: self.steps,
        }
    }

    pub fn return_to(&mut self, mark: Mark) {
        for index in (mark.length..self.columns.len()).rev() {
            let hash = self.columns.hashes[index];
            let is_it = |other: &u32| *other as usize == index;
            if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(hash), is_it) {
                entry.remove();
            }
            self.chains.pop(self.columns.deps(index as u32));
            let author = &mut self.authors[self.columns.actors[index] as usize];
            author.changes.pop();
        }
        self.columns.truncate(mark.length);
        while self
            .authors
            .last()
            .is_some_and(|author| author.changes.is_empty())
        {
            if let Some(id) = self.authors.pop().and_then(|author| author.id) {
                self.author_index.remove(&id);
            }
        }
        self.heads = mark.heads;
        self.op_count = mark.op_count;
        self.max_op = mark.max_op;
        self.steps = mark.steps;
    }
}

impl From<OutOfSteps> for Refusal {
    fn from(_: OutOfSteps) -> Self {
        Self::new(
            reason::TOO_COMPLEX,
            "too many branches lie between a change and its past",
        )
    }
}

pub fn duplicate_sequence(change: &Change) -> Refusal {
    Refusal::new(
        reason::DUPLICATE_SEQUENCE,
        format!("another change {} of the same actor is known", change.seq()),
    )
}
