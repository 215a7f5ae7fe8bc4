//! The watch on the files of certificates, by inotify on each folder that their paths go through.

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use log::warn;
use mio::Registry;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};

use crate::context::loop_state::{NewWatch, ServerRef};
use crate::context::watch::{Ready, Watch};
use crate::structures::ids::WatchId;
use crate::transport::tls::acceptor::Acceptor;

use super::watches::Watches;

/// So long after the first change files are read: a pair is mostly replaced one after the other.
const SETTLED: Duration = Duration::from_millis(500);

/// More links than that go in a circle.
const LINKS_MAX: usize = 40;

/// What is seen of a folder: names that come, go, or lead elsewhere.
const NAMES: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::ONLYDIR);
/// And of one where such a file lies: that somebody has written to it and is done.
const FILES: WatchFlags = NAMES.union(WatchFlags::CLOSE_WRITE);

/// The folders that are watched, and which of the names in them matter.
#[derive(Debug)]
struct FolderWatch {
    files: Vec<PathBuf>,
    /// By the number that the system gives to a watched folder.
    names: HashMap<i32, Vec<OsString>>,
    /// A reload is due.
    is_due: Rc<Cell<bool>>,
}

/// Has certificates reloaded when their files change, where that is wanted. Without inotify they are not.
pub(super) fn watch_certificates(
    mut watches: Watches,
    registry: &Registry,
    acceptors: &[Option<Rc<Acceptor>>],
) -> Watches {
    let acceptors = acceptors.iter().flatten();
    let files: Vec<_> = acceptors.flat_map(|acceptor| acceptor.watched_files()).collect();
    if files.is_empty() {
        return watches;
    }
    let id = WatchId::OF_THE_SERVER;
    if let Err(error) = watch_files(files).and_then(|watch| watches.add(registry, id, watch)) {
        warn!(target: "wirewheel::server",
            "certificates are not reloaded when their files change: {error}");
    }
    watches
}

/// Has the loop reload certificates soon after one of these files has changed, wherever their links lead.
fn watch_files(files: Vec<PathBuf>) -> io::Result<NewWatch> {
    let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
    let mut watch = FolderWatch { files, names: HashMap::new(), is_due: Rc::default() };
    for (folder, error) in watch.follow(&inotify) {
        warn!(target: "wirewheel::server",
            "changes in {} are not noticed: {error}", folder.display());
    }
    Ok(NewWatch::new(inotify, Ready::READABLE, move |server, inotify: &mut OwnedFd, _| {
        if watch.has_changed(inotify) {
            watch.follow(inotify); // links may lead elsewhere from now on
            watch.reload_soon(server);
        }
        Watch::For(Ready::READABLE)
    }))
}

impl FolderWatch {
    /// Watches what the paths go through now, and nothing else. Gives back the folders of files that cannot
    /// be watched.
    fn follow(&mut self, inotify: &OwnedFd) -> Vec<(PathBuf, io::Error)> {
        let mut names: HashMap<i32, Vec<OsString>> = HashMap::new();
        let mut failed = Vec::new();
        for Step { folder, name, is_last } in self.files.iter().flat_map(|file| steps(file)) {
            // A folder may be on the way of several: none of what is seen of it is taken back.
            let flags = if is_last { FILES } else { NAMES } | WatchFlags::MASK_ADD;
            match inotify::add_watch(inotify, &folder, flags) {
                Ok(number) => names.entry(number).or_default().push(name),
                Err(error) if is_last => failed.push((folder, error.into())),
                Err(_) => {} // nobody but its owner may look into it, or it is not there yet
            }
        }
        for number in self.names.keys().filter(|number| !names.contains_key(number)) {
            // It fails where the folder is gone, and the watch with it.
            let _ = inotify::remove_watch(inotify, *number);
        }
        self.names = names;
        failed
    }

    /// Whether something has happened to one of the names; one buffer of events at a time.
    fn has_changed(&self, inotify: &OwnedFd) -> bool {
        let mut buffer = [MaybeUninit::uninit(); 4_096];
        let mut events = inotify::Reader::new(inotify, &mut buffer);
        let mut has_changed = false;
        while let Ok(event) = events.next() {
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
            has_changed |= event.events().contains(ReadFlags::QUEUE_OVERFLOW)
                || name.is_some_and(|name| self.matters(event.wd(), name));
            if events.is_buffer_empty() {
                break;
            }
        }
        has_changed
    }

    fn matters(&self, folder: i32, name: &OsStr) -> bool {
        self.names.get(&folder).is_some_and(|names| names.iter().any(|it| it == name))
    }

    fn reload_soon(&self, server: &mut ServerRef<'_>) {
        if self.is_due.replace(true) {
            return;
        }
        let is_due = Rc::clone(&self.is_due);
        let reload = move |server: &mut ServerRef<'_>| {
            is_due.set(false);
            server.reload_certificates();
        };
        // It fails for absurd times only.
        let _ = server.after(SETTLED, reload);
    }
}

/// A name that is looked up on the way to a file.
struct Step {
    folder: PathBuf,
    name: OsString,
    is_last: bool,
}

/// How the system finds a file: each name in its folder, and what links put in its place.
fn steps(file: &Path) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut folder = PathBuf::from("/");
    let mut links = 0;
    let mut rest = VecDeque::new();
    put_before(&mut rest, &std::path::absolute(file).unwrap_or_default());
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            folder.pop();
            continue;
        }
        steps.push(Step { folder: folder.clone(), name: name.clone(), is_last: rest.is_empty() });
        let path = folder.join(&name);
        match fs::read_link(&path) {
            Ok(_) if links == LINKS_MAX => break,
            Ok(target) => {
                links += 1;
                if target.is_absolute() {
                    folder = PathBuf::from("/");
                }
                put_before(&mut rest, &target);
            }
            Err(_) => folder = path, // no link, or not there
        }
    }
    steps
}

fn put_before(rest: &mut VecDeque<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

#[cfg(all(repository, test))]
mod tests;
