//! What one batch did, as Python sees it.

use std::sync::Arc;

use automerge::ChangeHash;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};

use crate::error::Refusal;
use crate::exchange::Draft;
use crate::graph::Heads;

/// One message that was refused whole, or a loop that was noticed.
#[pyclass(frozen, module = "amsync._automerge")]
#[derive(Clone)]
pub struct Fault {
    #[pyo3(get)]
    peer: i64,
    reason: &'static str,
    #[pyo3(get)]
    detail: String,
}

impl Fault {
    pub fn new(peer: i64, refusal: Refusal) -> Self {
        Self {
            peer,
            reason: refusal.reason,
            detail: refusal.detail,
        }
    }
}

#[pymethods]
impl Fault {
    #[getter]
    fn reason(&self) -> &'static str {
        self.reason
    }

    fn __repr__(&self) -> String {
        format!(
            "<Fault peer={} reason={}: {}>",
            self.peer, self.reason, self.detail
        )
    }
}

/// The same without Python objects: made while the GIL is released.
#[derive(Default)]
pub struct Report {
    pub messages: Vec<(Arc<Draft>, Vec<i64>)>,
    pub chunks: Vec<Vec<u8>>,
    pub heads: Heads,
    pub peer_heads: Vec<(i64, Heads)>,
    pub faults: Vec<Fault>,
    /// Who has sent changes that were not looked at, once for each message.
    pub ignored: Vec<i64>,
    pub is_frozen: bool,
    /// Peers that get nothing more from now on until they answer.
    pub holds: usize,
    /// Messages of the batch that were dealt with.
    pub taken: usize,
    /// Of the saved document with which the document began just now.
    pub sidecar: Option<Vec<u8>>,
}

/// What one batch did to a document.
#[pyclass(frozen, module = "amsync._automerge")]
pub struct Outcome {
    #[pyo3(get)]
    messages: Py<PyAny>,
    #[pyo3(get)]
    chunks: Py<PyAny>,
    #[pyo3(get)]
    heads: Py<PyTuple>,
    #[pyo3(get)]
    peer_heads: Py<PyAny>,
    #[pyo3(get)]
    faults: Py<PyAny>,
    #[pyo3(get)]
    ignored: Vec<i64>,
    #[pyo3(get)]
    is_frozen: bool,
    #[pyo3(get)]
    holds: usize,
    #[pyo3(get)]
    taken: usize,
    #[pyo3(get)]
    sidecar: Option<Py<PyBytes>>,
}

/// A document's heads as Python has them, made anew only when they change.
#[derive(Default)]
pub struct HeadTuple {
    known: Option<(Heads, Py<PyTuple>)>,
}

impl HeadTuple {
    pub fn get(&mut self, py: Python<'_>, heads: &Heads) -> PyResult<Py<PyTuple>> {
        if let Some((known, tuple)) = &self.known {
            if Arc::ptr_eq(known, heads) {
                return Ok(tuple.clone_ref(py));
            }
        }
        let tuple = PyTuple::new(py, hash_list(py, heads))?.unbind();
        self.known = Some((heads.clone(), tuple.clone_ref(py)));
        Ok(tuple)
    }
}

impl Outcome {
    pub fn from_report(py: Python<'_>, report: Report, heads: &mut HeadTuple) -> PyResult<Self> {
        let messages: Vec<_> = report
            .messages
            .into_iter()
            .map(|(draft, peers)| {
                let bytes = draft
                    .python
                    .get_or_init(|| PyBytes::new(py, &draft.bytes).unbind());
                (bytes.clone_ref(py), peers)
            })
            .collect();
        let chunks: Vec<_> = report
            .chunks
            .iter()
            .map(|chunk| PyBytes::new(py, chunk))
            .collect();
        let peer_heads: Vec<_> = report
            .peer_heads
            .iter()
            .map(|(peer, heads)| (*peer, hash_list(py, heads)))
            .collect();
        Ok(Self {
            messages: messages.into_pyobject(py)?.unbind(),
            chunks: chunks.into_pyobject(py)?.unbind(),
            heads: heads.get(py, &report.heads)?,
            peer_heads: peer_heads.into_pyobject(py)?.unbind(),
            faults: report.faults.into_pyobject(py)?.unbind(),
            ignored: report.ignored,
            is_frozen: report.is_frozen,
            holds: report.holds,
            taken: report.taken,
            sidecar: report
                .sidecar
                .map(|bytes| PyBytes::new(py, &bytes).unbind()),
        })
    }
}

/// Hashes as Python bytes of 32 each.
pub fn hash_list<'py>(py: Python<'py>, hashes: &[ChangeHash]) -> Vec<Bound<'py, PyBytes>> {
    hashes
        .iter()
        .map(|hash| PyBytes::new(py, hash.as_ref()))
        .collect()
}
