//! The Python class `Document`.

use automerge::ChangeHash;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use crate::engine::{Engine, Limits};
use crate::error::guarded;
use crate::memory;
use crate::oracle;
use crate::outcome::{hash_list, HeadTuple, Outcome};
use crate::value;

/// One open document and the sync state of each of its peers.
#[pyclass(module = "amsync._automerge")]
pub struct Document {
    engine: Box<Engine>,
    heads: HeadTuple,
}

/// A loaded document and (index of the blob, what is wrong with it).
type Loaded = (Document, Vec<(usize, String)>);

fn check_limits(limits: Limits) -> PyResult<Limits> {
    let Limits {
        window,
        loop_limit,
        queue_bytes,
        ..
    } = limits;
    if window > 0 && loop_limit > 0 && queue_bytes > 0 {
        return Ok(limits);
    }
    let text = format!(
        "window={window}, loop_limit={loop_limit}, queue_bytes={queue_bytes}: must be at least 1"
    );
    Err(PyValueError::new_err(text))
}

pub fn hashes(heads: &[PyBackedBytes]) -> PyResult<Vec<ChangeHash>> {
    heads
        .iter()
        .map(|head| {
            ChangeHash::try_from(head.as_ref())
                .map_err(|_| PyValueError::new_err("a hash is not 32 bytes long"))
        })
        .collect()
}

impl Document {
    fn with(engine: Engine) -> Self {
        Self {
            engine: Box::new(engine),
            heads: HeadTuple::default(),
        }
    }

    fn known(&self, peer: i64) -> PyResult<()> {
        if self.engine.has_peer(peer) {
            return Ok(());
        }
        Err(PyKeyError::new_err(peer))
    }
}

#[pymethods]
impl Document {
    #[new]
    #[pyo3(signature = (*, window=8, loop_limit=3, queue_bytes=8_388_608, like_crate=false))]
    fn new(window: usize, loop_limit: u32, queue_bytes: usize, like_crate: bool) -> PyResult<Self> {
        let limits = check_limits(Limits {
            window,
            loop_limit,
            queue_bytes,
            like_crate,
        })?;
        Ok(Self::with(guarded(|| Engine::new(limits))?))
    }

    #[staticmethod]
    #[pyo3(signature = (
        blobs,
        *,
        sidecar=None,
        window=8,
        loop_limit=3,
        queue_bytes=8_388_608,
        like_crate=false,
    ))]
    fn load(
        py: Python<'_>,
        blobs: Vec<PyBackedBytes>,
        sidecar: Option<PyBackedBytes>,
        window: usize,
        loop_limit: u32,
        queue_bytes: usize,
        like_crate: bool,
    ) -> PyResult<Loaded> {
        let limits = check_limits(Limits {
            window,
            loop_limit,
            queue_bytes,
            like_crate,
        })?;
        let (engine, problems) = py.detach(|| {
            let slices: Vec<&[u8]> = blobs.iter().map(AsRef::as_ref).collect();
            let loaded = Engine::load(&slices, sidecar.as_deref(), limits);
            memory::give_back(slices.iter().map(|blob| blob.len()).sum());
            loaded
        })?;
        let problems = problems
            .into_iter()
            .map(|(index, refusal)| (index, format!("{}: {}", refusal.reason, refusal.detail)))
            .collect();
        Ok((Self::with(engine), problems))
    }

    fn missing_sidecar<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let engine = &mut self.engine;
        let encoded = py.detach(|| engine.history.missing_sidecar());
        encoded.map(|bytes| PyBytes::new(py, &bytes))
    }

    fn heads<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        hash_list(py, self.engine.heads())
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

    fn stored_bytes(&self) -> usize {
        self.engine.stored_bytes()
    }

    fn size_bytes(&self) -> usize {
        self.engine.size_bytes()
    }

    #[pyo3(signature = (peer, *, read_only=false, track_heads=false, token=None))]
    fn add_peer(
        &mut self,
        peer: i64,
        read_only: bool,
        track_heads: bool,
        token: Option<PyBackedBytes>,
    ) -> PyResult<()> {
        match token {
            Some(token) => {
                let engine = &mut self.engine;
                Ok(engine.resume_peer(peer, &token, read_only, track_heads)?)
            }
            None => {
                self.engine.add_peer(peer, read_only, track_heads);
                Ok(())
            }
        }
    }

    fn token<'py>(&self, py: Python<'py>, peer: i64) -> PyResult<Bound<'py, PyBytes>> {
        let token = self.engine.token(peer);
        let token = token.ok_or_else(|| PyKeyError::new_err(peer))?;
        Ok(PyBytes::new(py, &token))
    }

    fn remove_peer(&mut self, peer: i64) {
        self.engine.remove_peer(peer);
    }

    fn set_read_only(&mut self, peer: i64, read_only: bool) -> PyResult<()> {
        self.known(peer)?;
        self.engine.set_read_only(peer, read_only);
        Ok(())
    }

    fn reset_peer(&mut self, peer: i64) -> PyResult<()> {
        self.known(peer)?;
        self.engine.reset_peer(peer);
        Ok(())
    }

    #[pyo3(
        signature = (batch, hello=Vec::new(), only_light=false),
        text_signature = "($self, batch, hello=(), only_light=False)",
    )]
    fn sync(
        &mut self,
        py: Python<'_>,
        batch: Vec<(i64, PyBackedBytes)>,
        hello: Vec<i64>,
        only_light: bool,
    ) -> PyResult<Outcome> {
        batch.iter().try_for_each(|(peer, _)| self.known(*peer))?;
        hello.iter().try_for_each(|peer| self.known(*peer))?;
        let engine = &mut self.engine;
        let report = py.detach(|| {
            let slices: Vec<(i64, &[u8])> = batch
                .iter()
                .map(|(peer, bytes)| (*peer, bytes.as_ref()))
                .collect();
            let report = engine.sync(&slices, &hello, only_light);
            if !only_light {
                memory::give_back(slices.iter().map(|(_, bytes)| bytes.len()).sum());
            }
            report
        })?;
        Outcome::from_report(py, report, &mut self.heads)
    }

    fn rebase(
        &mut self,
        py: Python<'_>,
        snapshot: PyBackedBytes,
        heads: Vec<PyBackedBytes>,
    ) -> PyResult<bool> {
        let heads = hashes(&heads)?;
        let engine = &mut self.engine;
        Ok(py.detach(|| guarded(|| engine.rebase(&snapshot, &heads)))?)
    }

    fn apply(&mut self, py: Python<'_>, blob: PyBackedBytes) -> PyResult<Outcome> {
        let engine = &mut self.engine;
        let report = py.detach(|| {
            let report = engine.apply(&blob);
            memory::give_back(blob.len());
            report
        })?;
        Outcome::from_report(py, report, &mut self.heads)
    }

    fn save<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let saved = py.detach(|| self.engine.save())?;
        Ok(PyBytes::new(py, &saved))
    }

    #[pyo3(signature = (most_bytes=None))]
    fn value<'py>(
        &self,
        py: Python<'py>,
        most_bytes: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let most_bytes = most_bytes.unwrap_or(usize::MAX);
        let tree = py.detach(|| self.engine.value(most_bytes))??;
        value::to_python(py, &tree)
    }

    fn state<'py>(&self, py: Python<'py>, peer: i64) -> PyResult<Bound<'py, PyDict>> {
        let state = self.engine.state(peer);
        let state = state.ok_or_else(|| PyKeyError::new_err(peer))?;
        oracle::ours(py, state, &self.engine.history.graph)
    }
}
