//! What some heads have and others have not, as `git rev-list A --not B`.
//!
//! From the newest index down, until only common ancestors are left: the work is in proportion
//! to the difference, whatever the history.

use std::cell::RefCell;
use std::collections::BinaryHeap;

use crate::graph::Graph;

const INCLUDED: u8 = 1;
const EXCLUDED: u8 = 2;

thread_local! {
    /// Colours by index; all zero between walks. One for the thread, not one per document.
    static COLOURS: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Walk<'a> {
    colours: &'a mut [u8],
    open: BinaryHeap<u32>,
    touched: Vec<u32>,
    /// Nodes in `open` that are included and not excluded.
    wanted: usize,
}

impl Walk<'_> {
    fn colour(&mut self, index: u32, colour: u8) {
        let old = self.colours[index as usize];
        let new = old | colour;
        if old == new {
            return;
        }
        self.colours[index as usize] = new;
        if old == 0 {
            self.open.push(index);
            self.touched.push(index);
        }
        // Whatever is coloured again is still open: dependencies have lower indices.
        match (old == INCLUDED, new == INCLUDED) {
            (false, true) => self.wanted += 1,
            (true, false) => self.wanted -= 1,
            _ => {}
        }
    }
}

/// Also after a panic: the thread goes on, and other documents with it.
impl Drop for Walk<'_> {
    fn drop(&mut self) {
        for index in &self.touched {
            self.colours[*index as usize] = 0;
        }
    }
}

/// Indices of all ancestors of `include`, with themselves, that are none of `exclude`; ascending.
pub fn difference(graph: &Graph, include: &[u32], exclude: &[u32]) -> Vec<u32> {
    if exclude.is_empty() && include == graph.head_indices() {
        return (0..graph.len() as u32).collect();
    }
    COLOURS.with_borrow_mut(|colours| {
        if colours.len() < graph.len() {
            colours.resize(graph.len(), 0);
        }
        let mut walk = Walk {
            colours,
            open: BinaryHeap::new(),
            touched: Vec::new(),
            wanted: 0,
        };
        include
            .iter()
            .for_each(|index| walk.colour(*index, INCLUDED));
        exclude
            .iter()
            .for_each(|index| walk.colour(*index, EXCLUDED));
        let mut found = Vec::new();
        while walk.wanted > 0 {
            let Some(index) = walk.open.pop() else { break };
            let colour = walk.colours[index as usize];
            if colour == INCLUDED {
                walk.wanted -= 1;
                found.push(index);
            }
            let colour = if colour & EXCLUDED != 0 {
                EXCLUDED
            } else {
                INCLUDED
            };
            for dep in graph.columns.deps(index) {
                walk.colour(*dep, colour);
            }
        }
        drop(walk);
        found.reverse();
        found
    })
}
