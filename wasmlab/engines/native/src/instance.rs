//! One guest: made, run once, perhaps interrupted.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use wasmer::{AsStoreRef, Extern, ExternType, Function, Interrupter, Memory, Store};
use wasmer_wasix::virtual_fs::{EmptyFileSystem, MountFileSystem};
use wasmer_wasix::wasmer_wasix_types::wasi::Filetype;
use wasmer_wasix::{WasiEnv, WasiFunctionEnv, WasiModuleInstanceHandles, WasiModuleTreeHandles, WasiRuntimeError};

use crate::errors::{Ended, WasmerError, unpanicked};
use crate::honest::mend;
use crate::hostdir::HostDir;
use crate::limits::limited;
use crate::metering::Fuel;
use crate::runtime::{GuestRuntime, Interruption};
use crate::stdio::{Stdio, Target};

/// How often, and how many times, an interrupt is repeated: it may come between two instructions of `run`.
const KNOCK_EVERY: Duration = Duration::from_millis(1);
const KNOCKS: u32 = 1000;

/// What an instance may use.
pub struct Limits {
    pub memory_bytes: Option<u64>,
    /// None if the module does not count.
    pub fuel: Option<u64>,
}

/// A guest that `Module.instantiate` made. It runs once.
#[pyclass(frozen, module = "wasmer_native")]
pub struct Instance {
    guest: Mutex<Guest>,
    ran: AtomicBool,
    running: AtomicBool,
    interruption: Arc<Interruption>,
    interrupter: Interrupter,
}

struct Guest {
    store: Store,
    start: Function,
    memory: Memory,
    fuel: Option<Fuel>,
    // Holds the guest's open files.
    _env: WasiFunctionEnv,
}

// A store is full of raw pointers, all of them into itself or into the module's code (which lives as long): no thread
// owns any of it. What a guest's host calls use (streams, directories, clock) is Send. The mutex lets one thread in at
// a time, and no guest is ever suspended in the middle of its code.
unsafe impl Send for Guest {}

impl Guest {
    /// As `WasiEnvBuilder::instantiate` does it, but with the imports of those versions of WASI alone that the module
    /// asks for: making all 400 functions takes 0.2 ms.
    fn new(
        mut store: Store,
        module: &wasmer::Module,
        wasi: WasiEnv,
        streams: [Filetype; 3],
        fuel: Option<u64>,
    ) -> Result<Self, Ended> {
        let mut env = WasiFunctionEnv::new(&mut store, wasi);
        let mut imports =
            env.import_object_for_all_wasi_versions(&mut store, module).map_err(WasiRuntimeError::from)?;
        let mut imported = None;
        for import in module.imports() {
            match import.ty() {
                ExternType::Memory(ty) => imported = imported.or(Some(*ty)),
                // Only what it asks for: making a host function takes 2 us.
                ExternType::Function(_) => {
                    mend(&mut imports, &mut store, &env.env, import.module(), import.name(), streams);
                }
                _ => {}
            }
        }
        let imported = imported
            .map(|ty| Memory::new(&mut store, ty))
            .transpose()
            .map_err(|error| Ended::MemoryLimit(error.to_string()))?;
        if let Some(memory) = &imported {
            imports.define("env", "memory", memory.clone());
        }
        let instance = wasmer::Instance::new(&mut store, module, &imports)?;
        let Ok(start) = instance.exports.get_function("_start").cloned() else {
            let text = "the module exports no function _start: it is a library, not a command";
            return Err(Ended::Link(text.to_owned()));
        };
        let exported = instance.exports.iter().find_map(|(_, export)| match export {
            Extern::Memory(memory) => Some(memory.clone()),
            _ => None,
        });
        let Some(memory) = imported.or(exported) else {
            return Err(Ended::Link("the module has no memory that WASI could read and write".to_owned()));
        };
        let handles = WasiModuleInstanceHandles::new(memory.clone(), &store, instance.clone(), None);
        env.initialize_handles_and_layout(
            &mut store,
            instance.clone(),
            WasiModuleTreeHandles::Static(handles),
            None,
            true,
        )
        .map_err(WasiRuntimeError::from)?;
        let (fuel, first) = match fuel {
            Some(amount) => {
                let (fuel, first) = Fuel::fill(&mut store, &instance, amount);
                (Some(fuel), first)
            }
            None => (None, None),
        };
        let initialize = instance.exports.get_function("_initialize").cloned().ok();
        let mut guest = Self { store, start, memory, fuel, _env: env };
        for function in first.into_iter().chain(initialize) {
            guest.call(&function)?;
        }
        Ok(guest)
    }

    fn call(&mut self, function: &Function) -> Result<(), Ended> {
        let ended: Ended = match function.call(&mut self.store, &[]) {
            Ok(_) => return Ok(()),
            Err(error) => error.into(),
        };
        match (&ended, &self.fuel) {
            (Ended::Trap { .. }, Some(fuel)) if fuel.left(&mut self.store).is_none() => {
                Err(Ended::Trap { kind: "out_of_fuel", message: "all fuel consumed".to_owned() })
            }
            _ => Err(ended),
        }
    }
}

