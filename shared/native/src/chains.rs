//! Who is an ancestor of whom, at a cost that doesn't grow with the history.
//!
//! Changes are laid out in chains: a change goes behind one of its dependencies if that is the
//! last of its chain, else it starts a chain. Within a chain a later change descends from every
//! earlier one, so a linear history is one chain whoever its authors are. Only edges between
//! chains are searched, from both ends in turn; a graph made to be searched for long runs out of
//! steps (`test_many_authors_who_come_back_*`, `test_graph_made_to_be_searched_*`).

use std::collections::{BTreeSet, HashMap};

struct Chain {
    last: u32,
    /// Edges (change of this chain, its dependency in another one), in ascending order.
    inward: Vec<(u32, u32)>,
    /// Edges (change of this chain, the change of another one that depends on it).
    outward: BTreeSet<(u32, u32)>,
}

/// Changes are numbered from 0, dependencies below their dependents.
#[derive(Default)]
pub struct Chains {
    chain_of: Vec<u32>,
    chains: Vec<Chain>,
}

/// The steps were spent before an answer was found.
#[derive(Debug)]
pub struct OutOfSteps;

impl Chains {
    /// Add the next change.
    pub fn push(&mut self, deps: &[u32]) {
        let change = self.chain_of.len() as u32;
        let behind = deps
            .iter()
            .filter(|dep| self.chain(**dep).last == **dep)
            .map(|dep| self.chain_of[*dep as usize])
            .min();
        let own = behind.unwrap_or(self.chains.len() as u32);
        if behind.is_none() {
            self.chains.push(Chain {
                last: change,
                inward: Vec::new(),
                outward: BTreeSet::new(),
            });
        }
        self.chain_of.push(own);
        self.chains[own as usize].last = change;
        for dep in deps {
            let other = self.chain_of[*dep as usize];
            if other != own {
                self.chains[own as usize].inward.push((change, *dep));
                self.chains[other as usize].outward.insert((*dep, change));
            }
        }
    }

    /// Take the last change away again; `deps` are those that it was added with.
    pub fn pop(&mut self, deps: &[u32]) {
        let Some(own) = self.chain_of.pop() else {
            return;
        };
        let change = self.chain_of.len() as u32;
        let mut before = None;
        for dep in deps {
            let other = self.chain_of[*dep as usize];
            if other == own {
                before = before.max(Some(*dep));
            } else {
                self.chains[other as usize].outward.remove(&(*dep, change));
            }
        }
        match before {
            Some(before) => {
                let chain = &mut self.chains[own as usize];
                chain.last = before;
                chain.inward.retain(|(from, _)| *from != change);
            }
            None => {
                self.chains.pop();
            }
        }
    }

    /// Whether `change` is among `descendants` or their ancestors; takes from `steps`.
    pub fn is_ancestor(
        &self,
        change: u32,
        descendants: &[u32],
        steps: &mut u64,
    ) -> Result<bool, OutOfSteps> {
        let chain = self.chain_of[change as usize];
        let is_behind = |other: &u32| *other >= change && self.chain_of[*other as usize] == chain;
        if descendants.iter().any(is_behind) {
            return Ok(true);
        }
        let highest = descendants.iter().copied().max().unwrap_or(0);
        let mut search = Search {
            chains: self,
            lowest: change,
            highest,
            tops: HashMap::new(),
            bottoms: HashMap::new(),
            down: Vec::new(),
            up: Vec::new(),
        };
        search.enter_up(change);
        for descendant in descendants {
            spend(steps)?;
            if search.enter_down(*descendant) {
                return Ok(true);
            }
        }
        search.run(steps)
    }

    pub fn size_bytes(&self) -> usize {
        const PER_OUTWARD: usize = 16;
        let edges: usize = self
            .chains
            .iter()
            .map(|chain| 8 * chain.inward.capacity() + PER_OUTWARD * chain.outward.len())
            .sum();
        let chains = self.chains.capacity() * std::mem::size_of::<Chain>();
        4 * self.chain_of.capacity() + chains + edges
    }

