//! What can go wrong, as Python exceptions.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use wasmer::sys::vm::TrapCode;
use wasmer::{InstantiationError, LinkError as Link, RuntimeError};
use wasmer_wasix::types::wasi::ExitCode;
use wasmer_wasix::{WasiError, WasiRuntimeError, WasiThreadError};

create_exception!(wasmer_native, WasmerError, PyException, "Anything that Wasmer refuses or that fails in it.");
create_exception!(wasmer_native, CompileError, WasmerError, "The module is not valid, or cannot be compiled.");
create_exception!(
    wasmer_native,
    DeserializeError,
    WasmerError,
    "The compiled module is damaged, or of another version, compiler or CPU."
);
create_exception!(
    wasmer_native,
    LinkError,
    WasmerError,
    "The module wants an import that is not there, or does not export what a command must."
);
create_exception!(
    wasmer_native,
    MemoryLimitError,
    LinkError,
    "The module needs more memory to start than its limit allows."
);
create_exception!(
    wasmer_native,
    Trap,
    WasmerError,
    "The guest trapped. Attribute ``kind`` tells how: unreachable, stack_overflow, memory_out_of_bounds, ..."
);
create_exception!(
    wasmer_native,
    Exit,
    WasmerError,
    "The guest left in its initialization. Attribute ``code`` is its exit code."
);

/// How a call into a guest ended, when it did not simply return.
#[derive(Debug)]
pub enum Ended {
    Exit(i32),
    Trap { kind: &'static str, message: String },
    Link(String),
    MemoryLimit(String),
    Other(String),
}

impl Ended {
    pub fn into_pyerr(self, py: Python<'_>) -> PyErr {
        match self {
            Ended::Exit(code) => {
                let error = Exit::new_err(format!("the guest left with exit code {code}"));
                // An attribute that cannot be set would be a lack of memory: nothing to be done about it here.
                let _ = error.value(py).setattr("code", code);
                error
            }
            Ended::Trap { kind, message } => {
                let error = Trap::new_err(message);
                let _ = error.value(py).setattr("kind", kind);
                error
            }
            Ended::Link(message) => LinkError::new_err(message),
            Ended::MemoryLimit(message) => MemoryLimitError::new_err(message),
            Ended::Other(message) => WasmerError::new_err(message),
        }
    }
}

/// wasmer-wasix keeps the remainder by 256, as 16 bits of a signed number.
fn byte(code: ExitCode) -> i32 {
    code.raw() & 0xff
}

fn kind(code: TrapCode) -> &'static str {
    match code {
        TrapCode::StackOverflow => "stack_overflow",
        TrapCode::HeapAccessOutOfBounds => "memory_out_of_bounds",
        TrapCode::HeapMisaligned | TrapCode::UnalignedAtomic => "heap_misaligned",
        TrapCode::TableAccessOutOfBounds => "table_out_of_bounds",
        TrapCode::IndirectCallToNull => "indirect_call_to_null",
        TrapCode::BadSignature => "bad_signature",
        TrapCode::IntegerOverflow => "integer_overflow",
        TrapCode::IntegerDivisionByZero => "integer_division_by_zero",
        TrapCode::BadConversionToInteger => "bad_conversion_to_integer",
        TrapCode::UnreachableCodeReached => "unreachable",
        TrapCode::UncaughtException => "uncaught_exception",
        TrapCode::HostInterrupt => "interrupted",
        _ => "trap",
    }
}

impl From<RuntimeError> for Ended {
    fn from(error: RuntimeError) -> Self {
        if let Some(WasiError::Exit(code)) = error.downcast_ref::<WasiError>() {
            return Ended::Exit(byte(*code));
        }
        let message = error.message();
        if let Some(other) = error.downcast_ref::<WasiError>() {
            return Ended::Trap { kind: "trap", message: other.to_string() };
        }
        match error.to_trap() {
            Some(code) => Ended::Trap { kind: kind(code), message },
            None => Ended::Trap { kind: "trap", message },
        }
    }
}

impl From<InstantiationError> for Ended {
    fn from(error: InstantiationError) -> Self {
        match error {
            InstantiationError::Start(error) => error.into(),
            InstantiationError::Link(Link::Resource(text)) => Ended::MemoryLimit(text),
            other => Ended::Link(other.to_string()),
        }
    }
}

impl From<WasiRuntimeError> for Ended {
    fn from(error: WasiRuntimeError) -> Self {
        match error {
            WasiRuntimeError::Runtime(error) => error.into(),
            WasiRuntimeError::Instantiation(error) => error.into(),
            WasiRuntimeError::Export(error) => Ended::Link(error.to_string()),
            WasiRuntimeError::Wasi(WasiError::Exit(code)) => Ended::Exit(byte(code)),
            WasiRuntimeError::Thread(WasiThreadError::InstanceCreateFailed(error)) => (*error).into(),
            WasiRuntimeError::Thread(WasiThreadError::MemoryCreateFailed(error)) => {
                Ended::MemoryLimit(error.to_string())
            }
            WasiRuntimeError::Thread(WasiThreadError::ExportError(error)) => Ended::Link(error.to_string()),
            WasiRuntimeError::Thread(WasiThreadError::LinkError(error)) => Ended::Link(error.to_string()),
            WasiRuntimeError::Thread(WasiThreadError::InitFailed(error)) => {
                match error.downcast_ref::<RuntimeError>() {
                    Some(error) => error.clone().into(),
                    None => Ended::Other(error.to_string()),
                }
            }
            other => Ended::Other(other.to_string()),
        }
    }
}

/// What panics in wasmer (a guest or a module can bring that about) is an error like others, not the end of the caller.
pub fn unpanicked<R>(body: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let text = payload
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| payload.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        format!("wasmer panicked: {text}")
    })
}
