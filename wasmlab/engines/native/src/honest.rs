//! Host functions whose answer by `wasmer-wasix` is put right.
//!
//! It calls each standard stream a character device, whatever that is. A C library takes those for terminals and writes
//! line by line: a program that prints 10,000 lines into a pipe then makes 10,000 system calls instead of 200.

use wasmer::{AsStoreMut, Extern, FunctionEnv, FunctionEnvMut, Imports, RuntimeError, TypedFunction};
use wasmer_wasix::WasiEnv;
use wasmer_wasix::wasmer_wasix_types::wasi::Filetype;

/// (function, where in its answer the file type is): `__wasi_fdstat_t`, `__wasi_filestat_t`.
const ANSWERS: [(&str, u64); 2] = [("fd_fdstat_get", 0), ("fd_filestat_get", 16)];
const VERSIONS: [&str; 2] = ["wasi_snapshot_preview1", "wasi_unstable"];

/// Let the guest see what its streams 0 to 2 really are.
pub fn tell_filetypes(
    imports: &mut Imports,
    store: &mut impl AsStoreMut,
    env: &FunctionEnv<WasiEnv>,
    streams: [Filetype; 3],
) {
    for version in VERSIONS {
        for (name, offset) in ANSWERS {
            let Some(Extern::Function(original)) = imports.get_export(version, name) else { continue };
            let Ok(original) = original.typed::<(i32, i32), i32>(store) else { continue };
            let honest = move |mut context: FunctionEnvMut<'_, WasiEnv>, fd: i32, at: i32| {
                answer(&mut context, &original, fd, at, offset, streams)
            };
            imports.define(version, name, wasmer::Function::new_typed_with_env(store, env, honest));
        }
    }
}

fn answer(
    context: &mut FunctionEnvMut<'_, WasiEnv>,
    original: &TypedFunction<(i32, i32), i32>,
    fd: i32,
    at: i32,
    offset: u64,
    streams: [Filetype; 3],
) -> Result<i32, RuntimeError> {
    let errno = original.call(context, fd, at)?;
    let stream = usize::try_from(fd).ok().and_then(|fd| streams.get(fd));
    if let (0, Some(filetype)) = (errno, stream) {
        // The guest's thread is this one, so its memory does not move under the view. The original wrote there.
        let memory = unsafe { context.data().memory_view(context) };
        let _ = memory.write_u8(u64::from(at.cast_unsigned()) + offset, *filetype as u8);
    }
    Ok(errno)
}
