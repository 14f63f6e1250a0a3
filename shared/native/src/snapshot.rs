//! Functions on stored bytes, without a `Document`.

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, Change, ChangeHash, ROOT};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyDict};

use crate::engine::{Engine, Limits};
use crate::error::{guarded, reason, Failure, Panicked, Refusal};
use crate::graph::Heads;
use crate::memory;
use crate::outcome::hash_list;
use crate::value::{self, Tree};

/// The actor of every initial change: documents made by different processes are equal.
const INITIAL_ACTOR: [u8; 16] = *b"amsync-initial-0";

/// One change without operations, with a fixed actor and time: always the same bytes.
#[pyfunction]
pub fn initial_change(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    let bytes = py.detach(|| {
        guarded(|| {
            let mut document = Automerge::new().with_actor(ActorId::from(&INITIAL_ACTOR[..]));
            document.empty_commit(CommitOptions::default().with_time(0));
            document.save_after(&[])
        })
    })?;
    Ok(PyBytes::new(py, &bytes))
}

/// Save a new document made of a dict.
#[pyfunction]
pub fn build_document<'py>(
    py: Python<'py>,
    data: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyBytes>> {
    if !data.is_instance_of::<PyDict>() {
        let kind = data.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "$: a document is a dict, not a {kind}"
        )));
    }
    let Tree::Map(items) = value::from_python(data, "$", 0)? else {
        return Err(PyTypeError::new_err("$: a document is a dict"));
    };
    let bytes = py.detach(|| guarded(|| build(&items)))??;
    Ok(PyBytes::new(py, &bytes))
}

fn build(items: &[(String, Tree)]) -> Result<Vec<u8>, Panicked> {
    let mut document = Automerge::new();
    if items.is_empty() {
        document.empty_commit(CommitOptions::default());
        return Ok(document.save());
    }
    let mut transaction = document.transaction();
    value::write_map(&mut transaction, &ROOT, items)
        .map_err(|error| Panicked(error.to_string()))?;
    transaction.commit();
    Ok(document.save())
}

/// Load blobs into an engine, or say what is wrong with the first bad one.
fn load_all(blobs: &[&[u8]]) -> Result<Engine, Failure> {
    let limits = Limits {
        window: 1,
        loop_limit: 1,
        queue_bytes: usize::MAX,
        like_crate: false,
    };
    let (engine, mut problems) = Engine::load(blobs, None, limits)?;
    if problems.is_empty() {
        return Ok(engine);
    }
    let (index, refusal) = problems.swap_remove(0);
    let detail = format!("blob {index}: {}", refusal.detail);
    Err(Refusal::new(refusal.reason, detail).into())
}

type Inspection<'py> = (Vec<Bound<'py, PyBytes>>, usize, usize);

/// Heads, number of changes and number of changes with missing dependencies of one blob.
#[pyfunction]
pub fn inspect(py: Python<'_>, blob: PyBackedBytes) -> PyResult<Inspection<'_>> {
    let (heads, changes, queued) = py.detach(|| {
        guarded(|| {
            let engine = load_all(&[blob.as_ref()])?;
            verify(&engine, &engine.save()?)?; // loading alone doesn't look at operations
            Ok::<_, Failure>((
                engine.heads().clone(),
                engine.change_count(),
                engine.queued_count(),
            ))
        })
        .unwrap_or_else(|panicked| Err(panicked.into()))
    })?;
    Ok((hash_list(py, &heads), changes, queued))
}

type Compacted<'py> = (
    Bound<'py, PyBytes>,
    Vec<Bound<'py, PyBytes>>,
    Bound<'py, PyBytes>,
);

/// Merge blobs into one snapshot and prove it.
#[pyfunction]
pub fn compact(py: Python<'_>, blobs: Vec<PyBackedBytes>) -> PyResult<Compacted<'_>> {
    let (snapshot, heads, sidecar) = py.detach(|| {
        let slices: Vec<&[u8]> = blobs.iter().map(AsRef::as_ref).collect();
        let merged = guarded(|| merge(&slices)).unwrap_or_else(|panicked| Err(panicked.into()));
        memory::give_back(slices.iter().map(|blob| blob.len()).sum());
        merged
    })?;
    let heads = hash_list(py, &heads);
    Ok((
        PyBytes::new(py, &snapshot),
        heads,
        PyBytes::new(py, &sidecar),
    ))
}

fn merge(blobs: &[&[u8]]) -> Result<(Vec<u8>, Heads, Vec<u8>), Failure> {
    let engine = load_all(blobs)?;
    if engine.queued_count() > 0 {
        let detail = format!("{} changes wait for a dependency", engine.queued_count());
        return Err(Refusal::new(reason::ORPHANS, detail).into());
    }
    let snapshot = engine.save()?;
    verify(&engine, &snapshot)?;
    let sidecar = engine.history.sidecar_of(&snapshot);
    Ok((snapshot, engine.heads().clone(), sidecar))
}

/// Reload the snapshot and find every change in it, and no other.
fn verify(engine: &Engine, snapshot: &[u8]) -> Result<(), Failure> {
    let unverified = |detail: String| Refusal::new(reason::UNVERIFIED, detail);
    let reloaded = guarded(|| {
        Automerge::load(snapshot).map(|document| {
            let changes = document.get_changes(&[]);
            let hashes: Vec<ChangeHash> = changes.iter().map(Change::hash).collect();
            (document.get_heads(), hashes)
        })
    });
    let (heads, hashes) = reloaded
        .map_err(|panicked| unverified(panicked.0))?
        .map_err(|error| unverified(error.to_string()))?;
    let is_complete = hashes.len() == engine.change_count()
        && hashes.iter().all(|hash| engine.has_change(hash))
        && heads[..] == engine.heads()[..];
    if is_complete {
        return Ok(());
    }
    let detail = format!(
        "{} of {} changes found",
        hashes.len(),
        engine.change_count()
    );
    Err(unverified(detail).into())
}
