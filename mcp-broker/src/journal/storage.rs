//! Where segments lie: a directory, or whatever a test puts in its place.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Named segments of bytes. What was written may be lost until it is synced, in any part.
pub trait Storage: Send + 'static {
    /// A segment that is written to.
    type File: SegmentFile;

    /// The numbers of the segments, ascending.
    ///
    /// # Errors
    /// When that can't be said.
    fn list(&self) -> io::Result<Vec<u64>>;

    /// All of a segment.
    ///
    /// # Errors
    /// When it can't be read.
    fn read(&self, number: u64) -> io::Result<Bytes>;

    /// A part of a segment: shorter than asked for where it ends.
    ///
    /// # Errors
    /// When it can't be read.
    fn read_at(&self, number: u64, offset: u64, bytes: usize) -> io::Result<Bytes>;

    /// Makes a segment that begins with `header`, to be written to from there on. A crash leaves it
    /// with its header or not at all, and leaves it once this has returned. Behind the header may be
    /// anything.
    ///
    /// # Errors
    /// When it can't be made.
    fn create(&mut self, number: u64, header: &[u8]) -> io::Result<Self::File>;

    /// Cuts a segment off, and syncs that.
    ///
    /// # Errors
    /// When that can't be done for sure.
    fn truncate(&mut self, number: u64, bytes: u64) -> io::Result<()>;

    /// Removes a segment, which is gone after a crash too once this returns: a delete in it may be all
    /// that ends a put in an older one.
    ///
    /// # Errors
    /// When it can't be removed.
    fn remove(&mut self, number: u64) -> io::Result<()>;
}

/// A segment that is written to, from its header on.
pub trait SegmentFile: Send + 'static {
    /// Writes bytes behind those before.
    ///
    /// # Errors
    /// When not all are written; how many are is not known then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Brings what was appended to where a crash does not reach it.
    ///
    /// # Errors
    /// When that can't be said for sure. What is there then is not known.
    fn sync(&mut self) -> io::Result<()>;
}

/// Locked by whoever writes segments.
const LOCK_FILE: &str = "lock";

/// A directory with a file for each segment. One that was removed is kept to be the next one: to sync
/// what is written over blocks that a file already has takes two thirds of the time of what makes it
/// grow, and freeing 64 MiB of blocks may take 20 ms (ext4).
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Held as long as segments are written; or why they can't be.
    lock: io::Result<File>,
}

impl Directory {
    /// Opens a directory, or makes it with mode 0700. One process may write to it at a time. One that
    /// can't be written to can be read.
    ///
    /// # Errors
    /// When it can't be made; with [`io::ErrorKind::ResourceBusy`] when another process writes to it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path)?;
        let lock_file = path.join(LOCK_FILE);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).open(lock_file);
        let lock = lock.and_then(|lock| match lock.try_lock() {
            Ok(()) => Ok(lock),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::ResourceBusy.into()),
            Err(TryLockError::Error(error)) => Err(error),
        });
        match lock {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(error),
            lock => Ok(Self { path: path.to_owned(), lock }),
        }
    }

    /// A directory to look at, whoever writes to it.
    pub fn look(path: &Path) -> Self {
        let lock = Err(io::Error::new(io::ErrorKind::PermissionDenied, "it is only looked at"));
        Self { path: path.to_owned(), lock }
    }

    /// Whether some process writes to it now.
    ///
    /// # Errors
    /// When that can't be said.
    pub fn is_in_use(&self) -> io::Result<bool> {
        match File::open(self.path.join(LOCK_FILE)).map(|lock| lock.try_lock_shared()) {
            Ok(Ok(())) => Ok(false),
            Ok(Err(TryLockError::WouldBlock)) => Ok(true),
            Ok(Err(TryLockError::Error(error))) => Err(error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The file of a segment.
    pub fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("{number:016}.seg"))
    }

    /// What is to be the next segment.
    fn spare(&self) -> PathBuf {
        self.path.join("spare")
    }

    fn may_write(&self) -> io::Result<()> {
        match &self.lock {
            Ok(_) => Ok(()),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }

    fn sync(&self) -> io::Result<()> {
        // Names are data of the directory (Linux: fsync(2), "Calling fsync() does not necessarily
        // ensure that the entry in the directory containing the file has also reached disk").
        if cfg!(unix) { File::open(&self.path)?.sync_all() } else { Ok(()) }
    }
}

impl Storage for Directory {
    type File = File;

    fn list(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for file in fs::read_dir(&self.path)? {
            let name = file?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".seg")?.parse().ok());
            numbers.extend(number.filter(|number| self.file(*number).file_name() == Some(&name)));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn read(&self, number: u64) -> io::Result<Bytes> {
        fs::read(self.file(number)).map(Bytes::from)
    }

    fn read_at(&self, number: u64, offset: u64, bytes: usize) -> io::Result<Bytes> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(self.file(number))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut part = Vec::with_capacity(bytes);
        file.take(bytes as u64).read_to_end(&mut part)?;
        Ok(part.into())
    }

    fn create(&mut self, number: u64, header: &[u8]) -> io::Result<File> {
        self.may_write()?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(self.spare())?;
        file.write_all(header)?;
        file.sync_all()?;
        fs::rename(self.spare(), self.file(number))?;
        self.sync()?;
        Ok(file)
    }

    fn truncate(&mut self, number: u64, bytes: u64) -> io::Result<()> {
        self.may_write()?;
        let file = OpenOptions::new().write(true).open(self.file(number))?;
        file.set_len(bytes)?;
        file.sync_all()
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        self.may_write()?;
        fs::rename(self.file(number), self.spare())?;
        self.sync()
    }
}

impl SegmentFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
