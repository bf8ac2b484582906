//! Wasmer for Python, thin: engine, module, instance, each step on its own, so that each can be timed, cached and limited.

mod engine;
mod errors;
mod honest;
mod hostdir;
mod instance;
mod limits;
mod metering;
mod net;
mod runtime;
mod stdio;

use pyo3::prelude::*;

/// The Wasmer WebAssembly runtime for Python, with its phases apart.
#[pymodule]
mod wasmer_native {
    #[pymodule_export]
    use super::engine::{Engine, Module};
    #[pymodule_export]
    use super::errors::{CompileError, DeserializeError, Exit, LinkError, MemoryLimitError, Trap, WasmerError};
    #[pymodule_export]
    use super::instance::Instance;

    #[pymodule_init]
    fn init(_module: &pyo3::Bound<'_, pyo3::types::PyModule>) -> pyo3::PyResult<()> {
        // A panic becomes a Python exception with its message; stderr is not ours to write to.
        std::panic::set_hook(Box::new(|_| {}));
        Ok(())
    }

    /// Version of this package.
    #[pymodule_export]
    #[allow(non_upper_case_globals)]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    /// Version of Wasmer (the tests compare it with Cargo.lock).
    #[pymodule_export]
    const WASMER_VERSION: &str = "7.4.2";
}
