//! Which changes a peer was sent and has not acknowledged.
//!
//! A whole document is not kept as a set of its changes (ENGINE T9): its heads then, without what
//! was acknowledged since, say the same.

use std::sync::Arc;

use automerge::ChangeHash;

use crate::graph::Graph;
use crate::walk::difference;

/// So many changes are kept as a set at most, and looked up one by one.
const FEW: usize = 32;
/// More steps through the graph for all of them, and the walk is cheaper.
const FEW_STEPS: u64 = 4096;
const MOST_EXCEPT: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sent {
    whole: Option<Arc<Whole>>,
    /// Indices, ascending.
    some: Arc<[u32]>,
}

/// All ancestors of `upto` that are none of `except`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Whole {
    upto: Vec<u32>,
    except: Vec<u32>,
}

impl Whole {
    fn members(&self, graph: &Graph) -> Vec<u32> {
        difference(graph, &self.upto, &self.except)
    }
}

impl Sent {
    pub fn is_empty(&self) -> bool {
        self.whole.is_none() && self.some.is_empty()
    }

    /// Note that these were sent.
    pub fn add(&mut self, graph: &Graph, indices: Vec<u32>) {
        if indices.is_empty() {
            return;
        }
        if indices.len() == graph.len() {
            self.whole = Some(Arc::new(Whole {
                upto: graph.head_indices().to_vec(),
                except: Vec::new(),
            }));
            self.some = Arc::from([]);
            return;
        }
        self.some = union(&self.some, &indices).into();
    }

    /// Note that the peer has these and all their ancestors.
    pub fn forget(&mut self, graph: &Graph, heads: &[u32]) {
        if heads.is_empty() {
            return;
        }
        if !self.some.is_empty() {
            self.some = without_ancestors(graph, &self.some, heads).into();
        }
        let Some(whole) = &self.whole else { return };
        let mut except = whole.except.clone();
        except.extend(heads);
        except.sort_unstable();
        except.dedup();
        let whole = Whole {
            upto: whole.upto.clone(),
            except,
        };
        let rest = whole.members(graph);
        if rest.len() <= FEW || whole.except.len() > MOST_EXCEPT {
            self.some = union(&self.some, &rest).into();
            self.whole = None;
        } else {
            self.whole = Some(Arc::new(whole));
        }
    }

    /// Those of ascending `indices` that were not sent.
    pub fn removed_from(&self, graph: &Graph, mut indices: Vec<u32>) -> Vec<u32> {
        if indices.is_empty() {
            return indices;
        }
        if !self.some.is_empty() {
            subtract(&mut indices, &self.some);
        }
        if let Some(whole) = &self.whole {
            subtract(&mut indices, &whole.members(graph));
        }
        indices
    }

    /// All of them, for the tests.
    pub fn hashes(&self, graph: &Graph) -> Vec<ChangeHash> {
        let whole = self.whole.as_ref();
        let members = whole.map_or_else(Vec::new, |whole| whole.members(graph));
        let all = union(&self.some, &members);
        let mut hashes: Vec<ChangeHash> = all.iter().map(|index| graph.hash(*index)).collect();
        hashes.sort_unstable();
        hashes
    }
}

fn without_ancestors(graph: &Graph, indices: &[u32], heads: &[u32]) -> Vec<u32> {
    if indices.len() <= FEW {
        let mut steps = FEW_STEPS;
        let mut found = Vec::new();
        let is_told = indices.iter().all(|index| {
            let is_known = graph.is_ancestor(*index, heads, &mut steps);
            if is_known.as_ref().is_ok_and(|known| !known) {
                found.push(*index);
            }
            is_known.is_ok()
        });
        if is_told {
            return found;
        }
    }
    let rest = difference(graph, indices, heads);
    let is_left = |index: &&u32| rest.binary_search(index).is_ok();
    indices.iter().filter(is_left).copied().collect()
}

fn union(left: &[u32], right: &[u32]) -> Vec<u32> {
    let mut all = [left, right].concat();
    all.sort_unstable();
    all.dedup();
    all
}

/// Both ascending.
fn subtract(indices: &mut Vec<u32>, gone: &[u32]) {
    let mut gone = gone.iter().copied().peekable();
    indices.retain(|index| {
        while gone.next_if(|other| other < index).is_some() {}
        gone.peek() != Some(index)
    });
}
