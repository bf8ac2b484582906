//! The guest's standard streams: host descriptors, or Python callables for what it writes.

use std::fs::File;
use std::io::{self, ErrorKind, Read, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use wasmer_wasix::VirtualFile;
use wasmer_wasix::virtual_fs::{AsyncRead, AsyncSeek, AsyncWrite, FsError, ReadBuf, Result as FsResult};

use crate::runtime::Interruption;

/// How much a stream says it will take or give; nobody relies on the number.
const READY_BYTES: usize = 8192;

/// Where a stream leads.
pub enum Target {
    /// Nowhere: end of file, or the bin.
    Null,
    Fd(RawFd),
    Call(Py<PyAny>),
}

impl FromPyObject<'_, '_> for Target {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        if object.is_none() {
            Ok(Target::Null)
        } else if object.is_callable() {
            Ok(Target::Call(object.to_owned().unbind()))
        } else {
            Ok(Target::Fd(object.extract()?))
        }
    }
}

#[derive(Debug)]
enum Stream {
    Null,
    File(File),
    Call(Py<PyAny>),
}

#[derive(Debug)]
pub struct Stdio {
    stream: Stream,
    number: u32,
    interruption: Arc<Interruption>,
    watch: Arc<Watch>,
}

impl Stdio {
    /// `number` is 0, 1 or 2. The descriptor is duplicated: the caller may close its own.
    pub fn new(target: Target, number: u32, interruption: Arc<Interruption>) -> io::Result<Self> {
        let stream = match target {
            Target::Null => Stream::Null,
            Target::Call(callable) => Stream::Call(callable),
            Target::Fd(fd) => {
                let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
                if copy < 0 {
                    return Err(io::Error::last_os_error());
                }
                Stream::File(unsafe { File::from_raw_fd(copy) })
            }
        };
        Ok(Self { stream, number, interruption, watch: Arc::default() })
    }

    /// Retry what a signal of the host interrupted, unless that was meant for the guest.
    fn again(&self, error: &io::Error) -> bool {
        error.kind() == ErrorKind::Interrupted && !self.interruption.asked()
    }

    fn readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Stream::File(file) = &self.stream else {
            return Poll::Ready(Ok(()));
        };
        let fd = file.as_raw_fd();
        if self.interruption.asked() {
            return Poll::Ready(Err(ErrorKind::Interrupted.into()));
        }
        if wait(fd, libc::POLLIN, 0) {
            return Poll::Ready(Ok(()));
        }
        self.interruption.subscribe(context.waker());
        if self.interruption.asked() {
            return Poll::Ready(Err(ErrorKind::Interrupted.into()));
        }
        self.watch.clone().readable(fd, context.waker());
        Poll::Pending
    }
}

/// True if `fd` is ready (or broken, which reading and writing will tell) within `timeout_ms` (-1: for ever).
fn wait(fd: RawFd, events: i16, timeout_ms: i32) -> bool {
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    unsafe { libc::poll(&mut entry, 1, timeout_ms) > 0 }
}

/// A thread that waits for input on behalf of a guest that may be waiting for other things too.
#[derive(Debug, Default)]
struct Watch {
    running: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl Watch {
    fn readable(self: Arc<Self>, fd: RawFd, waker: &Waker) {
        *self.waker.lock().unwrap() = Some(waker.clone());
        if self.running.swap(true, Ordering::SeqCst) {
            return;
        }
        // A copy: the stream may be closed, and its number reused, while this thread waits.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        std::thread::spawn(move || {
            while !wait(copy, libc::POLLIN, -1) && io::Error::last_os_error().kind() == ErrorKind::Interrupted {}
            unsafe { libc::close(copy) };
            self.running.store(false, Ordering::SeqCst);
            if let Some(waker) = self.waker.lock().unwrap().take() {
                waker.wake();
            }
        });
    }
}

impl AsyncRead for Stdio {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.number != 0 {
            return Poll::Ready(Err(ErrorKind::PermissionDenied.into()));
        }
        loop {
            match self.readable(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(result) => result?,
            }
            let Stream::File(file) = &self.stream else {
                return Poll::Ready(Ok(()));
            };
            match (&*file).read(into.initialize_unfilled()) {
                Ok(count) => {
                    into.advance(count);
                    return Poll::Ready(Ok(()));
                }
                // Another process that shares the descriptor was faster.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if self.again(&error) => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.number == 0 {
            return Poll::Ready(Err(ErrorKind::PermissionDenied.into()));
        }
        let file = match &self.stream {
            Stream::Null => return Poll::Ready(Ok(data.len())),
            Stream::Call(callable) => return Poll::Ready(call(callable, data)),
            Stream::File(file) => file,
        };
        loop {
            match (&*file).write(data) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // The guest may be told to wait, but it was not told that its stream is non-blocking: wait here.
                    wait(file.as_raw_fd(), libc::POLLOUT, -1);
                    if self.interruption.asked() {
                        return Poll::Ready(Err(ErrorKind::Interrupted.into()));
                    }
                }
                Err(error) if self.again(&error) => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The callable returns what it took, as a count of bytes or None for all; an exception is the guest's EIO.
fn call(callable: &Py<PyAny>, data: &[u8]) -> io::Result<usize> {
    Python::attach(|py| {
        let bytes = PyBytes::new(py, data);
        let taken = callable.bind(py).call1((bytes,)).and_then(|value| value.extract::<Option<isize>>());
        match taken {
            Ok(None) => Ok(data.len()),
            Ok(Some(count)) if count >= 0 => Ok(usize::try_from(count).unwrap_or(0).min(data.len())),
            Ok(Some(errno)) => Err(io::Error::from_raw_os_error(i32::try_from(-errno).unwrap_or(libc::EIO))),
            Err(error) => {
                error.write_unraisable(py, Some(callable.bind(py)));
                Err(io::Error::from_raw_os_error(libc::EIO))
            }
        }
    })
}

impl AsyncSeek for Stdio {
    fn start_seek(self: Pin<&mut Self>, _: SeekFrom) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ESPIPE))
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Err(io::Error::from_raw_os_error(libc::ESPIPE)))
    }
}

impl VirtualFile for Stdio {
    fn last_accessed(&self) -> u64 {
        0
    }

    fn last_modified(&self) -> u64 {
        0
    }

    fn created_time(&self) -> u64 {
        0
    }

    fn size(&self) -> u64 {
        0
    }

    fn set_len(&mut self, _: u64) -> FsResult<()> {
        Err(FsError::PermissionDenied)
    }

    fn unlink(&mut self) -> FsResult<()> {
        Err(FsError::PermissionDenied)
    }

    fn get_special_fd(&self) -> Option<u32> {
        Some(self.number)
    }

    fn poll_read_ready(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.number != 0 {
            return Poll::Ready(Ok(0));
        }
        self.readable(context).map_ok(|()| READY_BYTES)
    }

    fn poll_write_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(if self.number == 0 { 0 } else { READY_BYTES }))
    }
}