    /// Give back what is reserved for growth.
    pub fn shrink(&mut self) {
        self.chain_of.shrink_to_fit();
        self.chains.shrink_to_fit();
    }

    fn chain(&self, change: u32) -> &Chain {
        &self.chains[self.chain_of[change as usize] as usize]
    }
}

fn spend(steps: &mut u64) -> Result<(), OutOfSteps> {
    *steps = steps.checked_sub(1).ok_or(OutOfSteps)?;
    Ok(())
}

/// Edges of a chain not followed yet: a part of `Chain::inward`.
struct Down {
    chain: u32,
    from: usize,
    to: usize,
}

/// Edges of a chain not followed yet: a range of `Chain::outward`, and where it ends.
struct Up {
    chain: u32,
    from: (u32, u32),
    end: u32,
}

/// From the descendants down and from the ancestor up, until both meet in a chain or one of them
/// has nowhere to go.
struct Search<'a> {
    chains: &'a Chains,
    lowest: u32,
    highest: u32,
    /// The highest ancestor of the descendants that was reached, by chain.
    tops: HashMap<u32, u32>,
    /// The lowest descendant of the ancestor that was reached, by chain.
    bottoms: HashMap<u32, u32>,
    down: Vec<Down>,
    up: Vec<Up>,
}

impl Search<'_> {
    fn run(&mut self, steps: &mut u64) -> Result<bool, OutOfSteps> {
        loop {
            spend(steps)?;
            match (self.step_down(), self.step_up()) {
                (Some(true), _) | (_, Some(true)) => return Ok(true),
                (None, _) | (_, None) => return Ok(false),
                _ => {}
            }
        }
    }

    /// Returns whether the two sides met.
    fn enter_down(&mut self, change: u32) -> bool {
        if change < self.lowest {
            return false;
        }
        let chain = self.chains.chain_of[change as usize];
        if self.bottoms.get(&chain).is_some_and(|low| *low <= change) {
            return true;
        }
        let known = self.tops.get(&chain).copied();
        if known.is_some_and(|top| top >= change) {
            return false;
        }
        self.tops.insert(chain, change);
        let floor = known.map_or(self.lowest, |top| top.max(self.lowest));
        let inward = &self.chains.chains[chain as usize].inward;
        self.down.push(Down {
            chain,
            from: inward.partition_point(|(change, _)| *change <= floor),
            to: inward.partition_point(|(other, _)| *other <= change),
        });
        false
    }

    /// Returns whether the two sides met.
    fn enter_up(&mut self, change: u32) -> bool {
        if change > self.highest {
            return false;
        }
        let chain = self.chains.chain_of[change as usize];
        if self.tops.get(&chain).is_some_and(|top| *top >= change) {
            return true;
        }
        let known = self.bottoms.get(&chain).copied();
        if known.is_some_and(|bottom| bottom <= change) {
            return false;
        }
        self.bottoms.insert(chain, change);
        self.up.push(Up {
            chain,
            from: (change, 0),
            end: known.unwrap_or(u32::MAX),
        });
        false
    }

    /// Follow one edge, the newest first; None when there is none left.
    fn step_down(&mut self) -> Option<bool> {
        let part = self.down.last_mut()?;
        if part.from >= part.to {
            self.down.pop();
            return Some(false);
        }
        part.to -= 1;
        let (_, dep) = self.chains.chains[part.chain as usize].inward[part.to];
        Some(self.enter_down(dep))
    }

    /// Follow one edge, the oldest first; None when there is none left.
    fn step_up(&mut self) -> Option<bool> {
        let part = self.up.last_mut()?;
        let outward = &self.chains.chains[part.chain as usize].outward;
        let Some((change, child)) = outward.range(part.from..(part.end, 0)).next() else {
            self.up.pop();
            return Some(false);
        };
        part.from = (*change, child + 1);
        Some(self.enter_up(*child))
    }
}
