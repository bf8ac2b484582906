//! Engine and module: validate, compile, serialize, load.

use std::num::NonZero;
use std::path::PathBuf;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use wasmer::sys::{CompilerConfig, Cranelift, CraneliftOptLevel, EngineBuilder, NativeEngineExt, Singlepass};

use crate::errors::{CompileError, DeserializeError, WasmerError, unpanicked};
use crate::instance::{Instance, Limits};
use crate::limits::Limiting;
use crate::metering::{is_metered, meter};
use crate::stdio::Target;

const DEFAULT_STACK_BYTES: usize = 2 << 20;

/// Compiles modules, or only loads compiled ones (``compiler=None``). Makes no thread until it compiles.
///
/// Parameters
/// ----------
/// compiler : {"cranelift", "singlepass", None}
///     Cranelift makes fast code, singlepass makes code fast, None only loads what was compiled before.
/// opt_level : {"speed", "speed_and_size", "none"}
///     Of cranelift; singlepass has none.
/// threads : int, optional
///     Threads to compile with; default one per CPU.
/// stack_bytes : int
///     The guest's call stack; more is a trap of kind "stack_overflow".
/// metering : bool
///     Compile so that instances can be given an amount of fuel. The code is slower for it.
#[pyclass(frozen, module = "wasmer_native")]
pub struct Engine {
    inner: wasmer::Engine,
    compiler: Option<&'static str>,
    level: CraneliftOptLevel,
    threads: Option<NonZero<usize>>,
    stack_bytes: usize,
    metering: bool,
}

#[pymethods]
impl Engine {
    #[new]
    #[pyo3(signature = (compiler = Some("cranelift"), *, opt_level = "speed", threads = None, stack_bytes = DEFAULT_STACK_BYTES, metering = false))]
    fn new(
        compiler: Option<&str>,
        opt_level: &str,
        threads: Option<NonZero<usize>>,
        stack_bytes: usize,
        metering: bool,
    ) -> PyResult<Self> {
        let level = match opt_level {
            "speed" => CraneliftOptLevel::Speed,
            "speed_and_size" => CraneliftOptLevel::SpeedAndSize,
            "none" => CraneliftOptLevel::None,
            other => return Err(PyValueError::new_err(format!("no optimization level is called {other:?}"))),
        };
        let compiler = match compiler {
            None => None,
            Some("cranelift") => Some("cranelift"),
            Some("singlepass") => Some("singlepass"),
            Some(other) => return Err(PyValueError::new_err(format!("no compiler is called {other:?}"))),
        };
        let inner = made(compiler, &level, threads, stack_bytes, false);
        Ok(Self { inner, compiler, level, threads, stack_bytes, metering })
    }

    /// Name of the compiler, or None.
    #[getter]
    fn compiler(&self) -> Option<&'static str> {
        self.compiler
    }

    /// Raise `CompileError` if `wasm` is not a valid module.
    fn validate(&self, py: Python<'_>, wasm: &[u8]) -> PyResult<()> {
        self.can_compile()?;
        py.detach(|| wasmer::Module::validate(&self.inner, wasm))
            .map_err(|error| CompileError::new_err(error.to_string()))
    }

    /// Compile a module. Other threads run meanwhile.
    fn compile(&self, py: Python<'_>, wasm: &[u8]) -> PyResult<Module> {
        self.can_compile()?;
        if !wasm.starts_with(b"\0asm") {
            // Not the text format either, which another build of wasmer might take.
            return Err(CompileError::new_err("not a WASM binary: it does not begin with \\0asm"));
        }
        // What counts operators belongs to one module.
        let engine = if self.metering {
            made(self.compiler, &self.level, self.threads, self.stack_bytes, true)
        } else {
            self.inner.clone()
        };
        let inner = py
            .detach(|| unpanicked(|| wasmer::Module::from_binary(&engine, wasm)))
            .map_err(CompileError::new_err)?
            .map_err(|error| CompileError::new_err(error.to_string()))?;
        Ok(Module { inner, engine })
    }

    /// Load what `Module.serialize` returned. It is native code: load only what you wrote yourself.
    fn deserialize(&self, py: Python<'_>, code: &[u8]) -> PyResult<Module> {
        let inner = py
            .detach(|| unpanicked(|| unsafe { wasmer::Module::deserialize(&self.inner, code) }))
            .map_err(DeserializeError::new_err)?
            .map_err(|error| DeserializeError::new_err(error.to_string()))?;
        Ok(Module { inner, engine: self.inner.clone() })
    }

    /// Map a file that holds what `Module.serialize` returned.
    ///
    /// It is native code: load only what you wrote yourself. `unchecked` also trusts its structure (the caller has
    /// compared a checksum, say), which saves a pass over the file.
    #[pyo3(signature = (path, *, unchecked = false))]
    fn deserialize_file(&self, py: Python<'_>, path: PathBuf, unchecked: bool) -> PyResult<Module> {
        let inner = py
            .detach(|| {
                unpanicked(|| unsafe {
                    if unchecked {
                        self.inner.deserialize_from_mmapped_file_unchecked(&path)
                    } else {
                        self.inner.deserialize_from_mmapped_file(&path)
                    }
                })
            })
            .map_err(DeserializeError::new_err)?
            .map_err(|error| match error {
                wasmer::DeserializeError::Io(error) => error.into(),
                error => DeserializeError::new_err(error.to_string()),
            })?;
        Ok(Module { inner, engine: self.inner.clone() })
    }

    fn __repr__(&self) -> String {
        match self.compiler {
            Some(name) => format!("Engine({name:?})"),
            None => "Engine(None)".to_owned(),
        }
    }
}

