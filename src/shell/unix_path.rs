//! The file of a Unix socket: taking its path over from a process that was killed, and removing it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use socket2::{Domain, SockAddr, Socket, Type};

/// The file of a Unix socket that this process made; dropping it removes the file.
#[derive(Debug)]
pub(crate) struct SocketFile {
    path: PathBuf,
    /// Device and inode: by the end the path may be somebody else's.
    identity: (u64, u64),
}

impl SocketFile {
    /// Binds a socket to a path and has it listen. A socket there on which nobody listens any more is
    /// replaced.
    pub(crate) fn listen(
        socket: &Socket,
        path: &Path,
        mode: Option<u32>,
        backlog: i32,
    ) -> io::Result<Self> {
        // Between `bind` and `listen` a socket looks as one that was left does.
        // The program may go to another folder meanwhile.
        let absolute = std::path::absolute(path)?;
        let claim = Claim::of(path)?;
        let address = SockAddr::unix(path)?;
        match socket.bind(&address) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && is_stale(path, &address)? => {
                fs::remove_file(path)?;
                socket.bind(&address)?;
            }
            result => result?,
        }
        let file = Self { path: absolute, identity: identity(path)? };
        let opened = open(socket, path, mode, backlog);
        // The file is removed under the same claim: for one of its own it would wait without end.
        drop(claim);
        opened.map(|()| file)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Whoever replaces it meanwhile is not to lose what it has made. Without a claim the file
        // stays, and is found stale at the next start.
        let Ok(_claim) = Claim::of(&self.path) else { return };
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn open(socket: &Socket, path: &Path, mode: Option<u32>, backlog: i32) -> io::Result<()> {
    if let Some(mode) = mode {
        // Nobody can connect before `listen`.
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    socket.listen(backlog)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Whether a path is a socket on which nobody listens any more: left by a process that was killed.
fn is_stale(path: &Path, address: &SockAddr) -> io::Result<bool> {
    if !fs::symlink_metadata(path)?.file_type().is_socket() {
        let text = "the path is taken by something that is no socket; remove it or choose another";
        return Err(io::Error::new(ErrorKind::AlreadyExists, text));
    }
    // Without waiting: a server whose backlog is full is there too.
    match Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?.connect(address) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(true),
        _ => Ok(false),
    }
}

/// The right to look at a path and to change what is there, of one server at a time. The system takes it
/// back from a process that dies.
struct Claim {
    path: PathBuf,
    _locked: File,
}

impl Claim {
    /// Waits while another has it, which is for a few calls of the system.
    fn of(socket: &Path) -> io::Result<Self> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)?;
            while let Err(error) = flock(&file, FlockOperation::LockExclusive) {
                if error != rustix::io::Errno::INTR {
                    return Err(error.into());
                }
            }
            // Who had it has removed the file, and the next one may have made another.
            let metadata = file.metadata()?;
            if identity(&path).is_ok_and(|found| found == (metadata.dev(), metadata.ino())) {
                return Ok(Self { path, _locked: file });
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While it is locked: nobody can have it in the same moment.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(all(repository, test))]
mod tests;
