//! Registers what `amsync._automerge` exports; the interface is in `_automerge.pyi`.

mod account;
mod archive;
mod chains;
mod chunk;
mod columns;
mod document;
mod engine;
mod error;
mod exchange;
mod graph;
mod history;
mod ingest;
mod load;
mod memory;
mod message;
mod operations;
mod oracle;
mod outcome;
mod peer;
mod queue;
mod reader;
mod replica;
mod sender;
mod sent;
mod sidecar;
mod snapshot;
mod token;
mod value;
mod walk;

use pyo3::prelude::*;

/// Version of the automerge crate, pinned with `=` in Cargo.toml.
const AUTOMERGE_VERSION: &str = "0.12.0";

#[pymodule]
fn _automerge(module: &Bound<'_, PyModule>) -> PyResult<()> {
    error::silence_caught_panics();
    let py = module.py();
    module.add("__version__", AUTOMERGE_VERSION)?;
    module.add("EngineError", py.get_type::<error::EngineError>())?;
    module.add("InvalidChunk", py.get_type::<error::InvalidChunk>())?;
    module.add("EnginePanic", py.get_type::<error::EnginePanic>())?;
    module.add_class::<outcome::Fault>()?;
    module.add_class::<outcome::Outcome>()?;
    module.add_class::<document::Document>()?;
    module.add_class::<replica::Replica>()?;
    module.add_class::<load::LoadDocument>()?;
    module.add_class::<load::LoadFigures>()?;
    module.add_class::<load::LoadGenerator>()?;
    module.add_function(wrap_pyfunction!(snapshot::initial_change, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::build_document, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(snapshot::compact, module)?)?;
    Ok(())
}
