//! Sets of actors, shared: which actors occur in a change's causal past.
//!
//! A set is another set and one actor more, so a history of n actors costs 8 n bytes and a
//! merge costs the smaller difference. Equal sets may have different ids.

use std::collections::{HashMap, HashSet};

/// Id of a set; 0 is empty.
pub type SetId = u32;

/// The memo of unions is dropped beyond this, for a document with very many merges.
const MOST_MEMOS: usize = 1 << 16;

struct Link {
    parent: SetId,
    actor: u32,
    size: u32,
}

pub struct ActorSets {
    links: Vec<Link>,
    grown: HashMap<(SetId, u32), SetId>,
    unions: HashMap<(SetId, SetId), SetId>,
}

impl Default for ActorSets {
    fn default() -> Self {
        Self {
            links: vec![Link {
                parent: 0,
                actor: u32::MAX,
                size: 0,
            }],
            grown: HashMap::new(),
            unions: HashMap::new(),
        }
    }
}

impl ActorSets {
    /// The set and one actor more, which the caller knows is not in it.
    pub fn grow(&mut self, set: SetId, actor: u32) -> SetId {
        if let Some(known) = self.grown.get(&(set, actor)) {
            return *known;
        }
        let id = self.links.len() as SetId;
        let size = self.size(set) + 1;
        self.links.push(Link {
            parent: set,
            actor,
            size,
        });
        self.grown.insert((set, actor), id);
        id
    }

    pub fn union(&mut self, one: SetId, two: SetId) -> SetId {
        if one == two || two == 0 {
            return one;
        }
        if one == 0 {
            return two;
        }
        let (small, large) = if self.size(one) <= self.size(two) {
            (one, two)
        } else {
            (two, one)
        };
        if let Some(known) = self.unions.get(&(small, large)) {
            return *known;
        }
        let (mut left, mut right) = (small, large);
        let mut missing = Vec::new();
        let mut present = HashSet::new();
        while left != right {
            if self.size(left) > self.size(right) {
                missing.push(self.links[left as usize].actor);
                left = self.links[left as usize].parent;
            } else {
                present.insert(self.links[right as usize].actor);
                right = self.links[right as usize].parent;
            }
        }
        let mut result = large;
        for actor in missing.into_iter().rev() {
            if !present.contains(&actor) {
                result = self.grow(result, actor);
            }
        }
        if self.unions.len() >= MOST_MEMOS {
            self.unions.clear();
        }
        self.unions.insert((small, large), result);
        result
    }

    /// Whether all of `wanted` are in `set`; empties `wanted` of those that are.
    pub fn contains_all(&self, set: SetId, wanted: &mut HashSet<u32>) -> bool {
        for member in self.members(set) {
            if wanted.is_empty() {
                break;
            }
            wanted.remove(&member);
        }
        wanted.is_empty()
    }

    fn size(&self, set: SetId) -> u32 {
        self.links[set as usize].size
    }

    fn members(&self, set: SetId) -> impl Iterator<Item = u32> + '_ {
        let mut current = set;
        std::iter::from_fn(move || {
            let link = &self.links[current as usize];
            current = link.parent;
            (link.size > 0).then_some(link.actor)
        })
    }
}
