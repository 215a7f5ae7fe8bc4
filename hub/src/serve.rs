//! The files of a folder as answers: what a path names, and that it never leaves the folder.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use percent_encoding::percent_decode_str;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use wirewheel::{Call, Response};

/// A folder whose files are served. Names that begin with a dot are not there, but for the one that
/// is meant to be asked for (RFC 8615).
#[derive(Debug)]
pub(crate) struct Folder {
    /// It is opened anew for each request: it may have been replaced by another since, or the link to
    /// it.
    path: PathBuf,
    has_openat2: bool,
}

/// Reading; a pipe is not waited for.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);
const WELL_KNOWN: &str = ".well-known";
/// How often a path is looked up anew because something was renamed meanwhile, anywhere in the system.
const LOOKUPS_MAX: usize = 64;

impl Folder {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let mut folder = Self { path: std::path::absolute(path)?, has_openat2: true };
        let root = folder.root()?;
        // What can be opened in another way and not in this one shows that this one is not there, with
        // whatever error: Linux before 5.6 says ENOSYS, filters of containers and of systemd say EPERM.
        if let Err(error) = folder.open_beneath(&root, &[]) {
            folder.has_openat2 = false;
            log::warn!("openat2: {error}: symbolic links beneath --serve are not followed");
        }
        Ok(folder)
    }

    fn root(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::DIRECTORY;
        openat(CWD, &self.path, flags, Mode::empty())
    }

    /// Answers a request for a path beneath the folder.
    pub(crate) fn answer(&self, call: &Call) -> Response {
        let Some(mut pieces) = pieces(call.path()) else { return not_found() };
        // An empty last piece is the slash behind a folder.
        let slash = pieces.last().is_some_and(|last| last.is_empty());
        if slash {
            pieces.pop();
        }
        let beneath = match pieces.first() {
            Some(first) if first == WELL_KNOWN => pieces.get(1..).unwrap_or_default(),
            _ => &pieces,
        };
        if !beneath.iter().all(|piece| is_plain(piece)) {
            return not_found();
        }
        let path: Vec<&str> = pieces.iter().map(AsRef::as_ref).collect();
        match self.root().and_then(|root| self.found(&root, path, slash, call)) {
            Ok(answer) => answer,
            Err(Errno::ACCESS | Errno::PERM) => Response::text("403 Forbidden\n").status(403),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN) => {
                Response::text("503 Service Unavailable\n").status(503)
            }
            // Links that lead out end here too.
            Err(_) => not_found(),
        }
    }

    fn found(
        &self,
        root: &OwnedFd,
        mut path: Vec<&str>,
        slash: bool,
        call: &Call,
    ) -> Result<Response, Errno> {
        let file = self.open_in(root, &path)?;
        let is_folder = file.metadata().is_ok_and(|metadata| metadata.is_dir());
        let found = match (is_folder, slash) {
            (true, false) => return Ok(into_folder(call)),
            (false, true) => return Ok(not_found()),
            (true, true) => {
                path.push("index.html");
                Response::open_file(self.open_in(root, &path)?, "index.html")
            }
            (false, false) => Response::open_file(file, path.last().unwrap_or(&"")),
        };
        // A page is asked for anew each time; what it says is what it is.
        Ok(found.header("Cache-Control", "no-cache").header("X-Content-Type-Options", "nosniff"))
    }

    fn open_in(&self, root: &OwnedFd, pieces: &[&str]) -> Result<File, Errno> {
        match self.has_openat2 {
            true => self.open_beneath(root, pieces),
            false => self.open_without_links(root, pieces),
        }
    }

    /// Opens what a path names, following links only as long as they stay beneath the folder.
    fn open_beneath(&self, root: impl AsFd, pieces: &[&str]) -> Result<File, Errno> {
        let path = if pieces.is_empty() { ".".to_owned() } else { pieces.join("/") };
        let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // openat2(2): EAGAIN where a link leads up and something is renamed at that moment.
        let mut lookups = (0..LOOKUPS_MAX)
            .map(|_| openat2(&root, path.as_str(), OPEN, Mode::empty(), beneath).map(File::from));
        let settled = |found: &Result<File, Errno>| !matches!(found, Err(Errno::AGAIN));
        lookups.find(settled).unwrap_or(Err(Errno::AGAIN))
    }

    /// Opens what a path names if there is no link on the way, and no way back.
    fn open_without_links(&self, root: impl AsFd, pieces: &[&str]) -> Result<File, Errno> {
        if pieces.contains(&"..") {
            return Err(Errno::XDEV); // as openat2 says
        }
        let mut found = openat(root, ".", OPEN | OFlags::DIRECTORY, Mode::empty())?;
        for (number, piece) in pieces.iter().enumerate() {
            let is_last = number + 1 == pieces.len();
            let kind = if is_last { OFlags::empty() } else { OFlags::DIRECTORY };
            found = openat(&found, *piece, OPEN | OFlags::NOFOLLOW | kind, Mode::empty())?;
        }
        Ok(found.into())
    }
}

