//! A folder of the file system: opening what a path names in it, and never leaving it.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use log::warn;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::app::file_body::FileBody;
use crate::app::folder_source::{Content, Entry, Opened, Source};
use crate::app::open_folders::OpenFolders;

/// Reading. A pipe is not waited for, and a terminal does not become that of the process.
const OPEN: OFlags =
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
const OPEN_ROOT: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::DIRECTORY);

/// How often a path is looked up anew because something was renamed meanwhile, anywhere in the system.
const LOOKUPS_MAX: usize = 64;

/// It is opened anew for requests that did not come together: it may have been replaced by another since, or
/// the link to it.
#[derive(Debug)]
pub(super) struct DiskFolder {
    path: PathBuf,
    has_openat2: bool,
    open_folders: Rc<OpenFolders>,
    number: u32,
}

/// The folder as it is during one request.
struct Root {
    fd: Rc<OwnedFd>,
    has_openat2: bool,
}

impl DiskFolder {
    pub(super) fn open(path: &Path, open_folders: Rc<OpenFolders>) -> io::Result<Self> {
        let (path, number) = (std::path::absolute(path)?, open_folders.number());
        let mut folder = Self { path, has_openat2: true, open_folders, number };
        let root = folder.root()?;
        // What can be opened in another way and not in this one shows that this one is not there, with
        // whatever error: Linux before 5.6 says ENOSYS, filters of containers and of systemd say EPERM.
        if let Err(error) = root.open_beneath(&[]) {
            folder.has_openat2 = false;
            warn!(
                target: "wirewheel::server",
                "openat2: {error}: symbolic links beneath {} are not followed", folder.path.display()
            );
        }
        folder.open_folders.close();
        Ok(folder)
    }

    fn root(&self) -> Result<Root, Errno> {
        let open = || openat(CWD, &self.path, OPEN_ROOT, Mode::empty());
        let fd = self.open_folders.folder(self.number, open)?;
        Ok(Root { fd, has_openat2: self.has_openat2 })
    }
}

impl Source for DiskFolder {
    fn open(&self) -> Result<Box<dyn Opened + '_>, Errno> {
        Ok(Box::new(self.root()?))
    }
}

impl Opened for Root {
    fn entry(&self, names: &[&str]) -> Result<Entry, Errno> {
        let file = if self.has_openat2 {
            self.open_beneath(names)?
        } else {
            self.open_without_links(names)?
        };
        let metadata = file.metadata().map_err(errno)?;
        if metadata.is_dir() {
            return Ok(Entry::Folder);
        }
        let body = FileBody::of_regular(file, &metadata).ok_or(Errno::NOENT)?;
        Ok(Entry::File(Content::OnDisk(body)))
    }
}

impl Root {
    /// Opens what a path names, following links only as long as they stay beneath the folder.
    fn open_beneath(&self, names: &[&str]) -> Result<File, Errno> {
        let path = if names.is_empty() { ".".to_owned() } else { names.join("/") };
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // openat2(2): EAGAIN where a link leads up and something is renamed at that moment.
        let mut lookups = (0..LOOKUPS_MAX).map(|_| {
            openat2(&self.fd, path.as_str(), OPEN, Mode::empty(), beneath).map(File::from)
        });
        let settled = |found: &Result<File, Errno>| !matches!(found, Err(Errno::AGAIN));
        lookups.find(settled).unwrap_or(Err(Errno::AGAIN))
    }

