//! Host functions of `wasmer-wasix` that are put right.
//!
//! * It calls each standard stream a character device, whatever that is. A C library takes those for terminals and
//!   writes line by line: a program that prints 10,000 lines into a pipe then makes 10,000 system calls instead of 200.
//! * To its `poll_oneoff` a timeout of 0 is none, so that a sleep of no time lasts for ever; 1 is one that is over.

use wasmer::{AsStoreMut, Extern, Function, FunctionEnv, FunctionEnvMut, Imports, RuntimeError, TypedFunction};
use wasmer_wasix::WasiEnv;
use wasmer_wasix::wasmer_wasix_types::wasi::Filetype;

const PREVIEW1: &str = "wasi_snapshot_preview1";
const UNSTABLE: &str = "wasi_unstable";
/// `__wasi_subscription_t`: its size, and where its tag and the timeout of a clock are.
const SUBSCRIPTION: (u64, u64, u64) = (48, 8, 24);
const CLOCK: u8 = 0;
type Poll = TypedFunction<(i32, i32, i32, i32), i32>;

/// Where the file type is in `__wasi_fdstat_t` and in `__wasi_filestat_t`.
const FDSTAT_TYPE: u64 = 0;
const FILESTAT_TYPE: u64 = 16;

/// Put the function `name` right that the guest imports from `version` of WASI, if it is one of those. `streams` is what
/// its descriptors 0 to 2 really are.
pub fn mend(
    imports: &mut Imports,
    store: &mut impl AsStoreMut,
    env: &FunctionEnv<WasiEnv>,
    version: &str,
    name: &str,
    streams: [Filetype; 3],
) {
    let offset = match (version, name) {
        (PREVIEW1 | UNSTABLE, "fd_fdstat_get") => FDSTAT_TYPE,
        (PREVIEW1 | UNSTABLE, "fd_filestat_get") => FILESTAT_TYPE,
        (PREVIEW1, "poll_oneoff") => return end_timeouts_of_zero(imports, store, env),
        _ => return,
    };
    let Some(Extern::Function(original)) = imports.get_export(version, name) else { return };
    let Ok(original) = original.typed::<(i32, i32), i32>(store) else { return };
    let honest = move |mut context: FunctionEnvMut<'_, WasiEnv>, fd: i32, at: i32| {
        answer(&mut context, &original, fd, at, offset, streams)
    };
    imports.define(version, name, Function::new_typed_with_env(store, env, honest));
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

/// Let a timeout of no time be over at once.
fn end_timeouts_of_zero(imports: &mut Imports, store: &mut impl AsStoreMut, env: &FunctionEnv<WasiEnv>) {
    let Some(Extern::Function(original)) = imports.get_export(PREVIEW1, "poll_oneoff") else { return };
    let Ok(original) = original.typed::<(i32, i32, i32, i32), i32>(store) else { return };
    let honest = move |mut context: FunctionEnvMut<'_, WasiEnv>, subscriptions, events, count, seen| {
        poll(&mut context, &original, subscriptions, events, count, seen)
    };
    imports.define(PREVIEW1, "poll_oneoff", Function::new_typed_with_env(store, env, honest));
}

fn poll(
    context: &mut FunctionEnvMut<'_, WasiEnv>,
    original: &Poll,
    subscriptions: i32,
    events: i32,
    count: i32,
    seen: i32,
) -> Result<i32, RuntimeError> {
    let (size, tag, timeout) = SUBSCRIPTION;
    let mut changed = Vec::new();
    {
        let memory = unsafe { context.data().memory_view(context) };
        for index in 0..u64::from(count.cast_unsigned()) {
            let at = u64::from(subscriptions.cast_unsigned()) + index * size;
            let (mut kind, mut value) = ([0; 1], [0; 8]);
            // What lies outside the memory is the original's to refuse.
            if memory.read(at + tag, &mut kind).and_then(|()| memory.read(at + timeout, &mut value)).is_err() {
                break;
            }
            if kind == [CLOCK] && value == [0; 8] && memory.write(at + timeout, &1u64.to_le_bytes()).is_ok() {
                changed.push(at + timeout);
            }
        }
    }
    let errno = original.call(context, subscriptions, events, count, seen)?;
    // They are the guest's, and constant.
    let memory = unsafe { context.data().memory_view(context) };
    for at in changed {
        let _ = memory.write(at, &[0; 8]);
    }
    Ok(errno)
}