impl Instance {
    /// The outer error is the caller's fault, the inner one the module's.
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        engine: &wasmer::Engine,
        module: &wasmer::Module,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        preopens: Vec<(PathBuf, String, bool)>,
        streams: [Target; 3],
        ports: Vec<u16>,
        limits: Limits,
    ) -> PyResult<Result<Self, Ended>> {
        let interruption = Arc::new(Interruption::default());
        let store = Store::new(engine.clone());
        let interrupter = store.interrupter();
        let mut builder = WasiEnv::builder("").envs(env);
        *builder.get_args_mut() = argv;
        builder.set_runtime(Arc::new(GuestRuntime::new(engine.clone(), interruption.clone(), ports)?));
        let [stdin, stdout, stderr] = streams;
        let stdin = Stdio::new(stdin, 0, interruption.clone())?;
        let stdout = Stdio::new(stdout, 1, interruption.clone())?;
        let stderr = Stdio::new(stderr, 2, interruption.clone())?;
        let filetypes = [&stdin, &stdout, &stderr].map(Stdio::filetype);
        builder.set_stdin(Box::new(stdin));
        builder.set_stdout(Box::new(stdout));
        builder.set_stderr(Box::new(stderr));
        let root = MountFileSystem::new();
        let refused = |error: &dyn std::fmt::Display| PyValueError::new_err(error.to_string());
        let has_root = preopens.iter().any(|(_, guest, _)| place(guest).is_ok_and(|place| place == Path::new("/")));
        if !has_root {
            // Not wasmer's own default, which is a file system in memory that no limit counts.
            root.mount(Path::new("/"), Arc::new(EmptyFileSystem::default())).map_err(|error| refused(&error))?;
            if !preopens.is_empty() {
                // Symbolic links are looked up from the root: it has to be a directory for that, if an empty one.
                builder
                    .add_preopen_build(|preopen| preopen.directory("/").read(true))
                    .map_err(|error| refused(&error))?;
            }
        }
        for (host, guest, read_only) in preopens {
            let directory = HostDir::open(&host, read_only)
                .map_err(|error| std::io::Error::new(error.kind(), format!("{}: {error}", host.display())))?;
            let place = place(&guest)?;
            root.mount(&place, Arc::new(directory)).map_err(|error| refused(&format!("{guest}: {error}")))?;
            builder
                .add_preopen_build(|preopen| {
                    let preopen = preopen.directory(&place).read(true).write(!read_only).create(!read_only);
                    // An absolute name is the default; as an alias it would lose its slash.
                    if guest.starts_with('/') { preopen } else { preopen.alias(&guest) }
                })
                .map_err(|error| refused(&error))?;
        }
        builder.set_mount_fs(root);

        let wasi = match builder.build() {
            Ok(wasi) => wasi,
            Err(WasiRuntimeError::Init(error)) => return Err(refused(&error)),
            Err(error) => return Ok(Err(error.into())),
        };
        let made =
            limited(limits.memory_bytes, || unpanicked(|| Guest::new(store, module, wasi, filetypes, limits.fuel)));
        Ok(made.map_err(Ended::Other).flatten().map(|guest| Self {
            guest: Mutex::new(guest),
            ran: AtomicBool::new(false),
            running: AtomicBool::new(false),
            interruption,
            interrupter,
        }))
    }

    fn call(&self) -> Result<i32, Ended> {
        let mut guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
        let start = guest.start.clone();
        self.running.store(true, Ordering::SeqCst);
        let result = if self.interruption.asked() {
            Err(Ended::Trap { kind: "interrupted", message: "interrupted before it ran".to_owned() })
        } else {
            match unpanicked(|| guest.call(&start)) {
                Ok(Ok(())) => Ok(0),
                Ok(Err(Ended::Exit(code))) => Ok(code),
                Ok(Err(other)) => Err(other),
                Err(panic) => Err(Ended::Other(panic)),
            }
        };
        self.running.store(false, Ordering::SeqCst);
        result
    }
}

#[pymethods]
impl Instance {
    /// Run the guest and return its exit code (the lowest byte of it, as processes have them). Other threads run meanwhile.
    ///
    /// Raises
    /// ------
    /// Trap
    ///     With ``kind``; "interrupted" after `interrupt`.
    fn run(&self, py: Python<'_>) -> PyResult<i32> {
        if self.ran.swap(true, Ordering::SeqCst) {
            return Err(WasmerError::new_err("an instance runs once: make another one"));
        }
        py.detach(|| self.call()).map_err(|ended| ended.into_pyerr(py))
    }

    /// End the guest, from any thread: `run` raises `Trap` of kind "interrupted".
    ///
    /// Ends loops, sleeps and reads of stdin; not a write to a full pipe, nor a callable that does not return.
    fn interrupt(&self, py: Python<'_>) {
        py.detach(|| {
            // First the mark that the guest's code looks at, then the host call that it may be waiting in: otherwise the
            // guest could wake up and end by itself in between.
            self.interrupter.interrupt();
            self.interruption.ask();
            for _ in 0..KNOCKS {
                if !self.running.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(KNOCK_EVERY);
                self.interrupter.interrupt();
            }
        });
    }

    /// How much of its fuel is left: 0 once it was stopped for want of more, None if it has no meter. Waits while the
    /// guest runs.
    #[getter]
    fn fuel(&self, py: Python<'_>) -> Option<u64> {
        py.detach(|| {
            let mut guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
            let Guest { store, fuel, .. } = &mut *guest;
            fuel.as_ref().map(|fuel| fuel.left(store).unwrap_or(0))
        })
    }

    /// Size of the guest's linear memory in bytes. Waits while the guest runs.
    #[getter]
    fn memory_bytes(&self, py: Python<'_>) -> u64 {
        py.detach(|| {
            let guest = self.guest.lock().unwrap_or_else(PoisonError::into_inner);
            guest.memory.view(&guest.store.as_store_ref()).data_size()
        })
    }
}

/// Where a guest's directory is mounted: absolute, without dots.
fn place(guest: &str) -> PyResult<PathBuf> {
    let mut place = PathBuf::from("/");
    for part in guest.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(PyValueError::new_err(format!("{guest:?} leads upwards"))),
            name => place.push(name),
        }
    }
    Ok(place)
}
