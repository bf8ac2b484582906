//! A host directory as a guest sees it: nothing above it can be reached, and read-only means read-only.
//!
//! `wasmer-wasix` checks rights per descriptor, but its virtual root has all rights and creates files before it looks:
//! under a preopen with read rights only, a guest can still create empty files. And its host file system follows
//! symbolic links wherever they lead. So each path is resolved by the kernel, below the directory's own descriptor
//! (`openat2`, RESOLVE_BENEATH), and a read-only directory refuses every change here, whatever was asked above.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{File, Metadata as HostMetadata};
use std::io::{self, ErrorKind, SeekFrom};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{SystemTime, UNIX_EPOCH};

use wasmer_wasix::VirtualFile;
use wasmer_wasix::virtual_fs::{
    AsyncRead, AsyncSeek, AsyncWrite, DirEntry, FileOpener, FileSystem, FileType, FsError, Metadata, OpenOptions,
    OpenOptionsConfig, ReadBuf, ReadDir, Result,
};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[derive(Debug, Clone)]
pub struct HostDir {
    root: Arc<OwnedFd>,
    read_only: bool,
}

impl HostDir {
    pub fn open(path: &Path, read_only: bool) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        let root = owned(unsafe { libc::open(path.as_ptr(), flags) })?;
        let found = Self { root: Arc::new(root), read_only };
        // Tells now, and not at the guest's first access, if the kernel has no openat2.
        found.beneath(Path::new("/"), libc::O_PATH, 0)?;
        Ok(found)
    }

    /// Open `path` (the guest's, absolute below this directory).
    fn beneath(&self, path: &Path, flags: i32, mode: u32) -> io::Result<OwnedFd> {
        let path = relative(path)?;
        let mut how: libc::open_how = unsafe { std::mem::zeroed() };
        how.flags = (flags | libc::O_CLOEXEC) as u64;
        how.mode = u64::from(mode);
        how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
        loop {
            let fd = unsafe {
                libc::syscall(
                    libc::SYS_openat2,
                    self.root.as_raw_fd(),
                    path.as_ptr(),
                    &raw const how,
                    size_of::<libc::open_how>(),
                )
            };
            match owned(fd as RawFd) {
                // EAGAIN: somebody renames directories while the kernel looks for `..`.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => {}
                result => return result,
            }
        }
    }

    /// The directory that holds `path`, and the last name of it.
    fn parent(&self, path: &Path) -> Result<(OwnedFd, CString)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(FsError::PermissionDenied);
        };
        let fd = self.beneath(parent, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(fs_error)?;
        Ok((fd, CString::new(name.as_bytes()).map_err(|_| FsError::InvalidInput)?))
    }

    fn writable(&self) -> Result<()> {
        if self.read_only { Err(FsError::PermissionDenied) } else { Ok(()) }
    }

    fn stat(&self, path: &Path, flags: i32) -> Result<Metadata> {
        let file = File::from(self.beneath(path, libc::O_PATH | flags, 0).map_err(fs_error)?);
        Ok(metadata(&file.metadata().map_err(fs_error)?))
    }

    fn unlink(&self, path: &Path, flags: i32) -> Result<()> {
        self.writable()?;
        let (parent, name) = self.parent(path)?;
        done(unsafe { libc::unlinkat(parent.as_raw_fd(), name.as_ptr(), flags) })
    }

    fn open_file(&self, path: &Path, conf: &OpenOptionsConfig) -> Result<HostFile> {
        let changes = conf.write() || conf.append() || conf.truncate();
        if self.read_only && (changes || conf.create_new()) {
            return Err(FsError::PermissionDenied);
        }
        let writes = conf.write() || conf.append();
        let mut flags = match (conf.read(), writes) {
            (true, true) => libc::O_RDWR,
            (false, true) => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        if conf.create_new() {
            flags |= libc::O_CREAT | libc::O_EXCL;
        } else if conf.create() && !self.read_only {
            flags |= libc::O_CREAT;
        }
        if conf.truncate() {
            flags |= libc::O_TRUNC;
        } else if conf.append() {
            flags |= libc::O_APPEND;
        }
        // A FIFO that lies about would hang the guest in the open itself; O_NONBLOCK means nothing to a regular file.
        flags |= libc::O_NONBLOCK | libc::O_NOCTTY;
        let mode = if flags & libc::O_CREAT == 0 { 0 } else { 0o666 };
        let file = match self.beneath(path, flags, mode) {
            Ok(fd) => File::from(fd),
            Err(error) if self.read_only && conf.create() && error.kind() == ErrorKind::NotFound => {
                return Err(FsError::PermissionDenied);
            }
            Err(error) => return Err(fs_error(error)),
        };
        if !file.metadata().map_err(fs_error)?.is_file() {
            return Err(FsError::NotAFile);
        }
        Ok(HostFile { dir: self.clone(), path: path.to_owned(), file, position: 0 })
    }
}

