//! The Python class `Document`.

use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

use crate::engine::Engine;
use crate::error::guarded;
use crate::history::History;
use crate::outcome::{hash_list, Outcome};
use crate::peer::Peer;
use crate::value;

/// One open document and the sync state of each of its peers.
#[pyclass(module = "amsync._automerge")]
pub struct Document {
    engine: Engine,
}

/// A loaded document and (index of the blob, what is wrong with it).
type Loaded = (Document, Vec<(usize, String)>);

fn check_limits(window: usize, loop_limit: u32, queue_bytes: usize) -> PyResult<()> {
    if window > 0 && loop_limit > 0 && queue_bytes > 0 {
        return Ok(());
    }
    let text = format!(
        "window={window}, loop_limit={loop_limit}, queue_bytes={queue_bytes}: must be at least 1"
    );
    Err(PyValueError::new_err(text))
}

impl Document {
    fn known(&self, peer: i64) -> PyResult<()> {
        if self.engine.has_peer(peer) {
            return Ok(());
        }
        Err(PyKeyError::new_err(peer))
    }

    fn peer(&mut self, peer: i64) -> PyResult<&mut Peer> {
        self.engine
            .peer_mut(peer)
            .ok_or_else(|| PyKeyError::new_err(peer))
    }
}

#[pymethods]
impl Document {
    #[new]
    #[pyo3(signature = (*, window=8, loop_limit=3, queue_bytes=8_388_608))]
    fn new(window: usize, loop_limit: u32, queue_bytes: usize) -> PyResult<Self> {
        check_limits(window, loop_limit, queue_bytes)?;
        let history = guarded(|| History::new(queue_bytes))?;
        Ok(Self {
            engine: Engine::new(history, window, loop_limit),
        })
    }

    #[staticmethod]
    #[pyo3(signature = (blobs, *, window=8, loop_limit=3, queue_bytes=8_388_608))]
    fn load(
        py: Python<'_>,
        blobs: Vec<PyBackedBytes>,
        window: usize,
        loop_limit: u32,
        queue_bytes: usize,
    ) -> PyResult<Loaded> {
        check_limits(window, loop_limit, queue_bytes)?;
        let (engine, problems) = py.detach(|| {
            let slices: Vec<&[u8]> = blobs.iter().map(AsRef::as_ref).collect();
            Engine::load(&slices, window, loop_limit, queue_bytes)
        })?;
        let problems = problems
            .into_iter()
            .map(|(index, refusal)| (index, format!("{}: {}", refusal.reason, refusal.detail)))
            .collect();
        Ok((Self { engine }, problems))
    }

    fn heads<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        hash_list(py, &self.engine.heads())
    }

    fn change_count(&self) -> usize {
        self.engine.change_count()
    }

    fn queued_count(&self) -> usize {
        self.engine.queued_count()
    }

    fn queued<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let chunks = py.detach(|| self.engine.queued());
        chunks.iter().map(|chunk| PyBytes::new(py, chunk)).collect()
    }

    fn size_bytes(&self) -> usize {
        self.engine.size_bytes()
    }

    #[pyo3(signature = (peer, *, read_only=false, track_heads=false))]
    fn add_peer(&mut self, peer: i64, read_only: bool, track_heads: bool) {
        self.engine.add_peer(peer, read_only, track_heads);
    }

    fn remove_peer(&mut self, peer: i64) {
        self.engine.remove_peer(peer);
    }

    fn set_read_only(&mut self, peer: i64, read_only: bool) -> PyResult<()> {
        self.peer(peer)?.set_read_only(read_only);
        Ok(())
    }

    fn reset_peer(&mut self, peer: i64) -> PyResult<()> {
        self.peer(peer)?.reset();
        Ok(())
    }

    #[pyo3(signature = (batch, hello=Vec::new()), text_signature = "($self, batch, hello=())")]
    fn sync(
        &mut self,
        py: Python<'_>,
        batch: Vec<(i64, PyBackedBytes)>,
        hello: Vec<i64>,
    ) -> PyResult<Outcome> {
        batch.iter().try_for_each(|(peer, _)| self.known(*peer))?;
        hello.iter().try_for_each(|peer| self.known(*peer))?;
        let engine = &mut self.engine;
        let report = py.detach(|| {
            let slices: Vec<(i64, &[u8])> = batch
                .iter()
                .map(|(peer, bytes)| (*peer, bytes.as_ref()))
                .collect();
            engine.sync(&slices, &hello)
        })?;
        Outcome::from_report(py, report)
    }

    fn apply(&mut self, py: Python<'_>, blob: PyBackedBytes) -> PyResult<Outcome> {
        let engine = &mut self.engine;
        let report = py.detach(|| engine.apply(&blob))?;
        Outcome::from_report(py, report)
    }

    fn save<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let engine = &mut self.engine;
        let saved = py.detach(|| engine.save())?;
        Ok(PyBytes::new(py, &saved))
    }

    fn value<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let engine = &mut self.engine;
        let tree = py.detach(|| engine.value())??;
        value::to_python(py, &tree)
    }
}
