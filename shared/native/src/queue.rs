//! Changes that wait for a dependency, and the hashes of changes that were refused.
//!
//! Bounded in number and bytes, except for what was loaded, until the next message comes: the oldest goes first, and is asked for again when a peer's
//! heads lead to it.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use automerge::ChangeHash;

use crate::chunk::CheckedChange;
use crate::graph::Graph;

const MOST_CHANGES: usize = 10_000;
const MOST_REFUSED: usize = 1024;

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

pub struct Queue {
    most_bytes: usize,
    waiting: HashMap<ChangeHash, (u64, Arrival)>,
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
            .map(|(_, arrival)| arrival.checked.change.raw_bytes().to_vec())
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

    pub fn insert(&mut self, arrival: Arrival) {
        let hash = arrival.hash();
        for dep in arrival.checked.change.deps() {
            self.dependents.entry(*dep).or_default().insert(hash);
        }
        self.bytes += arrival.bytes();
        self.order.insert(self.next, hash);
        self.waiting.insert(hash, (self.next, arrival));
        self.next += 1;
    }

    pub fn remove(&mut self, hash: &ChangeHash) -> Option<Arrival> {
        let (number, arrival) = self.waiting.remove(hash)?;
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
            .for_each(|(_, arrival)| arrival.peer = None);
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

    /// Take out the changes for which `dep` was the last one missing, oldest first.
    pub fn take_ready(&mut self, dep: &ChangeHash, graph: &Graph) -> Vec<Arrival> {
        let Some(dependents) = self.dependents.get(dep) else {
            return Vec::new();
        };
        let mut ready: Vec<(u64, ChangeHash)> = dependents
            .iter()
            .filter_map(|hash| self.waiting.get(hash))
            .filter(|(_, arrival)| is_settled(arrival, graph))
            .map(|(number, arrival)| (*number, arrival.hash()))
            .collect();
        ready.sort_unstable();
        ready
            .iter()
            .filter_map(|(_, hash)| self.remove(hash))
            .collect()
    }

    pub fn refuse(&mut self, arrival: &Arrival) {
        let hash = arrival.hash();
        let deps = arrival.checked.change.deps().to_vec();
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
            if let Some((_, arrival)) = self.waiting.get(&hash) {
                open.extend(arrival.checked.change.deps());
            } else if let Some(deps) = self.refused.get(&hash) {
                met_refused = true;
                open.extend(deps);
            } else {
                missing.push(hash);
            }
        }
        missing.sort_unstable();
        (missing, met_refused)
    }
}

/// Whether every dependency is in the graph.
pub fn is_settled(arrival: &Arrival, graph: &Graph) -> bool {
    arrival
        .checked
        .change
        .deps()
        .iter()
        .all(|dep| graph.contains(dep))
}