impl FileOpener for HostDir {
    fn open(&self, path: &Path, conf: &OpenOptionsConfig) -> Result<Box<dyn VirtualFile + Send + Sync + 'static>> {
        Ok(Box::new(self.open_file(path, conf)?))
    }
}

impl FileSystem for HostDir {
    fn readlink(&self, path: &Path) -> Result<PathBuf> {
        let link = self.beneath(path, libc::O_PATH | libc::O_NOFOLLOW, 0).map_err(fs_error)?;
        let mut target = vec![0u8; libc::PATH_MAX as usize];
        let length =
            unsafe { libc::readlinkat(link.as_raw_fd(), c"".as_ptr(), target.as_mut_ptr().cast(), target.len()) };
        // ENOENT is what an empty path means for anything but a link.
        let length = usize::try_from(length).map_err(|_| FsError::InvalidInput)?;
        Ok(PathBuf::from(OsStr::from_bytes(&target[..length])))
    }

    fn read_dir(&self, path: &Path) -> Result<ReadDir> {
        let fd = self.beneath(path, libc::O_RDONLY | libc::O_DIRECTORY, 0).map_err(fs_error)?;
        let mut entries = Vec::new();
        for name in names(fd).map_err(fs_error)? {
            let inside = path.join(OsStr::from_bytes(name.to_bytes()));
            // Gone since the directory was read: not an error of the reader's.
            match self.stat(&inside, libc::O_NOFOLLOW) {
                Err(FsError::EntryNotFound) => {}
                metadata => entries.push(DirEntry { path: inside, metadata }),
            }
        }
        entries.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(ReadDir::new(entries))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        self.writable()?;
        let (parent, name) = self.parent(path)?;
        done(unsafe { libc::mkdirat(parent.as_raw_fd(), name.as_ptr(), 0o777) })
    }

    fn create_symlink(&self, source: &Path, target: &Path) -> Result<()> {
        self.writable()?;
        // It would lead out of the directory for everybody but the guest.
        if source.is_absolute() {
            return Err(FsError::PermissionDenied);
        }
        let (parent, name) = self.parent(target)?;
        let source = CString::new(source.as_os_str().as_bytes()).map_err(|_| FsError::InvalidInput)?;
        done(unsafe { libc::symlinkat(source.as_ptr(), parent.as_raw_fd(), name.as_ptr()) })
    }

    fn hard_link(&self, source: &Path, target: &Path) -> Result<()> {
        self.writable()?;
        let (from, old) = self.parent(source)?;
        let (to, new) = self.parent(target)?;
        done(unsafe { libc::linkat(from.as_raw_fd(), old.as_ptr(), to.as_raw_fd(), new.as_ptr(), 0) })
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.unlink(path, libc::AT_REMOVEDIR)
    }

    fn rename<'a>(&'a self, from: &'a Path, to: &'a Path) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.writable()?;
            let (old_dir, old) = self.parent(from)?;
            let (new_dir, new) = self.parent(to)?;
            done(unsafe { libc::renameat(old_dir.as_raw_fd(), old.as_ptr(), new_dir.as_raw_fd(), new.as_ptr()) })
        })
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        self.stat(path, 0)
    }

    fn symlink_metadata(&self, path: &Path) -> Result<Metadata> {
        self.stat(path, libc::O_NOFOLLOW)
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.unlink(path, 0)
    }

    fn new_open_options(&self) -> OpenOptions<'_> {
        OpenOptions::new(self)
    }
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

fn done(result: i32) -> Result<()> {
    if result < 0 { Err(fs_error(io::Error::last_os_error())) } else { Ok(()) }
}

fn relative(path: &Path) -> io::Result<CString> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let bytes = path.as_os_str().as_bytes();
    Ok(CString::new(if bytes.is_empty() { b"." } else { bytes })?)
}