impl Engine {
    fn can_compile(&self) -> PyResult<()> {
        match self.compiler {
            Some(_) => Ok(()),
            None => Err(WasmerError::new_err("this engine has no compiler: it only loads compiled modules")),
        }
    }
}

fn made(
    compiler: Option<&str>,
    level: &CraneliftOptLevel,
    threads: Option<NonZero<usize>>,
    stack_bytes: usize,
    metering: bool,
) -> wasmer::Engine {
    let mut config: Box<dyn CompilerConfig> = match compiler {
        None => return tuned(EngineBuilder::headless(), stack_bytes),
        Some("singlepass") => {
            let mut config = Singlepass::new();
            if let Some(threads) = threads {
                config.num_threads(threads);
            }
            Box::new(config)
        }
        Some(_) => {
            let mut config = Cranelift::new();
            config.opt_level(level.clone());
            if let Some(threads) = threads {
                config.num_threads(threads);
            }
            Box::new(config)
        }
    };
    if metering {
        meter(&mut *config);
    }
    tuned(EngineBuilder::new(config), stack_bytes)
}

fn tuned(builder: EngineBuilder, stack_bytes: usize) -> wasmer::Engine {
    let mut engine: wasmer::Engine = builder.into();
    engine.set_tunables(Limiting::new(stack_bytes));
    engine
}

/// A compiled module; any number of instances can be made of it.
#[pyclass(frozen, module = "wasmer_native")]
pub struct Module {
    inner: wasmer::Module,
    engine: wasmer::Engine,
}

#[pymethods]
impl Module {
    /// Return the native code, for `Engine.deserialize` of the same version on the same kind of CPU.
    fn serialize<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let code = py.detach(|| self.inner.serialize()).map_err(|error| WasmerError::new_err(error.to_string()))?;
        Ok(PyBytes::new(py, &code))
    }

    /// What it imports, as "module.name".
    #[getter]
    fn imports(&self) -> Vec<String> {
        self.inner.imports().map(|import| format!("{}.{}", import.module(), import.name())).collect()
    }

    /// Names of what it exports.
    #[getter]
    fn exports(&self) -> Vec<String> {
        self.inner.exports().map(|export| export.name().to_owned()).collect()
    }

    /// Whether it was compiled with metering, so that its instances can be given fuel.
    #[getter]
    fn metered(&self) -> bool {
        is_metered(&self.inner)
    }

    /// Make an instance of a WASI (preview 1) command: memory, imports, start section; `Instance.run` calls it.
    ///
    /// Parameters
    /// ----------
    /// argv : sequence of str
    ///     ``argv[0]`` included.
    /// env : sequence of (str, str)
    /// preopens : sequence of (host, guest, read_only)
    ///     Host directories. Nothing above them can be reached; a read-only one cannot be changed in any way.
    /// stdin : int or None
    ///     A descriptor (duplicated), or nothing to read.
    /// stdout, stderr : int, callable or None
    ///     A descriptor (duplicated), a callable that takes bytes and returns None, the count that it took or minus
    ///     an errno, or the bin.
    /// memory_limit_bytes : int, optional
    ///     Of each linear memory: ``memory.grow`` fails in the guest at the limit.
    /// listen : sequence of int
    ///     TCP ports of the host that it may listen on, by WASIX (``sock_open``, ``sock_bind``, ...); it can neither
    ///     connect nor use UDP, and without ports it has no network. 0 stands for every port.
    /// fuel : int, optional
    ///     How many operators it may execute, its start section included; more is a trap of kind "out_of_fuel".
    ///
    /// Raises
    /// ------
    /// LinkError
    ///     If an import is missing or the module is not a command; `MemoryLimitError` if it needs more to start.
    /// Trap
    ///     If its start section traps; `Exit` if that leaves.
    /// OSError
    ///     If a directory or a descriptor cannot be opened.
    /// ValueError
    ///     If there is a limit of fuel and the module was compiled without metering.
    #[pyo3(signature = (argv, *, env = vec![], preopens = vec![], stdin = Target::Null, stdout = Target::Null, stderr = Target::Null, memory_limit_bytes = None, fuel = None, listen = vec![]))]
    #[allow(clippy::too_many_arguments)]
    fn instantiate(
        &self,
        py: Python<'_>,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        preopens: Vec<(PathBuf, String, bool)>,
        stdin: Target,
        stdout: Target,
        stderr: Target,
        memory_limit_bytes: Option<u64>,
        fuel: Option<u64>,
        listen: Vec<u16>,
    ) -> PyResult<Instance> {
        let metered = self.metered();
        if fuel.is_some() && !metered {
            return Err(PyValueError::new_err("the module was compiled without metering: it cannot be given fuel"));
        }
        let limits = Limits { memory_bytes: memory_limit_bytes, fuel: metered.then(|| fuel.unwrap_or(u64::MAX)) };
        let streams = [stdin, stdout, stderr];
        py.detach(|| Instance::new(&self.engine, &self.inner, argv, env, preopens, streams, listen, limits))?
            .map_err(|ended| ended.into_pyerr(py))
    }
}
