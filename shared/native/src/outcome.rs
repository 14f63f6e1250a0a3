//! What one batch did, as Python sees it.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use automerge::ChangeHash;

use crate::error::Refusal;

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
    pub messages: Vec<(Vec<u8>, Vec<i64>)>,
    pub chunks: Vec<Vec<u8>>,
    pub heads: Vec<ChangeHash>,
    pub peer_heads: Vec<(i64, Vec<ChangeHash>)>,
    pub faults: Vec<Fault>,
}

/// What one batch did to a document.
#[pyclass(frozen, module = "amsync._automerge")]
pub struct Outcome {
    #[pyo3(get)]
    messages: Py<PyAny>,
    #[pyo3(get)]
    chunks: Py<PyAny>,
    #[pyo3(get)]
    heads: Py<PyAny>,
    #[pyo3(get)]
    peer_heads: Py<PyAny>,
    #[pyo3(get)]
    faults: Py<PyAny>,
}

impl Outcome {
    pub fn from_report(py: Python<'_>, report: Report) -> PyResult<Self> {
        let messages: Vec<_> = report
            .messages
            .into_iter()
            .map(|(bytes, peers)| (PyBytes::new(py, &bytes), peers))
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
            heads: hash_list(py, &report.heads).into_pyobject(py)?.unbind(),
            peer_heads: peer_heads.into_pyobject(py)?.unbind(),
            faults: report.faults.into_pyobject(py)?.unbind(),
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
