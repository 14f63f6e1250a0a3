//! The graph of a document's changes, and the checks that need it (DESIGN 5; ENGINE T1, T2,
//! T11, T12).
//!
//! Every change in the graph passed them, in this order: its dependencies are in the graph, its
//! actor's previous change is an ancestor, its operations are numbered above both, and every
//! actor that it names occurs in its causal past.

use std::collections::{BTreeSet, HashMap};

use automerge::{ActorId, Change, ChangeHash};

use crate::chains::{Chains, OutOfSteps};
use crate::error::{reason, Refusal};

/// How far an honest author's numbering may be ahead of all that we know: it comes from
/// operations of other branches that the author holds and we don't yet.
const MOST_OP_ID_GAP: u64 = 1 << 20;

/// Steps through the graph that looking for ancestors may take: a document's bytes earn them, up
/// to a bound that takes some 0.2 s. Honest changes need a few each.
const MOST_STEPS: u64 = 1 << 22;
const STEPS_PER_BYTE: u64 = 16;

struct Node {
    hash: ChangeHash,
    actor: u32,
    max_op: u32,
    deps: Box<[u32]>,
}

#[derive(Default)]
struct Author {
    id: Option<ActorId>,
    /// Index of the change with sequence number i + 1.
    changes: Vec<u32>,
}

pub struct Graph {
    nodes: Vec<Node>,
    index: HashMap<ChangeHash, u32>,
    authors: Vec<Author>,
    author_index: HashMap<ActorId, u32>,
    heads: BTreeSet<ChangeHash>,
    chains: Chains,
    max_op: u64,
    steps: u64,
    is_loading: bool,
}

impl Default for Graph {
    fn default() -> Self {
        Self {
            nodes: Vec::new(),
            index: HashMap::new(),
            authors: Vec::new(),
            author_index: HashMap::new(),
            heads: BTreeSet::new(),
            chains: Chains::default(),
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
    max_op: u64,
    steps: u64,
}

impl Graph {
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// While loading, don't hold changes against bounds that depend on what came before them:
    /// what is stored was accepted, maybe in another order, and must load.
    pub fn set_loading(&mut self, is_loading: bool) {
        self.is_loading = is_loading;
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
        if let Some(previous) = previous {
            if !self.chains.is_ancestor(previous, &deps, steps)? {
                return Err(Refusal::new(
                    reason::SEQUENCE,
                    "the author's previous change is not an ancestor",
                ));
            }
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
        if !self.is_loading && start > self.max_op + MOST_OP_ID_GAP {
            let detail = format!(
                "operations start at {start}, all known end at {}",
                self.max_op
            );
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
        self.chains.push(&deps);
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
            deps: deps.into_boxed_slice(),
        });
    }

    pub fn mark(&self) -> Mark {
        Mark {
            length: self.nodes.len(),
            heads: self.heads.clone(),
            max_op: self.max_op,
            steps: self.steps,
        }
    }

    pub fn return_to(&mut self, mark: Mark) {
        for node in self.nodes.drain(mark.length..).rev() {
            self.index.remove(&node.hash);
            self.chains.pop(&node.deps);
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
        self.steps = mark.steps;
    }

    fn dep_indices(&self, change: &Change) -> Vec<u32> {
        change
            .deps()
            .iter()
            .filter_map(|dep| self.index.get(dep).copied())
            .collect()
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
