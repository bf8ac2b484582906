//! The guest's standard streams: host descriptors, or Python callables for what it writes.
//!
//! `wasmer-wasix` hands the parts of one `fd_write` over one by one and says when that was all (`flush`). They are
//! gathered, so that one write of the guest is one write of the host: lines stay whole and cost one system call each.

use std::fs::File;
use std::io::{self, ErrorKind, IoSlice, IsTerminal, Read, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::fs::FileTypeExt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use wasmer_wasix::VirtualFile;
use wasmer_wasix::virtual_fs::{AsyncRead, AsyncSeek, AsyncWrite, FsError, ReadBuf, Result as FsResult};
use wasmer_wasix::wasmer_wasix_types::wasi::Filetype;

use crate::runtime::Interruption;

/// How much a stream says it will take or give; nobody relies on the number.
const READY_BYTES: usize = 8192;
/// So much is copied together before it is written; what is larger is written from where it lies.
const GATHERED_BYTES: usize = 64 << 10;

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
    /// Parts of the guest's present `fd_write`.
    gathered: Vec<u8>,
    /// What writing them ended with, to be told at the flush.
    failed: Option<io::Error>,
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
        Ok(Self { stream, number, interruption, watch: Arc::default(), gathered: Vec::new(), failed: None })
    }

    /// What the guest shall take the stream for. Only a terminal is a character device: C libraries write line by line
    /// to those, and in large pieces to all others.
    pub fn filetype(&self) -> Filetype {
        let Stream::File(file) = &self.stream else {
            return Filetype::Unknown;
        };
        match file.metadata().map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_file() => Filetype::RegularFile,
            Ok(kind) if kind.is_dir() => Filetype::Directory,
            Ok(kind) if kind.is_block_device() => Filetype::BlockDevice,
            Ok(kind) if kind.is_socket() => Filetype::SocketStream,
            Ok(kind) if kind.is_char_device() && file.is_terminal() => Filetype::CharacterDevice,
            // WASI has no name for a pipe.
            _ => Filetype::Unknown,
        }
    }

    /// Write what was gathered, and `data` after it, to the end.
    fn write_out(&mut self, data: &[u8]) -> io::Result<()> {
        let mut gathered = std::mem::take(&mut self.gathered);
        let result = self.write_parts([IoSlice::new(&gathered), IoSlice::new(data)]);
        gathered.clear();
        self.gathered = gathered; // its memory serves the next write
        result
    }

    fn write_parts(&self, mut parts: [IoSlice<'_>; 2]) -> io::Result<()> {
        let mut left = &mut parts[..];
        IoSlice::advance_slices(&mut left, 0); // drops empty ones
        while !left.is_empty() {
            let count = match &self.stream {
                Stream::Null => return Ok(()),
                Stream::Call(callable) => call(callable, &left[0])?,
                Stream::File(file) => match (&*file).write_vectored(left) {
                    Ok(count) => count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        // The guest may be told to wait, but it was not told that its stream is non-blocking: wait here.
                        wait(file.as_raw_fd(), libc::POLLOUT, -1);
                        if self.interruption.asked() {
                            return Err(ErrorKind::Interrupted.into());
                        }
                        continue;
                    }
                    Err(error) if self.again(&error) => continue,
                    Err(error) => return Err(error),
                },
            };
            if count == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, count);
        }
        Ok(())
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
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.number == 0 {
            return Poll::Ready(Err(ErrorKind::PermissionDenied.into()));
        }
        if matches!(self.stream, Stream::Null) {
            return Poll::Ready(Ok(data.len()));
        }
        if self.gathered.len() + data.len() <= GATHERED_BYTES {
            self.gathered.extend_from_slice(data);
            return Poll::Ready(Ok(data.len()));
        }
        let first = self.gathered.is_empty();
        Poll::Ready(self.write_out(data).map(|()| data.len()).inspect_err(|error| {
            if !first {
                // Earlier parts were taken as written: only the flush can still tell of it.
                let same = error.raw_os_error().map(io::Error::from_raw_os_error);
                self.failed = Some(same.unwrap_or_else(|| error.kind().into()));
            }
        }))
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let failed = self.failed.take().map_or(Ok(()), Err);
        Poll::Ready(failed.and_then(|()| self.write_out(&[])))
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