/// The pieces of a path between its slashes, decoded; `None` if that is no text.
fn pieces(path: &str) -> Option<Vec<Cow<'_, str>>> {
    let pieces = path.strip_prefix('/')?.split('/');
    pieces.map(|piece| percent_decode_str(piece).decode_utf8().ok()).collect()
}

/// Whether a piece of a path is the name of one thing in its folder, and not hidden.
fn is_plain(piece: &str) -> bool {
    !piece.is_empty() && !piece.starts_with('.') && !piece.contains(['/', '\0'])
}

fn not_found() -> Response {
    Response::text("404 Not Found\n").status(404)
}

/// To the same path with a slash, so that a page's relative links work. Relative itself: an absolute
/// one such as `//elsewhere/` would lead to another server.
fn into_folder(call: &Call) -> Response {
    let last = call.path().rsplit('/').next().unwrap_or_default();
    let query = call.query();
    let mark = if query.is_empty() { "" } else { "?" };
    Response::new(301).header("Location", format!("./{last}/{mark}{query}"))
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
        let base = std::env::temp_dir().join(format!("wirewheel-hub-serve-{}", std::process::id()));
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
        let folder = Folder::open(&root).unwrap();
        let handle = folder.root().unwrap();
        let outside: [&[&str]; 7] = [
            &["out"],
            &["absolute"],
            &["up", "secret"],
            &["below", "..", "..", "secret"],
            &["magic", "etc", "passwd"],
            &["loop"],
            &["missing"],
        ];
        for path in outside {
            assert!(folder.open_beneath(&handle, path).is_err(), "{path:?}");
            assert!(folder.open_without_links(&handle, path).is_err(), "{path:?}");
        }
        let content = |file: Result<File, Errno>| {
            let mut text = String::new();
            file.map(|mut file| file.read_to_string(&mut text).unwrap()).unwrap();
            text
        };
        assert_eq!(content(folder.open_beneath(&handle, &["below", "page"])), "page");
        assert_eq!(content(folder.open_without_links(&handle, &["below", "page"])), "page");
        assert_eq!(folder.open_without_links(&handle, &["inside"]).unwrap_err(), Errno::LOOP);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_link_that_leads_up_is_followed_while_others_rename() {
        let base =
            std::env::temp_dir().join(format!("wirewheel-hub-renames-{}", std::process::id()));
        fs::create_dir_all(base.join("below")).unwrap();
        fs::write(base.join("page"), "page").unwrap();
        symlink("../page", base.join("below/link")).unwrap();
        let folder = Folder::open(&base).unwrap();
        let handle = folder.root().unwrap();
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
            let opened = (0..100_000).map(|_| folder.open_beneath(&handle, &["below", "link"]));
            let errors = opened.filter_map(Result::err).collect();
            done.store(true, Ordering::Relaxed);
            errors
        });
        assert_eq!(errors, []);
        fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn a_path_is_cut_before_it_is_decoded() {
        assert_eq!(pieces("/a%2Fb/c%20d/").unwrap(), ["a/b", "c d", ""]);
        assert_eq!(pieces("/").unwrap(), [""]);
        assert_eq!((pieces("/%ff"), pieces("http://x/")), (None, None));
    }

    #[test]
    fn pieces_that_are_more_than_a_name_are_refused() {
        for piece in ["", ".", "..", ".git", "a/b", "a\0b"] {
            assert!(!is_plain(piece), "{piece:?}");
        }
        assert!(is_plain("a b..c"));
    }
}