fn fs_error(error: io::Error) -> FsError {
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM | libc::EROFS | libc::EXDEV | libc::ELOOP) => FsError::PermissionDenied,
        Some(libc::ENOTDIR) => FsError::BaseNotDirectory,
        Some(libc::EISDIR) => FsError::NotAFile,
        Some(libc::ENOTEMPTY) => FsError::DirectoryNotEmpty,
        Some(libc::ENOSPC | libc::EDQUOT) => FsError::StorageFull,
        _ => error.into(),
    }
}

/// The names in a directory, without `.` and `..`.
fn names(fd: OwnedFd) -> io::Result<Vec<CString>> {
    let stream = unsafe { libc::fdopendir(std::os::fd::IntoRawFd::into_raw_fd(fd)) };
    if stream.is_null() {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    loop {
        let entry = unsafe { libc::readdir64(stream) };
        if entry.is_null() {
            break;
        }
        let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
        if name != c"." && name != c".." {
            found.push(name.to_owned());
        }
    }
    unsafe { libc::closedir(stream) };
    Ok(found)
}

fn nanoseconds(time: io::Result<SystemTime>) -> u64 {
    let since = time.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

fn metadata(host: &HostMetadata) -> Metadata {
    let kind = host.file_type();
    Metadata {
        ft: FileType {
            dir: kind.is_dir(),
            file: kind.is_file(),
            symlink: kind.is_symlink(),
            char_device: kind.is_char_device(),
            block_device: kind.is_block_device(),
            socket: kind.is_socket(),
            fifo: kind.is_fifo(),
        },
        accessed: nanoseconds(host.accessed()),
        created: nanoseconds(host.created()),
        modified: nanoseconds(host.modified()),
        len: host.len(),
    }
}

/// A regular file. Its position is the guest's own: two guests, or two descriptors, never share one.
#[derive(Debug)]
struct HostFile {
    dir: HostDir,
    path: PathBuf,
    file: File,
    position: u64,
}

impl AsyncRead for HostFile {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let count = self.file.read_at(into.initialize_unfilled(), self.position)?;
        into.advance(count);
        self.position += count as u64;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HostFile {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        // With O_APPEND, Linux appends whatever the offset.
        let count = self.file.write_at(data, self.position)?;
        self.position += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for HostFile {
    fn start_seek(mut self: Pin<&mut Self>, to: SeekFrom) -> io::Result<()> {
        let (base, offset) = match to {
            SeekFrom::Start(position) => (position, 0),
            SeekFrom::Current(offset) => (self.position, offset),
            SeekFrom::End(offset) => (self.file.metadata()?.len(), offset),
        };
        self.position = base.checked_add_signed(offset).ok_or(ErrorKind::InvalidInput)?;
        Ok(())
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.position))
    }
}

impl HostFile {
    fn now(&self) -> Metadata {
        self.file.metadata().map(|host| metadata(&host)).unwrap_or_default()
    }
}

impl VirtualFile for HostFile {
    fn last_accessed(&self) -> u64 {
        self.now().accessed
    }

    fn last_modified(&self) -> u64 {
        self.now().modified
    }

    fn created_time(&self) -> u64 {
        self.now().created
    }

    fn set_times(&mut self, accessed: Option<u64>, modified: Option<u64>) -> Result<()> {
        self.dir.writable()?;
        let time = |nanoseconds: Option<u64>| match nanoseconds {
            None => libc::timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT },
            Some(value) => libc::timespec {
                tv_sec: (value / 1_000_000_000) as libc::time_t,
                tv_nsec: (value % 1_000_000_000) as libc::c_long,
            },
        };
        let times = [time(accessed), time(modified)];
        done(unsafe { libc::futimens(self.file.as_raw_fd(), times.as_ptr()) })
    }

    fn size(&self) -> u64 {
        self.now().len
    }

    fn set_len(&mut self, size: u64) -> Result<()> {
        self.dir.writable()?;
        self.file.set_len(size).map_err(fs_error)
    }

    fn unlink(&mut self) -> Result<()> {
        self.dir.remove_file(&self.path)
    }

    fn poll_read_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let left = self.now().len.saturating_sub(self.position);
        Poll::Ready(Ok(usize::try_from(left).unwrap_or(usize::MAX)))
    }

    fn poll_write_ready(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(8192))
    }
}
