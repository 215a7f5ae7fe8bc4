//! What can be seen to be wrong before anything is started.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use wirewheel::Listen;

use crate::config::{Command, Place};

/// What `--check` found.
#[derive(Debug)]
pub(crate) enum Finding {
    /// The options are wrong, and no waiting mends that.
    Mistake(String),
    /// What they name is not there, or not as it should be: it may come later.
    Missing(String),
}

/// The longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// Whether the file of an option is there for this process to read.
pub(crate) fn readable(option: &str, path: &Path) -> Result<(), String> {
    let opened = File::open(path).map(drop);
    opened.map_err(|error| format!("--{option} {}: {error}", path.display()))
}

/// Whether a program is there and can be started.
pub(crate) fn program(command: &Command) -> Result<(), String> {
    let program = &command.program;
    let shown = Path::new(program).display();
    let path = find(program).ok_or_else(|| match program.as_bytes().contains(&b'/') {
        true => format!("--exec {shown}: there is no such program"),
        false => format!("--exec {shown}: there is no such program in PATH"),
    })?;
    startable(&path).map_err(|wrong| format!("--exec {shown}: {wrong}"))?;
    match interpreter(&path).filter(|interpreter| startable(interpreter).is_err()) {
        None => Ok(()),
        Some(missing) => {
            Err(format!("--exec {shown}: its interpreter {} cannot be started", missing.display()))
        }
    }
}

/// Where a program is, as execvp(3) looks for it.
fn find(program: &OsString) -> Option<PathBuf> {
    let direct = PathBuf::from(program);
    if program.as_bytes().contains(&b'/') {
        return direct.exists().then_some(direct);
    }
    let folders = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let mut candidates = std::env::split_paths(&folders).map(|folder| folder.join(program));
    let all: Vec<PathBuf> = candidates.by_ref().filter(|path| path.exists()).collect();
    let first = all.iter().find(|path| startable(path).is_ok()).or_else(|| all.first());
    first.cloned()
}

fn startable(path: &Path) -> Result<(), String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is no file".into());
    }
    access(path, Access::EXEC_OK).map_err(|_| "it is not executable (chmod +x)".into())
}

/// What a script names in its first line (execve(2)).
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut beginning = Vec::new();
    File::open(path).ok()?.take(256).read_to_end(&mut beginning).ok()?;
    let line = beginning.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = line.trim_ascii_start();
    let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    Some(OsString::from_vec(line.get(..end)?.to_vec()).into())
}

/// Whether it can be listened at all places, as far as can be seen without doing so.
pub(crate) fn places(places: &[Place]) -> Result<(), Finding> {
    let mut taken: Vec<(Taken, &str)> = Vec::new();
    for (number, place) in places.iter().enumerate() {
        let mut before = places.iter().take(number);
        let is_there = before.any(|other| other.socket() == place.socket());
        let text = match place.socket() {
            Place::Address(text) if is_there && !text.ends_with(":0") => {
                return Err(Finding::Mistake(format!("--listen {place} is given twice")));
            }
            Place::Address(text) => text,
            Place::Descriptor(_) if is_there => {
                return Err(Finding::Mistake(format!("--listen {place} is given twice")));
            }
            Place::Descriptor(_) | Place::Activated | Place::Tls(_) => continue,
        };
        let listen = Listen::from(text);
        let takes = taken_by(&listen).map_err(|error| {
            let text = format!("--listen {listen}: {error}");
            match error.kind() {
                io::ErrorKind::InvalidInput => Finding::Mistake(text),
                _ => Finding::Missing(text),
            }
        })?;
        let clash = taken.iter().find(|(other, _)| takes.iter().any(|it| other.excludes(it)));
        if let Some((_, other)) = clash {
            return Err(Finding::Mistake(format!("--listen {text} is taken by --listen {other}")));
        }
        taken.extend(takes.into_iter().map(|it| (it, text.as_str())));
    }
    Ok(())
}

/// What a place takes for itself.
#[derive(PartialEq, Eq)]
enum Taken {
    Address(SocketAddr),
    /// The socket's path, however it was written.
    Path(PathBuf),
}

impl Taken {
    /// Whether nobody can have the other where somebody has this.
    fn excludes(&self, other: &Self) -> bool {
        let (Self::Address(one), Self::Address(other)) = (self, other) else {
            return self == other;
        };
        // Every address of a family excludes each of them. A system gives a port 0 of its own to each.
        let is_every = one.ip().is_unspecified() || other.ip().is_unspecified();
        let same_family = one.is_ipv4() == other.is_ipv4();
        one.port() != 0
            && one.port() == other.port()
            && same_family
            && (is_every || one.ip() == other.ip())
    }
}

fn taken_by(listen: &Listen) -> io::Result<Vec<Taken>> {
    match listen {
        Listen::Tcp(_) => Ok(listen.addresses()?.into_iter().map(Taken::Address).collect()),
        Listen::Unix(path) => socket_path(path).map(|path| vec![Taken::Path(path)]),
        _ => Ok(Vec::new()),
    }
}

/// The path of a socket that could be there, without links on the way to it.
fn socket_path(path: &Path) -> io::Result<PathBuf> {
    let refused = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        return refused("the path is longer than a Unix socket's can be (107 bytes)");
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    if !folder.metadata()?.is_dir() {
        return refused("what holds it is no folder");
    }
    access(folder, Access::WRITE_OK | Access::EXEC_OK)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            refused("the path is taken by something that is no socket")
        }
        _ => Ok(folder.canonicalize()?.join(path.file_name().unwrap_or_default())),
    }
}
