//! The Python class `Replica`: a client's copy, with the crate's own sync.

use std::collections::HashMap;

use automerge::sync::{Message, State, SyncDoc};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{
    ActorId, AutoCommit, AutomergeError, Change, ObjId, ObjType, ReadDoc, ScalarValue, Value, ROOT,
};
use pyo3::exceptions::{PyKeyError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use crate::document::hashes;
use crate::error::{guarded, Failure, Refusal};
use crate::oracle;
use crate::outcome::hash_list;
use crate::value::{self, Unshown};

/// A client's copy of one document, for load generators and tests.
#[pyclass(module = "amsync._automerge")]
pub struct Replica {
    document: AutoCommit,
    states: HashMap<i64, State>,
    v1: bool,
}

impl Replica {
    fn with_document(mut document: AutoCommit, actor: Option<&[u8]>, v1: bool) -> Self {
        if let Some(actor) = actor {
            document.set_actor(ActorId::from(actor));
        }
        Self {
            document,
            states: HashMap::new(),
            v1,
        }
    }

    /// One change; errors of the crate are the caller's.
    fn edit(
        &mut self,
        py: Python<'_>,
        edit: impl FnOnce(&mut AutoCommit) -> Result<(), AutomergeError> + Send,
    ) -> PyResult<()> {
        let document = &mut self.document;
        py.detach(|| {
            guarded(|| {
                edit(document)?;
                document.commit_with(CommitOptions::default().with_time(0));
                Ok(())
            })
        })?
        .map_err(|error: AutomergeError| PyValueError::new_err(error.to_string()))
    }
}

fn scalar(value: &Bound<'_, PyAny>) -> PyResult<ScalarValue> {
    value::from_python(value, "value", 0)?
        .scalar()
        .ok_or_else(|| PyTypeError::new_err("value: not a scalar"))
}

/// The text object at a root key, made when missing.
fn text_object(document: &mut AutoCommit, key: &str) -> Result<ObjId, AutomergeError> {
    match document.get(ROOT, key)? {
        Some((Value::Object(ObjType::Text), id)) => Ok(id),
        _ => document.put_object(ROOT, key, ObjType::Text),
    }
}

#[pymethods]
impl Replica {
    #[new]
    #[pyo3(signature = (actor=None, *, v1=false))]
    fn new(actor: Option<PyBackedBytes>, v1: bool) -> PyResult<Self> {
        Ok(guarded(|| {
            Self::with_document(AutoCommit::new(), actor.as_deref(), v1)
        })?)
    }

    #[staticmethod]
    #[pyo3(signature = (data, actor=None, *, v1=false))]
    fn load(
        py: Python<'_>,
        data: PyBackedBytes,
        actor: Option<PyBackedBytes>,
        v1: bool,
    ) -> PyResult<Self> {
        let document = py
            .detach(|| guarded(|| AutoCommit::load(&data)))?
            .map_err(|error| Refusal::malformed(error.to_string()))?;
        Ok(guarded(|| {
            Self::with_document(document, actor.as_deref(), v1)
        })?)
    }

    fn put(&mut self, py: Python<'_>, key: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = scalar(value)?;
        self.edit(py, |document| document.put(ROOT, key, value))
    }

    fn splice(
        &mut self,
        py: Python<'_>,
        key: &str,
        position: usize,
        delete: usize,
        text: &str,
    ) -> PyResult<()> {
        let delete = isize::try_from(delete).unwrap_or(isize::MAX);
        self.edit(py, |document| {
            let object = text_object(document, key)?;
            document.splice_text(&object, position, delete, text)
        })
    }

    fn empty_change(&mut self, py: Python<'_>) -> PyResult<()> {
        self.edit(py, |document| {
            document.empty_change(CommitOptions::default().with_time(0));
            Ok(())
        })
    }

    fn edit_at(
        &mut self,
        py: Python<'_>,
        heads: Vec<PyBackedBytes>,
        key: &str,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let value = scalar(value)?;
        let heads = hashes(&heads)?;
        self.edit(py, |document| {
            document.isolate(&heads);
            let result = document.put(ROOT, key, value);
            document.commit_with(CommitOptions::default().with_time(0));
            document.integrate();
            result
        })
    }

    fn merge(&mut self, py: Python<'_>, mut other: PyRefMut<'_, Self>) -> PyResult<()> {
        let document = &mut self.document;
        let other = &mut other.document;
        py.detach(|| guarded(|| document.merge(other)))?
            .map_err(|error| Refusal::malformed(error.to_string()))?;
        Ok(())
    }

    fn value<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let document = &mut self.document;
        let tree: Result<value::Tree, Unshown> =
            py.detach(|| guarded(|| value::read(document.document(), usize::MAX)))?;
        value::to_python(py, &tree?)
    }

    fn heads<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let heads = guarded(|| self.document.get_heads())?;
        Ok(hash_list(py, &heads))
    }

    fn has(&mut self, change_hash: PyBackedBytes) -> PyResult<bool> {
        let hash = hashes(&[change_hash])?;
        Ok(guarded(|| {
            self.document.get_change_by_hash(&hash[0]).is_some()
        })?)
    }

    fn save<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let document = &mut self.document;
        let saved = py.detach(|| guarded(|| document.save()))?;
        Ok(PyBytes::new(py, &saved))
    }

    fn changes<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let document = &mut self.document;
        let changes = py.detach(|| guarded(|| document.get_changes(&[])))?;
        Ok(changes
            .iter()
            .map(|change: &Change| PyBytes::new(py, change.raw_bytes()))
            .collect())
    }

    #[pyo3(signature = (peer, state=None))]
    fn connect(&mut self, peer: i64, state: Option<PyBackedBytes>) -> PyResult<()> {
        let state = match state {
            Some(encoded) => guarded(|| State::decode(&encoded))?
                .map_err(|error| PyValueError::new_err(error.to_string()))?,
            None => State::new(),
        };
        self.states.insert(peer, state);
        Ok(())
    }

    fn disconnect<'py>(
        &mut self,
        py: Python<'py>,
        peer: i64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let state = self.states.remove(&peer);
        let encoded = guarded(|| state.map(|state| state.encode()))?;
        Ok(encoded.map(|bytes| PyBytes::new(py, &bytes)))
    }

    fn generate<'py>(
        &mut self,
        py: Python<'py>,
        peer: i64,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let document = &mut self.document;
        let v1 = self.v1;
        let state = self
            .states
            .get_mut(&peer)
            .ok_or_else(|| PyKeyError::new_err(peer))?;
        let encoded = py.detach(|| {
            guarded(|| {
                document
                    .sync()
                    .generate_sync_message(state)
                    .map(|mut message| {
                        if v1 {
                            message.flags = None;
                        }
                        message.encode()
                    })
            })
        })?;
        Ok(encoded.map(|bytes| PyBytes::new(py, &bytes)))
    }

    fn receive(&mut self, py: Python<'_>, peer: i64, message: PyBackedBytes) -> PyResult<()> {
        let document = &mut self.document;
        let v1 = self.v1;
        let state = self
            .states
            .get_mut(&peer)
            .ok_or_else(|| PyKeyError::new_err(peer))?;
        py.detach(|| {
            let result = guarded(|| {
                let mut message = Message::decode(&message)
                    .map_err(|error| Refusal::malformed(error.to_string()))?;
                if v1 {
                    message.flags = None;
                }
                document
                    .sync()
                    .receive_sync_message(state, message)
                    .map_err(|error| Refusal::malformed(error.to_string()))
            });
            result.map_err(Failure::from)?.map_err(Failure::from)
        })?;
        Ok(())
    }

    fn state<'py>(&self, py: Python<'py>, peer: i64) -> PyResult<Bound<'py, PyDict>> {
        let state = self.states.get(&peer);
        oracle::of_crate(py, state.ok_or_else(|| PyKeyError::new_err(peer))?)
    }

    fn set_read_only(&mut self, peer: i64, read_only: bool) -> PyResult<()> {
        let state = self.states.get_mut(&peer);
        let state = state.ok_or_else(|| PyKeyError::new_err(peer))?;
        state.set_read_only(read_only);
        Ok(())
    }

    fn reset_peer(&mut self, peer: i64) -> PyResult<()> {
        let state = self.states.get_mut(&peer);
        let state = state.ok_or_else(|| PyKeyError::new_err(peer))?;
        *state = State {
            their_capabilities: state.their_capabilities.take(),
            peer_read_only: state.peer_read_only,
            read_only: state.read_only,
            needs_reset: true,
            ..State::new()
        };
        Ok(())
    }
}
