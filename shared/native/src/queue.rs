//! Changes that wait for a dependency, and the hashes of changes that were refused.
//!
//! Bounded in number and bytes: the oldest goes first, and is asked for again when a peer's heads
//! lead to it. What was loaded is kept whatever its size, until the next message comes.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use automerge::{Change, ChangeHash};

use crate::chunk::CheckedChange;
use crate::graph::Graph;

const MOST_CHANGES: usize = 10_000;
const MOST_REFUSED: usize = 1024;
/// Dependencies of a refused change that are remembered, to ask for what lies below it.
const MOST_REFUSED_DEPS: usize = 64;
/// Changes that are asked for at once; the others when these are there.
const MOST_MISSING: usize = 1024;

/// A change and the peer that sent it; None from storage or the application.
#[derive(Clone)]
pub struct Arrival {
    pub checked: CheckedChange,
    pub peer: Option<i64>,
}

impl Arrival {
    pub fn hash(&self) -> ChangeHash {
        self.checked.change.hash()
    }

    fn bytes(&self) -> usize {
        self.checked.change.raw_bytes().len()
    }
}

struct Waiting {
    number: u64,
    arrival: Arrival,
    /// Dependencies that are not in the graph.
    missing: usize,
}

pub struct Queue {
    most_bytes: usize,
    waiting: HashMap<ChangeHash, Waiting>,
    order: BTreeMap<u64, ChangeHash>,
    /// Queued changes by each of their dependencies.
    dependents: HashMap<ChangeHash, HashSet<ChangeHash>>,
    bytes: usize,
    next: u64,
    refused: HashMap<ChangeHash, Vec<ChangeHash>>,
    refused_order: VecDeque<ChangeHash>,
}

impl Queue {
    pub fn new(most_bytes: usize) -> Self {
        Self {
            most_bytes,
            waiting: HashMap::new(),
            order: BTreeMap::new(),
            dependents: HashMap::new(),
            bytes: 0,
            next: 0,
            refused: HashMap::new(),
            refused_order: VecDeque::new(),
        }
    }

    /// Raw chunks, oldest first.
    pub fn chunks(&self) -> Vec<Vec<u8>> {
        self.order
            .values()
            .filter_map(|hash| self.waiting.get(hash))
            .map(|waiting| waiting.arrival.checked.change.raw_bytes().to_vec())
            .collect()
    }

    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn contains(&self, hash: &ChangeHash) -> bool {
        self.waiting.contains_key(hash)
    }

    pub fn insert(&mut self, arrival: Arrival, graph: &Graph) {
        let hash = arrival.hash();
        for dep in arrival.checked.change.deps() {
            self.dependents.entry(*dep).or_default().insert(hash);
        }
        self.bytes += arrival.bytes();
        self.order.insert(self.next, hash);
        let waiting = Waiting {
            number: self.next,
            missing: missing_deps(&arrival, graph),
            arrival,
        };
        self.waiting.insert(hash, waiting);
        self.next += 1;
    }

    /// Count again what is missing, after changes were taken out of the graph.
    pub fn recount(&mut self, graph: &Graph) {
        for waiting in self.waiting.values_mut() {
            waiting.missing = missing_deps(&waiting.arrival, graph);
        }
    }

    pub fn remove(&mut self, hash: &ChangeHash) -> Option<Arrival> {
        let Waiting {
            number, arrival, ..
        } = self.waiting.remove(hash)?;
        self.order.remove(&number);
        self.bytes -= arrival.bytes();
        for dep in arrival.checked.change.deps() {
            if let Some(dependents) = self.dependents.get_mut(dep) {
                dependents.remove(hash);
                if dependents.is_empty() {
                    self.dependents.remove(dep);
                }
            }
        }
        Some(arrival)
    }

    /// Nobody is to blame for what is queued.
    pub fn forget_peers(&mut self) {
        self.waiting
            .values_mut()
            .for_each(|waiting| waiting.arrival.peer = None);
    }

    /// Drop the oldest until the bounds hold.
    pub fn trim(&mut self) {
        while self.waiting.len() > MOST_CHANGES || self.bytes > self.most_bytes {
            let Some(oldest) = self.order.first_key_value().map(|(_, hash)| *hash) else {
                return;
            };
            self.remove(&oldest);
        }
    }

    /// Take out the changes for which `dep`, new in the graph, was the last one missing, oldest
    /// first.
    pub fn take_ready(&mut self, dep: &ChangeHash) -> Vec<Arrival> {
        let Some(dependents) = self.dependents.get(dep) else {
            return Vec::new();
        };
        let mut ready = Vec::new();
        for hash in dependents {
            if let Some(waiting) = self.waiting.get_mut(hash) {
                waiting.missing = waiting.missing.saturating_sub(1);
                if waiting.missing == 0 {
                    ready.push((waiting.number, *hash));
                }
            }
        }
        ready.sort_unstable();
        let ready = ready.iter();
        ready.filter_map(|(_, hash)| self.remove(hash)).collect()
    }

    pub fn refuse(&mut self, change: &Change) {
        let hash = change.hash();
        let deps = change.deps();
        let deps = deps[..deps.len().min(MOST_REFUSED_DEPS)].to_vec();
        if self.refused.insert(hash, deps).is_none() {
            self.refused_order.push_back(hash);
        }
        if self.refused_order.len() > MOST_REFUSED {
            if let Some(oldest) = self.refused_order.pop_front() {
                self.refused.remove(&oldest);
            }
        }
    }

    /// What to ask for to reach `heads`: never what is queued or refused, but what is missing
    /// below (ENGINE T5). The flag says that a refused change lies on the way.
    pub fn missing(&self, heads: &[ChangeHash], graph: &Graph) -> (Vec<ChangeHash>, bool) {
        let mut missing = Vec::new();
        let mut met_refused = false;
        let mut seen = HashSet::new();
        let mut open = heads.to_vec();
        while let Some(hash) = open.pop() {
            if graph.contains(&hash) || !seen.insert(hash) {
                continue;
            }
            if let Some(waiting) = self.waiting.get(&hash) {
                open.extend(waiting.arrival.checked.change.deps());
            } else if let Some(deps) = self.refused.get(&hash) {
                met_refused = true;
                open.extend(deps);
            } else {
                missing.push(hash);
            }
        }
        missing.sort_unstable();
        missing.truncate(MOST_MISSING);
        (missing, met_refused)
    }
}

/// Whether every dependency is in the graph.
pub fn is_settled(arrival: &Arrival, graph: &Graph) -> bool {
    let mut deps = arrival.checked.change.deps().iter();
    deps.all(|dep| graph.contains(dep))
}

fn missing_deps(arrival: &Arrival, graph: &Graph) -> usize {
    let deps: HashSet<&ChangeHash> = arrival.checked.change.deps().iter().collect();
    deps.iter().filter(|dep| !graph.contains(dep)).count()
}
