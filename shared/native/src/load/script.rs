//! The Python class `LoadDocument`: a document with every change that a run may make.
//!
//! The changes are a chain: each depends on the one before, so a client's heads are the number of
//! changes it has, and one map from hashes to places in the chain serves all clients.

use std::collections::HashMap;
use std::sync::Arc;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, AutomergeError, ChangeHash, ObjType, ROOT};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::error::guarded;

pub const TEXT_KEY: &str = "text";

/// What the generator's sessions share of one document; never changes.
pub struct Script {
    pub document_id: String,
    /// Changes that the document begins with; they are in `saved`.
    pub history: u32,
    /// The history as one document chunk.
    pub saved: Vec<u8>,
    pub hashes: Vec<ChangeHash>,
    places: HashMap<ChangeHash, u32>,
    /// The chunks of all changes after the history, and where each of them ends.
    chunks: Vec<u8>,
    ends: Vec<usize>,
}

impl Script {
    fn make(
        document_id: String,
        history: u32,
        further: u32,
        actor: &[u8],
    ) -> Result<Self, AutomergeError> {
        let mut document = AutoCommit::new().with_actor(ActorId::from(actor));
        let text = document.put_object(ROOT, TEXT_KEY, ObjType::Text)?;
        let mut saved = Vec::new();
        let mut character = [0; 4];
        for place in 0..history + further {
            let typed = typed(place).encode_utf8(&mut character);
            document.splice_text(&text, place as usize, 0, typed)?;
            document.commit_with(CommitOptions::default().with_time(0));
            if place + 1 == history {
                saved = document.save();
            }
        }
        let changes = document.get_changes(&[]);
        let hashes: Vec<ChangeHash> = changes.iter().map(automerge::Change::hash).collect();
        let mut chunks = Vec::new();
        let mut ends = Vec::with_capacity(further as usize);
        for change in &changes[history as usize..] {
            chunks.extend_from_slice(change.raw_bytes());
            ends.push(chunks.len());
        }
        Ok(Self {
            document_id,
            history,
            saved,
            places: (0..).zip(&hashes).map(|(at, hash)| (*hash, at)).collect(),
            hashes,
            chunks,
            ends,
        })
    }

    /// Where in the chain a change stands.
    pub fn place(&self, hash: &ChangeHash) -> Option<u32> {
        self.places.get(hash).copied()
    }

    /// The heads of somebody who has the first `count` changes.
    pub fn heads(&self, count: u32) -> &[ChangeHash] {
        match count as usize {
            0 => &[],
            count => &self.hashes[count - 1..count],
        }
    }

    /// The chunks of the changes at these places, none of them in the history.
    pub fn chunks(&self, from: u32, to: u32) -> &[u8] {
        &self.chunks[self.end(from)..self.end(to)]
    }

    fn end(&self, place: u32) -> usize {
        match (place - self.history) as usize {
            0 => 0,
            count => self.ends[count - 1],
        }
    }

    /// The text that the first `count` changes make.
    pub fn text(&self, count: u32) -> String {
        (0..count).map(typed).collect()
    }

    pub fn len(&self) -> u32 {
        self.hashes.len() as u32
    }
}

/// Letters and blanks without a pattern: a text that compresses no better than prose.
fn typed(place: u32) -> char {
    // The finalizer of MurmurHash3.
    let mut mixed = place.wrapping_add(0x9e37_79b9);
    mixed = (mixed ^ (mixed >> 16)).wrapping_mul(0x85eb_ca6b);
    mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xc2b2_ae35);
    match (mixed ^ (mixed >> 16)) % 32 {
        letter @ 0..=25 => char::from(b'a' + letter as u8),
        _ => ' ',
    }
}

/// A document for a load generator, made with every change that a run may send.
#[pyclass(module = "amsync._automerge", frozen)]
pub struct LoadDocument {
    pub script: Arc<Script>,
}

#[pymethods]
impl LoadDocument {
    #[new]
    fn new(
        py: Python<'_>,
        document_id: String,
        history: u32,
        further: u32,
        actor: Vec<u8>,
    ) -> PyResult<Self> {
        if history == 0 || actor.is_empty() || history.checked_add(further).is_none() {
            return Err(PyValueError::new_err(
                "a document needs a history of 1 change or more, and an actor",
            ));
        }
        let script = py
            .detach(|| guarded(|| Script::make(document_id, history, further, &actor)))?
            .map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self {
            script: Arc::new(script),
        })
    }

    #[getter]
    fn document_id(&self) -> &str {
        &self.script.document_id
    }

    #[getter]
    fn history(&self) -> u32 {
        self.script.history
    }

    /// Bytes of the saved history.
    #[getter]
    fn saved_bytes(&self) -> usize {
        self.script.saved.len()
    }

    /// Bytes of the chunks of all further changes.
    #[getter]
    fn further_bytes(&self) -> usize {
        self.script.chunks.len()
    }
}
