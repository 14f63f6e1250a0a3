//! The graph of a document's changes, and the checks that need it (DESIGN 5; ENGINE T1, T2,
//! T11, T12).
//!
//! Every change in the graph passed them, in this order: its dependencies are in the graph, its
//! actor's previous change is an ancestor, its operations are numbered above both, and every
//! actor that it names occurs in its causal past.

use std::collections::{BTreeSet, HashMap, HashSet};

use automerge::{ActorId, Change, ChangeHash};

use crate::actor_sets::{ActorSets, SetId};
use crate::error::{reason, Refusal};

/// How far an honest author's numbering may be ahead of all that we know: it comes from
/// operations of other branches that the author holds and we don't yet.
const MOST_OP_ID_GAP: u64 = 1 << 20;

struct Node {
    hash: ChangeHash,
    actor: u32,
    max_op: u32,
    actors: SetId,
    deps: Box<[u32]>,
}

#[derive(Default)]
struct Author {
    id: Option<ActorId>,
    /// Index of the change with sequence number i + 1.
    changes: Vec<u32>,
}

#[derive(Default)]
pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<ChangeHash, u32>,
    authors: Vec<Author>,
    author_index: HashMap<ActorId, u32>,
    heads: BTreeSet<ChangeHash>,
    sets: ActorSets,
    max_op: u64,
}

/// Where to return to when a later change of the same message is refused.
pub struct Mark {
    length: usize,
    heads: BTreeSet<ChangeHash>,
    max_op: u64,
}

impl Graph {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn max_op(&self) -> u64 {
        self.max_op
    }

    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.index.contains_key(hash)
    }

    pub fn heads(&self) -> Vec<ChangeHash> {
        self.heads.iter().copied().collect()
    }

    /// Whether another change with this actor and sequence number is in the graph already.
    pub fn has_sequence(&self, change: &Change) -> bool {
        self.author_index
            .get(change.actor_id())
            .is_some_and(|author| {
                self.authors[*author as usize].changes.len() as u64 >= change.seq()
            })
    }

    /// Whether the change may follow on what is here. Its dependencies are all in the graph.
    pub fn check(&self, change: &Change) -> Result<(), Refusal> {
        let deps = self.dep_indices(change);
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
        if previous.is_some_and(|previous| !self.is_ancestor(previous, &deps)) {
            return Err(Refusal::new(
                reason::SEQUENCE,
                "the author's previous change is not an ancestor",
            ));
        }
        self.check_op_ids(change, &deps, previous)?;
        self.check_actors(change, &deps, author)
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
            .map(|node| u64::from(self.nodes[*node as usize].max_op))
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
        if start > self.max_op + MOST_OP_ID_GAP {
            let detail = format!(
                "operations start at {start}, all known end at {}",
                self.max_op
            );
            return Err(Refusal::new(reason::OP_ID, detail));
        }
        Ok(())
    }

    fn check_actors(
        &self,
        change: &Change,
        deps: &[u32],
        author: Option<u32>,
    ) -> Result<(), Refusal> {
        let unknown = || {
            Refusal::new(
                reason::UNKNOWN_ACTOR,
                "an actor is named that is not in the change's past",
            )
        };
        let mut wanted = HashSet::new();
        for actor in change.other_actor_ids() {
            let index = *self.author_index.get(actor).ok_or_else(unknown)?;
            if Some(index) != author {
                wanted.insert(index);
            }
        }
        if deps.iter().any(|dep| {
            self.sets
                .contains_all(self.nodes[*dep as usize].actors, &mut wanted)
        }) || wanted.is_empty()
        {
            return Ok(());
        }
        Err(unknown())
    }

    /// Add a change that passed `check` since the graph last changed.
    pub fn push(&mut self, change: &Change) {
        let deps = self.dep_indices(change);
        let node = self.nodes.len() as u32;
        let author = match self.author_index.get(change.actor_id()) {
            Some(author) => *author,
            None => {
                let author = self.authors.len() as u32;
                self.author_index.insert(change.actor_id().clone(), author);
                self.authors.push(Author {
                    id: Some(change.actor_id().clone()),
                    changes: Vec::new(),
                });
                author
            }
        };
        let mut actors = deps.iter().fold(0, |set, dep| {
            let other = self.nodes[*dep as usize].actors;
            self.sets.union(set, other)
        });
        if self.authors[author as usize].changes.is_empty() {
            actors = self.sets.grow(actors, author);
        }
        self.authors[author as usize].changes.push(node);
        for dep in change.deps() {
            self.heads.remove(dep);
        }
        self.heads.insert(change.hash());
        self.index.insert(change.hash(), node);
        self.max_op = self.max_op.max(change.max_op());
        self.nodes.push(Node {
            hash: change.hash(),
            actor: author,
            max_op: change.max_op() as u32,
            actors,
            deps: deps.into_boxed_slice(),
        });
    }

    pub fn mark(&self) -> Mark {
        Mark {
            length: self.nodes.len(),
            heads: self.heads.clone(),
            max_op: self.max_op,
        }
    }

    pub fn return_to(&mut self, mark: Mark) {
        for node in self.nodes.drain(mark.length..).rev() {
            self.index.remove(&node.hash);
            let author = &mut self.authors[node.actor as usize];
            author.changes.pop();
        }
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
        self.max_op = mark.max_op;
    }

    fn dep_indices(&self, change: &Change) -> Vec<u32> {
        change
            .deps()
            .iter()
            .filter_map(|dep| self.index.get(dep).copied())
            .collect()
    }

    /// Walks from the newest down and never below `node`: dependencies have lower indices.
    fn is_ancestor(&self, node: u32, descendants: &[u32]) -> bool {
        if descendants.contains(&node) {
            return true;
        }
        let mut seen = HashSet::new();
        let mut open: Vec<u32> = descendants.to_vec();
        while let Some(next) = open.pop() {
            if next == node {
                return true;
            }
            if next > node && seen.insert(next) {
                open.extend(self.nodes[next as usize].deps.iter());
            }
        }
        false
    }
}

pub fn duplicate_sequence(change: &Change) -> Refusal {
    Refusal::new(
        reason::DUPLICATE_SEQUENCE,
        format!("another change {} of the same actor is known", change.seq()),
    )
}