    /// Opens what a path names if there is no link on the way, and no way back.
    fn open_without_links(&self, names: &[&str]) -> Result<File, Errno> {
        if names.contains(&"..") {
            return Err(Errno::XDEV); // as openat2 says
        }
        let Some((last, folders)) = names.split_last() else {
            return openat(&self.fd, ".", OPEN, Mode::empty()).map(File::from);
        };
        let below = |folder: &OwnedFd, name: &str, flags| {
            openat(folder, name, flags | OFlags::NOFOLLOW, Mode::empty())
        };
        let mut found = None;
        for name in folders {
            found = Some(below(found.as_ref().unwrap_or(&self.fd), name, OPEN_ROOT)?);
        }
        below(found.as_ref().unwrap_or(&self.fd), last, OPEN).map(File::from)
    }
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// Each way of opening, against the same folder.
    #[test]
    fn nothing_outside_is_opened_in_either_way() {
        let base = std::env::temp_dir().join(format!("wirewheel-beneath-{}", std::process::id()));
        let root = base.join("root");
        fs::create_dir_all(root.join("below")).unwrap();
        fs::write(base.join("secret"), "secret").unwrap();
        fs::write(root.join("below/page"), "page").unwrap();
        symlink("../secret", root.join("out")).unwrap();
        symlink(base.join("secret"), root.join("absolute")).unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink("below/page", root.join("inside")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let root = DiskFolder::open(&root, Rc::default()).unwrap().root().unwrap();
        let long = "x".repeat(256);
        let outside: [&[&str]; 10] = [
            &["out"],
            &["absolute"],
            &["up", "secret"],
            &[".."],
            &["below", "..", "..", "secret"],
            &["magic", "etc", "passwd"],
            &["loop"],
            &["missing"],
            &["below", "page", "x"],
            &[&long],
        ];
        for path in outside {
            assert!(root.open_beneath(path).is_err(), "{path:?}");
            assert!(root.open_without_links(path).is_err(), "{path:?}");
        }
        let content = |file: Result<File, Errno>| {
            let mut text = String::new();
            file.map(|mut file| file.read_to_string(&mut text).unwrap()).unwrap();
            text
        };
        assert_eq!(content(root.open_beneath(&["below", "page"])), "page");
        assert_eq!(content(root.open_without_links(&["below", "page"])), "page");
        assert_eq!(root.open_without_links(&["inside"]).unwrap_err(), Errno::LOOP);
        assert!(root.open_without_links(&[]).unwrap().metadata().unwrap().is_dir());
        fs::remove_dir_all(base).unwrap();
    }

    /// One that stayed open would keep a disk from being taken away, and show what it was replaced by to
    /// nobody.
    #[test]
    fn a_folder_is_open_until_the_turn_is_over() {
        let base = std::env::temp_dir().join(format!("wirewheel-turns-{}", std::process::id()));
        for name in ["one", "other"] {
            fs::create_dir_all(base.join(name)).unwrap();
            fs::write(base.join(name).join(name), "").unwrap();
        }
        symlink("one", base.join("link")).unwrap();
        let open_folders: Rc<OpenFolders> = Rc::default();
        let folder = DiskFolder::open(&base.join("link"), Rc::clone(&open_folders)).unwrap();
        let has = |name: &str| folder.open().and_then(|root| root.entry(&[name])).is_ok();
        assert!(has("one") && !has("other"));
        let fd = Rc::downgrade(&folder.root().unwrap().fd);
        symlink("other", base.join("new")).unwrap();
        fs::rename(base.join("new"), base.join("link")).unwrap();
        assert!(has("one") && fd.strong_count() == 1);
        open_folders.close();
        assert!(has("other") && !has("one") && fd.strong_count() == 0);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_link_that_leads_up_is_followed_while_others_rename() {
        let base = std::env::temp_dir().join(format!("wirewheel-renames-{}", std::process::id()));
        fs::create_dir_all(base.join("below")).unwrap();
        fs::write(base.join("page"), "page").unwrap();
        symlink("../page", base.join("below/link")).unwrap();
        let folder = DiskFolder::open(&base, Rc::default()).unwrap();
        let root = folder.root().unwrap();
        let done = AtomicBool::new(false);
        let errors: Vec<Errno> = thread::scope(|scope| {
            scope.spawn(|| {
                let (one, other) = (base.join("one"), base.join("other"));
                fs::write(&one, "").unwrap();
                while !done.load(Ordering::Relaxed) {
                    fs::rename(&one, &other).unwrap();
                    fs::rename(&other, &one).unwrap();
                }
            });
            let opened = (0..100_000).map(|_| root.open_beneath(&["below", "link"]));
            let errors = opened.filter_map(Result::err).collect();
            done.store(true, Ordering::Relaxed);
            errors
        });
        assert_eq!(errors, []);
        fs::remove_dir_all(base).unwrap();
    }
}
