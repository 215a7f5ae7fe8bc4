//! Folders as pages, over real sockets and real files: what RFC 9110 makes of conditions and ranges, paths of
//! strangers, folders that change under the server, and slow readers.
#![allow(clippy::cast_possible_truncation, reason = "bytes that a test made up")]
#![allow(clippy::print_stderr, reason = "a test says why it looks at nothing")]

mod support;

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use support::*;
use wirewheel::defer::Pending;
use wirewheel::pages::Folder;
use wirewheel::testing::TestApplication;
use wirewheel::{Application, Call, Response, Stats, WebSockets, on_message};

/// A folder on disk that is gone when the test ends.
struct Disk(PathBuf);

impl Disk {
    fn new(name: &str) -> Self {
        let path =
            std::env::temp_dir().join(format!("wirewheel-folders-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file that was there for a while.
    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
    }

    fn serve(&self, name: &str) -> Running {
        self.serve_with(name, |folder| folder)
    }

    fn serve_with(
        &self,
        name: &str,
        options: impl FnOnce(Folder) -> Folder + Send + 'static,
    ) -> Running {
        let path = self.path(name);
        Running::start(move |app: &mut Application| {
            app.install(WebSockets::new().ping_period(None)); // an emulator takes longer than pings wait
            app.routing(|route| {
                route.get("/own", |_call| Response::text("a route"));
                route.web_socket("/ws", |_: &Call| on_message(|session, it| session.send(it)));
                route.folder("/", options(Folder::new(path)));
            });
        })
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn get(running: &Running, path: &str, lines: &str) -> Answer {
    running.connect().request(&format!("GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n"))
}

fn stats(running: &Running) -> Stats {
    running.0.stats().unwrap().recv_timeout(PATIENCE).unwrap()
}

/// Sets when a file was written last; when it was changed in any way stays now.
fn set_age(path: &Path, secs: u64) {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(secs);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

/// A date that is known, and those beside it.
const WRITTEN_SECS: u64 = 1_582_934_400;
const WRITTEN: &str = "Sat, 29 Feb 2020 00:00:00 GMT";
const BEFORE: &str = "Fri, 28 Feb 2020 23:59:59 GMT";

/// A folder with ten digits that were written on a known day, and their tag once it is strong: what was
/// changed within the last two seconds may change again unnoticed.
fn settled(name: &str) -> (Disk, Running, String) {
    let disk = Disk::new(name);
    disk.write("www/a.txt", "0123456789");
    set_age(&disk.path("www/a.txt"), WRITTEN_SECS);
    let running = disk.serve("www");
    let mut client = running.connect();
    loop {
        let weak = client.request("GET /a.txt HTTP/1.1\r\nHost: h\r\n\r\n");
        let etag = weak.header("etag").unwrap();
        if !etag.starts_with("W/") {
            return (disk, running, etag.to_owned());
        }
        let range = format!("Range: bytes=0-1\r\nIf-Range: {etag}\r\n");
        assert_eq!(get(&running, "/a.txt", &range).status, 200);
        thread::yield_now();
    }
}

#[test]
fn a_file_has_validators() {
    let (disk, running, tag) = settled("validators");
    let whole = get(&running, "/a.txt", "");
    assert_eq!((whole.status, whole.body.as_str()), (200, "0123456789"));
    for (name, value) in [
        ("last-modified", WRITTEN),
        ("accept-ranges", "bytes"),
        ("cache-control", "no-cache"),
        ("x-content-type-options", "nosniff"),
        ("vary", "Accept-Encoding"),
    ] {
        assert_eq!(whole.header(name), Some(value), "{whole:?}");
    }
    let part = get(&running, "/a.txt", "Range: bytes=2-4\r\n");
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let none = get(&running, "/a.txt", "Range: bytes=10-\r\n");
    assert_eq!(none.header("content-range"), Some("bytes */10"));
    let head = "HEAD /a.txt HTTP/1.1\r\nHost: h\r\nRange: bytes=2-4\r\n\r\n";
    let head = running.connect().request(head);
    assert_eq!((head.status, head.header("content-length")), (200, Some("10")));
    let unchanged = get(&running, "/a.txt", &format!("If-None-Match: {tag}\r\n"));
    for (name, value) in [
        ("etag", Some(tag.as_str())),
        ("vary", Some("Accept-Encoding")),
        ("cache-control", Some("no-cache")),
        ("content-type", None),
        ("content-length", None),
        ("last-modified", None),
    ] {
        assert_eq!((unchanged.status, unchanged.header(name)), (304, value), "{unchanged:?}");
    }
    // Written anew with the same size and the same age: another version all the same.
    disk.write("www/a.txt", "abcdefghij");
    set_age(&disk.path("www/a.txt"), WRITTEN_SECS);
    assert_eq!(get(&running, "/a.txt", &format!("If-None-Match: {tag}\r\n")).body, "abcdefghij");
}

#[test]
fn conditions_and_ranges_are_what_rfc_9110_makes_of_them() {
    let (_disk, running, tag) = settled("conditions");
    let (tag, other) = (&tag, "\"other\"");
    for (lines, status, body) in [
        (format!("If-None-Match: {tag}"), 304, ""),
        (format!("If-None-Match: W/{tag}"), 304, ""),
        (format!("If-None-Match: {other}, {tag}"), 304, ""),
        ("If-None-Match: *".into(), 304, ""),
        (format!("If-None-Match: {other}"), 200, "0123456789"),
        (format!("If-None-Match: {other}\r\nIf-Modified-Since: {WRITTEN}"), 200, "0123456789"),
        (format!("If-Modified-Since: {WRITTEN}"), 304, ""),
        (format!("If-Modified-Since: {BEFORE}"), 200, "0123456789"),
        ("If-Modified-Since: soon".into(), 200, "0123456789"),
        (format!("If-Match: {tag}"), 200, "0123456789"),
        ("If-Match: *".into(), 200, "0123456789"),
        (format!("If-Match: {other}"), 412, "412 Precondition Failed\n"),
        (format!("If-Match: {other}\r\nIf-None-Match: {tag}"), 412, "412 Precondition Failed\n"),
        (format!("If-Unmodified-Since: {WRITTEN}"), 200, "0123456789"),
        (format!("If-Unmodified-Since: {BEFORE}"), 412, "412 Precondition Failed\n"),
        (format!("If-Match: {tag}\r\nIf-Unmodified-Since: {BEFORE}"), 200, "0123456789"),
        (format!("If-Match: {tag}\r\nIf-None-Match: {tag}"), 304, ""),
        ("Range: bytes=2-4".into(), 206, "234"),
        ("Range: bytes=8-".into(), 206, "89"),
        ("Range: bytes=-3".into(), 206, "789"),
        ("Range: bytes=0-0".into(), 206, "0"),
        ("Range: bytes=5-99999999999999999999".into(), 206, "56789"),
        ("Range: bytes=10-".into(), 416, "416 Range Not Satisfiable\n"),
        ("Range: bytes=-0".into(), 416, "416 Range Not Satisfiable\n"),
        ("Range: bytes=0-1, 3-4".into(), 200, "0123456789"),
        ("Range: pages=1".into(), 200, "0123456789"),
        (format!("Range: bytes=0-1\r\nIf-Range: {tag}"), 206, "01"),
        (format!("Range: bytes=0-1\r\nIf-Range: W/{tag}"), 200, "0123456789"),
        (format!("Range: bytes=0-1\r\nIf-Range: {other}"), 200, "0123456789"),
        (format!("Range: bytes=0-1\r\nIf-Range: {WRITTEN}"), 206, "01"),
        (format!("Range: bytes=0-1\r\nIf-Range: {BEFORE}"), 200, "0123456789"),
        (format!("Range: bytes=0-1\r\nIf-None-Match: {tag}"), 304, ""),
        (format!("Range: bytes=99-\r\nIf-Match: {other}"), 412, "412 Precondition Failed\n"),
    ] {
        let answer = get(&running, "/a.txt", &format!("{lines}\r\n"));
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{lines}");
    }
}

#[test]
fn a_file_of_the_future_and_one_without_a_time_have_no_date() {
    let disk = Disk::new("dates");
    // The year 2100, or the last that the standard library sets on 32-bit with musl: 2038.
    let future = if cfg!(target_pointer_width = "64") { 4_102_444_800 } else { 2_147_483_647 };
    for (name, secs) in [("future", future), ("epoch", 1), ("npm", 499_162_500)] {
        disk.write(&format!("www/{name}.bin"), "x");
        set_age(&disk.path(&format!("www/{name}.bin")), secs);
    }
    let running = disk.serve("www");
    for name in ["future", "epoch", "npm"] {
        let answer =
            get(&running, &format!("/{name}.bin"), &format!("If-Modified-Since: {WRITTEN}\r\n"));
        assert_eq!((answer.status, answer.header("last-modified")), (200, None), "{name}");
        assert!(answer.header("etag").is_some(), "{name}");
    }
}

#[test]
fn the_smaller_file_beside_is_sent_to_who_takes_it() {
    let disk = Disk::new("codings");
    for (name, content) in [
        ("app.js", "original"),
        ("app.js.gz", "gzipped"),
        ("app.js.br", "brotli"),
        ("only.css", "original"),
        ("only.css.gz", "gzipped"),
        ("stale.js", "original"),
        ("stale.js.gz", "of yesterday"),
        ("a.png", "original"),
        ("a.png.gz", "gzipped"),
        ("folder.js", "original"),
    ] {
        disk.write(&format!("www/{name}"), content);
        set_age(&disk.path(&format!("www/{name}")), WRITTEN_SECS);
    }
    fs::create_dir(disk.path("www/folder.js.gz")).unwrap();
    set_age(&disk.path("www/stale.js"), WRITTEN_SECS + 1);
    let running = disk.serve("www");
    let of = |path: &str, accept: &str| {
        let answer = get(&running, path, &format!("{accept}\r\n"));
        let coding = answer.header("content-encoding").unwrap_or("-").to_owned();
        (answer.status, coding, answer.body.clone(), answer)
    };
    for (path, accept, coding, body) in [
        ("/app.js", "X: y", "-", "original"),
        ("/app.js", "Accept-Encoding: gzip", "gzip", "gzipped"),
        ("/app.js", "Accept-Encoding: gzip, deflate, br, zstd", "br", "brotli"),
        ("/app.js", "Accept-Encoding: gzip;q=1, br;q=0.5", "gzip", "gzipped"),
        ("/app.js", "Accept-Encoding: br;q=0, *", "gzip", "gzipped"),
        ("/app.js", "Accept-Encoding: identity;q=1, *;q=0", "-", "original"),
        ("/app.js", "Accept-Encoding: gzip;q=0", "-", "original"),
        ("/only.css", "Accept-Encoding: br, gzip;q=0.1", "gzip", "gzipped"),
        ("/only.css", "Accept-Encoding: br", "-", "original"),
        ("/stale.js", "Accept-Encoding: gzip", "-", "original"),
        ("/folder.js", "Accept-Encoding: gzip", "-", "original"),
        ("/a.png", "Accept-Encoding: gzip", "-", "original"),
    ] {
        let (status, got, content, answer) = of(path, accept);
        assert_eq!(
            (status, got.as_str(), content.as_str()),
            (200, coding, body),
            "{path} {accept}"
        );
        let vary = (path != "/a.png").then_some("Accept-Encoding");
        assert_eq!(answer.header("vary"), vary, "{path} {accept}");
    }
    let js = "text/javascript; charset=utf-8";
    let (_, _, _, coded) = of("/app.js", "Accept-Encoding: gzip");
    let (_, _, _, original) = of("/app.js", "X: y");
    assert_eq!(
        (coded.header("content-type"), original.header("content-type")),
        (Some(js), Some(js))
    );
    assert_ne!(coded.header("etag"), original.header("etag"));
    // A range is one of what is sent, not of what it becomes.
    let part = get(&running, "/app.js", "Accept-Encoding: gzip\r\nRange: bytes=0-3\r\n");
    assert_eq!((part.status, part.body.as_str()), (206, "gzip"));
    assert_eq!(part.header("content-range"), Some("bytes 0-3/7"));
    for refused in ["identity;q=0", "br, *;q=0"] {
        let (status, ..) = of("/only.css", &format!("Accept-Encoding: {refused}"));
        assert_eq!(status, 406, "{refused}");
    }
    assert_eq!(get(&running, "/app.js.gz", "").header("content-type"), Some("application/gzip"));
    let plain = disk.serve_with("www", |folder| folder.precompressed(false));
    let answer = get(&plain, "/app.js", "Accept-Encoding: gzip\r\n");
    assert_eq!((answer.body.as_str(), answer.header("vary")), ("original", None));
}

#[test]
fn folders_have_a_page_and_applications_one_for_every_path() {
    let disk = Disk::new("pages");
    disk.write("www/index.html", "start");
    disk.write("www/docs/index.html", "docs");
    disk.write("www/assets/a.1f2e.css", "style");
    disk.write("www/.hidden", "hidden");
    fs::create_dir(disk.path("www/empty")).unwrap();
    let running = disk.serve_with("www", |folder| {
        folder
            .single_page("index.html")
            .cache_control("/assets/*", "public, max-age=31536000, immutable")
            .cache_control("*.txt", "")
    });
    let page = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    for (path, lines, status, body) in [
        ("/", "", 200, "start"),
        ("/docs/", "", 200, "docs"),
        ("/own", "", 200, "a route"),
        ("/deep/link", page, 200, "start"),
        ("/user/jane.doe?x=1", page, 200, "start"),
        ("/empty/", page, 200, "start"),
        ("/.hidden", page, 200, "start"),
        ("/deep/link", "", 404, "404 Not Found\n"),
        ("/app.js", "Accept: */*\r\n", 404, "404 Not Found\n"),
        ("/empty/", "", 404, "404 Not Found\n"),
        ("/deep/link", "Accept: text/html;q=0, */*\r\n", 404, "404 Not Found\n"),
        ("/deep/link", "Accept: text/html; q=0.1\r\n", 200, "start"),
    ] {
        let answer = get(&running, path, lines);
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{path} {lines}");
    }
    let linked = get(&running, "/deep/link", page);
    let vary: Vec<&str> = linked.head.lines().filter(|line| line.starts_with("Vary: ")).collect();
    assert_eq!(vary, ["Vary: Accept-Encoding", "Vary: Accept"]);
    for (path, location) in
        [("/docs", "./docs/"), ("/docs?v=2&w=%20", "./docs/?v=2&w=%20"), ("/%64ocs", "./%64ocs/")]
    {
        let answer = get(&running, path, "");
        assert_eq!((answer.status, answer.header("location")), (301, Some(location)), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
    }
    let cache = |path: &str| get(&running, path, "").header("cache-control").map(str::to_owned);
    assert_eq!(cache("/assets/a.1f2e.css").unwrap(), "public, max-age=31536000, immutable");
    assert_eq!(cache("/docs/").unwrap(), "no-cache");
    disk.write("www/notes.txt", "x");
    assert_eq!(cache("/notes.txt"), None);
    let bare = disk.serve_with("www", |folder| folder.index(None).hidden_files(true));
    assert_eq!(get(&bare, "/docs/", "").status, 404);
    assert_eq!(get(&bare, "/.hidden", "").body, "hidden");
    let mut post = running.connect();
    assert_eq!(post.request("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n").status, 405);
}

#[test]
fn a_folder_below_another_path_has_its_own_root() {
    let disk = Disk::new("mounted");
    disk.write("www/index.html", "start");
    disk.write("www/a.txt", "text");
    disk.write("secret", "secret");
    let path = disk.path("www");
    let running = Running::start(move |app: &mut Application| {
        app.routing(|route| {
            route.route("/box/{id}", |route| route.folder("/files", path));
        });
    });
    for (path, status) in [
        ("/box/7/files/", 200),
        ("/box/7/files/a.txt", 200),
        ("/box/a%2Fb/files/a.txt", 200),
        ("/box/7//files/a.txt", 200),
        ("/box/7/files", 301),
        ("/box/7/a.txt", 404),
        ("/box/7/files/../secret", 404),
        ("/box/7/files//a.txt", 404),
    ] {
        assert_eq!(get(&running, path, "").status, status, "{path}");
    }
}

/// Without it no link is followed: emulators and old systems have none.
fn has_openat2() -> bool {
    openat2(CWD, ".", OFlags::PATH, Mode::empty(), ResolveFlags::BENEATH).is_ok()
}

#[test]
fn paths_of_strangers_have_clear_outcomes_and_nothing_outside_is_served() {
    let disk = Disk::new("hostile");
    disk.write("secret.txt", "secret");
    disk.write("www/a.txt", "text");
    disk.write("www/b/c.txt", "text");
    disk.write("www/unreadable", "secret");
    let root = disk.path("www");
    symlink("../secret.txt", root.join("relative")).unwrap();
    symlink(disk.path("secret.txt"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("/proc/self/environ", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("b/c.txt", root.join("inside")).unwrap();
    symlink("../secret.txt", root.join("a.js.gz")).unwrap();
    disk.write("www/a.js", "script");
    let made = Command::new("mkfifo").arg(root.join("pipe")).status().unwrap();
    assert!(made.success());
    let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    let running = disk.serve("www");
    let long = format!("/{}", "x".repeat(256));
    let deep = "/d".repeat(3_000);
    for (path, expected) in [
        ("/a.txt", 200),
        ("/b/c.txt", 200),
        ("/inside", if has_openat2() { 200 } else { 404 }),
        ("/%61.txt", 200),
        ("/a.txt?../secret.txt", 200),
        ("/missing", 404),
        ("/a.txt/", 404),
        ("/a.txt/x", 404),
        ("/relative", 404),
        ("/absolute", 404),
        ("/magic", 404),
        ("/loop", 404),
        ("/up/secret.txt", 404),
        ("/../secret.txt", 404),
        ("/b/../../secret.txt", 404),
        ("/%2e%2e/secret.txt", 404),
        ("/..%2fsecret.txt", 404),
        ("/..%5csecret.txt", 404),
        ("/b/%2E%2E/%2e%2e/secret.txt", 404),
        ("/%2fetc/passwd", 404),
        ("//etc/passwd", 404),
        ("/b//c.txt", 404),
        ("/./a.txt", 404),
        ("/pipe", 404),
        ("/socket", 404),
        ("/a.txt%00.html", 400),
        ("/%00", 400),
        ("/%ff", 400),
        ("/%", 400),
        ("/%zz", 400),
        (&long, 404),
        (&deep, 404),
    ] {
        let answer = get(&running, path, "");
        assert_eq!(answer.status, expected, "{path:.40}");
        assert!(!answer.body.contains("secret") && !answer.head.contains("secret"), "{path:.40}");
    }
    let script = get(&running, "/a.js", "Accept-Encoding: gzip\r\n");
    assert_eq!(script.body, "script", "a link out is no smaller file");
    // Not even by a name in bytes: what is sent is what stands in the head.
    let mut client = running.connect();
    client.write(b"GET /\xc3\x28 HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(matches!(client.answer(false).status, 400 | 404));
}

#[test]
fn a_file_that_may_not_be_read_is_403() {
    if rustix::process::geteuid().is_root() {
        return eprintln!("not looked at: root may read everything");
    }
    let disk = Disk::new("forbidden");
    fs::create_dir_all(disk.path("www")).unwrap();
    let mut options = File::options();
    options.write(true).create(true).mode(0o000).open(disk.path("www/a")).unwrap();
    assert_eq!(get(&disk.serve("www"), "/a", "").status, 403);
}

#[test]
fn a_folder_that_is_replaced_is_served_anew() {
    let disk = Disk::new("replaced");
    disk.write("dist/index.html", "first");
    let running = disk.serve("dist");
    let page = |running: &Running, path| {
        let answer = get(running, path, "");
        (answer.status, answer.body)
    };
    let text = |text: &str| (200, text.to_owned());
    assert_eq!(page(&running, "/"), text("first"));
    fs::remove_dir_all(disk.path("dist")).unwrap();
    assert_eq!(page(&running, "/").0, 404);
    disk.write("dist/index.html", "second");
    assert_eq!(page(&running, "/"), text("second"));
    disk.write("next/index.html", "third");
    disk.write("next/new.txt", "new");
    fs::rename(disk.path("dist"), disk.path("old")).unwrap();
    fs::rename(disk.path("next"), disk.path("dist")).unwrap();
    assert_eq!((page(&running, "/"), page(&running, "/new.txt")), (text("third"), text("new")));
    // A link that is switched while a file of the old folder is on its way.
    let bytes: Vec<u8> = (0..20_000_000).map(|at| (at * 7 + at / 251) as u8).collect();
    disk.write("v1/big", &bytes);
    disk.write("v2/big", "other");
    symlink("v1", disk.path("current")).unwrap();
    let running = disk.serve("current");
    let mut client = running.connect();
    client.write("GET /big HTTP/1.1\r\nHost: h\r\n\r\n");
    let answer = client.answer(true);
    symlink("v2", disk.path("switching")).unwrap();
    fs::rename(disk.path("switching"), disk.path("current")).unwrap();
    fs::remove_dir_all(disk.path("v1")).unwrap();
    assert_eq!(page(&running, "/big"), text("other"));
    let mut body = std::mem::take(&mut client.inbox);
    let (length, read) = (answer.header("content-length").unwrap().parse().unwrap(), body.len());
    body.resize(length, 0);
    client.stream.read_exact(&mut body[read..]).unwrap();
    assert!(body == bytes, "the file is the one that was opened");
}

#[test]
fn mistakes_are_returned_when_the_server_starts() {
    let disk = Disk::new("mistakes");
    disk.write("file", "x");
    let path = |name: &str| disk.path(name).display().to_string();
    let mistake = |folder: Folder| {
        let server = wirewheel::Server::bind("127.0.0.1:0", move |app: &mut Application| {
            app.routing(|route| route.folder("/files", folder));
        });
        server.unwrap().run().unwrap_err().to_string()
    };
    for (folder, expected) in [
        (Folder::new(path("missing")), "missing: No such file or directory"),
        (Folder::new(path("file")), "file: Not a directory"),
        (Folder::new(path("")).cache_control("assets", "x"), "cache_control \"assets\""),
        (Folder::new(path("")).cache_control("*", "a\r\nb"), "Cache-Control"),
    ] {
        let text = mistake(folder);
        assert!(text.contains("folder \"/files\"") && text.contains(expected), "{text}");
    }
}

/// The program, if it is there.
fn program(name: &str) -> Option<Command> {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        eprintln!("not looked at: {name} is not installed");
    }
    found.then(|| Command::new(name))
}

#[test]
fn curl_and_wget_resume_a_download() {
    let disk = Disk::new("resumed");
    let bytes: Vec<u8> = (0..3_000_000).map(|at| (at * 7 + at / 251) as u8).collect();
    disk.write("www/image.bin", &bytes);
    let running = disk.serve("www");
    let url = format!("http://{}/image.bin", running.addr());
    let half = || {
        let path = disk.path("half.bin");
        fs::write(&path, &bytes[..1_234_567]).unwrap();
        path
    };
    let sent = || {
        let text = get(&running, "/own", "").status;
        assert_eq!(text, 200);
        stats(&running).bytes_out
    };
    if let Some(mut curl) = program("curl") {
        let (path, before) = (half(), sent());
        let status = curl.args(["-sS", "--fail", "-C", "-", "-o"]).arg(&path).arg(&url).status();
        assert!(status.unwrap().success());
        assert!(fs::read(&path).unwrap() == bytes, "curl");
        let rest = sent() - before;
        assert!((1_700_000..1_800_000).contains(&rest), "{rest} bytes for the rest");
        // The file is there whole: nothing is to be done.
        let again =
            Command::new("curl").args(["-sS", "-C", "-", "-o"]).arg(&path).arg(&url).status();
        assert!(again.unwrap().success());
        assert!(fs::read(&path).unwrap() == bytes, "curl, again");
    }
    if let Some(mut wget) = program("wget") {
        let path = half();
        let status = wget.args(["-q", "-c", "-O"]).arg(&path).arg(&url).status();
        assert!(status.unwrap().success());
        assert!(fs::read(&path).unwrap() == bytes, "wget");
    }
}

#[test]
fn a_part_of_a_file_that_shrinks_breaks_the_connection() {
    let disk = Disk::new("shrinks");
    disk.write("www/data", vec![7; 20_000_000]);
    let running = disk.serve("www");
    let mut client = running.connect();
    client.write("GET /data HTTP/1.1\r\nHost: h\r\nRange: bytes=1000-\r\n\r\n");
    let answer = client.answer(true);
    assert_eq!((answer.status, answer.header("content-length")), (206, Some("19999000")));
    File::options().write(true).open(disk.path("www/data")).unwrap().set_len(1_000).unwrap();
    let mut received = client.inbox.len();
    let mut buffer = [0; 65_536];
    let end = loop {
        match client.stream.read(&mut buffer) {
            Ok(0) => break None,
            Ok(read) => received += read,
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(end, Some(std::io::ErrorKind::ConnectionReset));
    assert!(received < 19_999_000);
}

#[test]
fn slow_readers_of_a_large_file_hold_a_piece_each() {
    const READERS: usize = 64;
    let disk = Disk::new("slow");
    fs::create_dir_all(disk.path("www")).unwrap();
    File::create(disk.path("www/large")).unwrap().set_len(1 << 30).unwrap();
    let running = disk.serve("www");
    let mut readers: Vec<Client> = (0..READERS).map(|_| running.connect()).collect();
    for reader in &mut readers {
        reader.write("GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
        reader.answer(true);
    }
    // A session is served meanwhile, so what is on its way to them is known to be so by now.
    let mut session = running.upgrade("/ws");
    for _ in 0..100 {
        session.text("still there?");
        session.expect_text("still there?");
    }
    let held = stats(&running).bytes_held;
    let most = (READERS * (40 << 10)) as u64;
    assert!(held <= most, "{held} bytes for {READERS} readers");
    for reader in &mut readers {
        let mut buffer = [0; 4_096];
        assert!(reader.stream.read(&mut buffer).unwrap() > 0);
    }
}

#[test]
fn short_files_and_long_ones_come_behind_one_another() {
    let disk = Disk::new("pipelined");
    for (name, size) in [("empty", 0), ("one", 1), ("edge", 16 << 10), ("over", (16 << 10) + 1)] {
        disk.write(&format!("www/{name}"), "x".repeat(size));
    }
    let running = disk.serve("www");
    let mut client = running.connect();
    let names = ["over", "empty", "edge", "one", "over", "empty"];
    for name in names {
        client
            .stream
            .write_all(format!("GET /{name} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
            .unwrap();
    }
    let lengths = names.map(|_| client.answer(false).body.len());
    assert_eq!(lengths, [16_385, 0, 16_384, 1, 16_385, 0]);
}

/// One that stayed open would keep a disk from being taken away.
#[test]
fn no_folder_is_open_while_nothing_happens() {
    let disk = Disk::new("unused");
    disk.write("dist/index.html", "page");
    let pending: Rc<RefCell<Option<Pending>>> = Rc::default();
    let (kept, path) = (Rc::clone(&pending), disk.path("dist"));
    let app = TestApplication::new(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(move |route| {
            route.get("/later", move |call| {
                *kept.borrow_mut() = Some(call.defer());
                Response::deferred()
            });
            route.folder("/", path);
        });
    })
    .unwrap();
    let is_open = || {
        let open = fs::read_dir("/proc/self/fd").unwrap().filter_map(Result::ok);
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|path| path == disk.path("dist"))
    };
    let mut client = app.connect();
    assert_eq!(client.request("GET", "/").text(), "page");
    assert!(!is_open(), "behind what came");
    let requests = ["/later", "/"].map(|path| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
    client.send_bytes(requests.concat().as_bytes());
    pending.take().unwrap().answer("late");
    app.advance(Duration::ZERO);
    assert_eq!(
        [client.expect_answer(), client.expect_answer()].map(|it| it.text().to_owned()),
        ["late", "page"]
    );
    assert!(!is_open(), "behind what waited");
}
