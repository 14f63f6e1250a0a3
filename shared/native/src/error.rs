//! Why bytes are refused, and how panics of the crate become errors.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    amsync._automerge,
    EngineError,
    PyException,
    "Root of the errors of this module."
);
create_exception!(
    amsync._automerge,
    InvalidChunk,
    EngineError,
    "Bytes are not automerge chunks that this document can take; nothing was applied."
);
create_exception!(
    amsync._automerge,
    EnginePanic,
    EngineError,
    "The crate panicked. The object that was called is unusable; drop it and load again."
);

/// Bounded labels, as listed at `Fault.reason`.
pub mod reason {
    pub const MALFORMED: &str = "malformed";
    pub const TOO_LARGE: &str = "too_large";
    pub const BLOOM: &str = "bloom";
    pub const CHECKSUM: &str = "checksum";
    pub const CHUNK_TYPE: &str = "chunk_type";
    pub const SEQUENCE: &str = "sequence";
    pub const DUPLICATE_SEQUENCE: &str = "duplicate_sequence";
    pub const OP_ID: &str = "op_id";
    pub const UNKNOWN_ACTOR: &str = "unknown_actor";
    pub const UNKNOWN_OBJECT: &str = "unknown_object";
    pub const ROWS: &str = "rows";
    pub const TOO_COMPLEX: &str = "too_complex";
    pub const LOOP_RESET: &str = "loop_reset";
    pub const LOOP: &str = "loop";
    pub const MISSING_DEPENDENCY: &str = "missing_dependency";
    pub const ORPHANS: &str = "orphans";
    pub const UNVERIFIED: &str = "unverified";
}

/// Bytes from outside that we don't take, and why.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reason: &'static str,
    pub detail: String,
}

impl Refusal {
    pub fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }

    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(reason::MALFORMED, detail)
    }
}

impl From<Refusal> for PyErr {
    fn from(refusal: Refusal) -> Self {
        InvalidChunk::new_err((refusal.reason, refusal.detail))
    }
}

/// The crate panicked inside `guarded`; what it touched mutably must not be used again.
#[derive(Clone, Debug)]
pub struct Panicked(pub String);

impl From<Panicked> for PyErr {
    fn from(panicked: Panicked) -> Self {
        EnginePanic::new_err(panicked.0)
    }
}

/// How an engine call can fail.
#[derive(Clone, Debug)]
pub enum Failure {
    Refused(Refusal),
    Panicked(Panicked),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Panicked> for Failure {
    fn from(panicked: Panicked) -> Self {
        Self::Panicked(panicked)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Panicked(panicked) => panicked.into(),
        }
    }
}

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Keep the panics that `guarded` catches off stderr: hostile input could fill a log with them.
pub fn silence_caught_panics() {
    let previous = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if !GUARDED.with(Cell::get) {
            previous(info);
        }
    }));
}

/// Run a call into the crate; a panic becomes an error.
pub fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = GUARDED.with(|flag| flag.replace(true));
    let result = panic::catch_unwind(AssertUnwindSafe(call));
    GUARDED.with(|flag| flag.set(outer));
    result.map_err(|payload| Panicked(panic_text(payload.as_ref())))
}

/// Like `guarded`, for calls that touch nothing but the bytes being checked.
pub fn guarded_check<T>(call: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
    guarded(call).unwrap_or_else(|panicked| Err(Refusal::malformed(panicked.0)))
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a message".to_owned());
    text.chars().take(200).collect()
}
