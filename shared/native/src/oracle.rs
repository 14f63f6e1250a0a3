//! A peer's sync state spelled out, ours and the crate's alike, for the lockstep tests.

use automerge::sync::{Capability, Have, State};
use automerge::ChangeHash;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::exchange::Exchange;
use crate::graph::Graph;
use crate::outcome::hash_list;

/// What both have.
struct Fields<'a> {
    shared_heads: &'a [ChangeHash],
    last_sent_heads: &'a [ChangeHash],
    their_heads: Option<&'a [ChangeHash]>,
    their_need: Option<&'a [ChangeHash]>,
    their_have: Option<&'a [Have]>,
    sent_hashes: &'a [ChangeHash],
    in_flight: bool,
    have_responded: bool,
    takes_v2: bool,
    takes_reset: bool,
    read_only: bool,
    peer_read_only: bool,
    needs_reset: bool,
}

impl Fields<'_> {
    fn dict<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let have = self.their_have.map(|have| {
            let pairs = have.iter().map(|have| {
                let bloom = PyBytes::new(py, &have.bloom.to_bytes());
                (hash_list(py, &have.last_sync), bloom)
            });
            pairs.collect::<Vec<_>>()
        });
        let dict = PyDict::new(py);
        dict.set_item("shared_heads", hash_list(py, self.shared_heads))?;
        dict.set_item("last_sent_heads", hash_list(py, self.last_sent_heads))?;
        dict.set_item(
            "their_heads",
            self.their_heads.map(|heads| hash_list(py, heads)),
        )?;
        dict.set_item(
            "their_need",
            self.their_need.map(|need| hash_list(py, need)),
        )?;
        dict.set_item("their_have", have)?;
        dict.set_item("sent_hashes", hash_list(py, self.sent_hashes))?;
        dict.set_item("in_flight", self.in_flight)?;
        dict.set_item("have_responded", self.have_responded)?;
        dict.set_item("takes_v2", self.takes_v2)?;
        dict.set_item("takes_reset", self.takes_reset)?;
        dict.set_item("read_only", self.read_only)?;
        dict.set_item("peer_read_only", self.peer_read_only)?;
        dict.set_item("needs_reset", self.needs_reset)?;
        Ok(dict)
    }
}

pub fn ours<'py>(py: Python<'py>, state: &Exchange, graph: &Graph) -> PyResult<Bound<'py, PyDict>> {
    let fields = Fields {
        shared_heads: &state.shared_heads,
        last_sent_heads: &state.last_sent_heads,
        their_heads: state.their_heads.as_deref(),
        their_need: state.their_need.as_deref(),
        their_have: state.their_have.as_deref(),
        sent_hashes: &state.sent.hashes(graph),
        in_flight: state.in_flight,
        have_responded: state.have_responded,
        takes_v2: state.capabilities.is_some(),
        takes_reset: state.capabilities.is_some_and(|they| they.sync_reset),
        read_only: state.read_only,
        peer_read_only: state.peer_read_only,
        needs_reset: state.needs_reset,
    };
    fields.dict(py)
}

pub fn of_crate<'py>(py: Python<'py>, state: &State) -> PyResult<Bound<'py, PyDict>> {
    let sent: Vec<ChangeHash> = state.sent_hashes.iter().copied().collect();
    let has = |wanted: Capability| {
        let they = state.their_capabilities.as_ref();
        they.is_some_and(|they| they.contains(&wanted))
    };
    let fields = Fields {
        shared_heads: &state.shared_heads,
        last_sent_heads: &state.last_sent_heads,
        their_heads: state.their_heads.as_deref(),
        their_need: state.their_need.as_deref(),
        their_have: state.their_have.as_deref(),
        sent_hashes: &sent,
        in_flight: state.in_flight,
        have_responded: state.have_responded,
        takes_v2: has(Capability::MessageV2),
        takes_reset: has(Capability::SyncReset),
        read_only: state.read_only,
        peer_read_only: state.peer_read_only,
        needs_reset: state.needs_reset,
    };
    fields.dict(py)
}
