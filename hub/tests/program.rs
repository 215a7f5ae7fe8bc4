//! The hub as a program: options, echo, files, tokens, metrics.

#![allow(clippy::print_stderr, reason = "what is not looked at is said")]

mod support;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;

use rustix::process::Signal;
use support::client::{BINARY, CLOSE, Client, PATIENCE, close_payload, upgrade_request};
use support::{Folder, Hub, run, show};

#[test]
fn help_is_one_screen_and_mistakes_say_what_to_do() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    assert!(String::from_utf8(help.stdout).unwrap().lines().count() <= 24);
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert_eq!(version, concat!("wirewheel-hub ", env!("CARGO_PKG_VERSION"), "\n"));
    for (status, arguments, complaint) in [
        (1, &["--nonsense"][..], "there is no option --nonsense; --help lists them"),
        (1, &[], "nothing to serve: give --topics"),
        (1, &["--serve", "/nonexistent"], "--serve /nonexistent: No such file or directory"),
        (
            1,
            &["--echo", "--token-file", "/nonexistent"],
            "--token-file: /nonexistent: No such file",
        ),
        (1, &["--echo", "--listen", "127.0.0.1:http"], "cannot listen on 127.0.0.1:http: "),
        (1, &["--echo", "--listen", "fd:"], "fd: is given, and no socket was handed over"),
        (
            75,
            &["--echo", "--check", "--listen", "unix:/nonexistent/x"],
            "--listen unix:/nonexistent/x",
        ),
        (1, &["--echo", "--check", "--max-message", "2000m"], "max_frame_size is"),
        (1, &["--exec", "cat", "--check", "--max-line", "8m"], "max_outgoing_message_size is"),
        (1, &["--echo", "--check", "--metrics", "/{"], "/{"),
    ] {
        let output = run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.starts_with("wirewheel-hub: ") && text.contains(complaint), "{text}");
    }
    let good = run(&["--check", "--echo", "--memory", "4m", "--listen", "127.0.0.1:80"]);
    assert!(good.status.success(), "{good:?}");
}

#[test]
fn it_echoes_until_sigterm() {
    let hub = Hub::start(&["--echo", "--max-message", "100k", "--metrics", "/metrics"]);
    let mut client = hub.upgrade("/echo");
    client.text("hello");
    client.expect_text("hello");
    let big = vec![7; 100 << 10];
    client.send(BINARY, &big);
    assert!(client.frame().payload == big);
    let metrics = hub.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
    assert!(metrics.contains("\nwirewheel_sessions_open 1\n"), "{metrics}");
    assert_eq!(hub.connect().request("GET /elsewhere HTTP/1.1\r\nHost: h\r\n\r\n").status, 404);
    hub.signal(Signal::TERM);
    client.expect_close(1001);
    client.send(CLOSE, &close_payload(1001, ""));
    client.expect_eof();
    hub.expect_clean_exit();
}

/// A client of a Unix socket.
fn connect_to(path: &Path) -> Client {
    let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(path).unwrap()));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client { stream, inbox: Vec::new() }
}

#[test]
fn it_listens_at_several_places() {
    let folder = Folder::new("places");
    let path = folder.path("socket");
    let hub = Hub::start(&["--echo", "--listen", &format!("unix:{}", show(&path))]);
    for mut client in [connect_to(&path).upgraded("/echo"), hub.upgrade("/echo")] {
        client.text("hello");
        client.expect_text("hello");
    }
    hub.signal(Signal::TERM);
    hub.expect_clean_exit();
    assert!(!path.exists());
}

#[test]
fn a_token_or_an_origin_is_asked_for() {
    let folder = Folder::new("tokens");
    let tokens = folder.write("tokens", "# ours\nswordfish\n");
    let pages = folder.write("pages/index.html", "page");
    let pages = pages.strip_suffix("/index.html").unwrap();
    let hub = Hub::start(&[
        "--echo",
        "--token-file",
        &tokens,
        "--allow-origin",
        "http://good",
        "--serve",
        pages,
    ]);
    let status =
        |path: &str, headers: &str| hub.connect().request(&upgrade_request(path, headers)).status;
    assert_eq!(status("/echo", ""), 401);
    assert_eq!(status("/echo?token=swordfis", ""), 401);
    assert_eq!(status("/echo", "Authorization: Basic swordfish\r\n"), 401);
    assert_eq!(status("/echo", "Authorization: Bearer swordfish\r\n"), 101);
    assert_eq!(status("/echo?token=swordfish", "Origin: http://good\r\n"), 101);
    assert_eq!(status("/echo?token=swordfish", "Origin: http://evil\r\n"), 403);
    // The page that asks for the token is there without one.
    assert_eq!(hub.connect().request("GET / HTTP/1.1\r\nHost: h\r\n\r\n").body, "page");
}

/// Somebody's page whose name was made to point at this machine says that name in both lines.
#[test]
fn a_page_of_a_foreign_name_gets_no_program() {
    let folder = Folder::new("names");
    let status = |mut client: Client, path: &str, host: &str| {
        let request = upgrade_request(path, &format!("Origin: http://{host}\r\n"));
        client.request(&request.replace("Host: h", &format!("Host: {host}"))).status
    };
    for (number, more, exec, echo, echo_on_loopback) in [
        // Of box.lan and evil.example, whose pages reach what.
        (0, &[][..], [403, 403], [101, 101], [403, 403]),
        (1, &["--host", "box.lan"][..], [101, 403], [101, 403], [101, 403]),
        (2, &["--host", "*.lan", "--host", "x"][..], [101, 403], [101, 403], [101, 403]),
        (3, &["--allow-origin", "*"][..], [101, 101], [101, 101], [101, 101]),
        (4, &["--allow-origin", "http://box.lan:81"][..], [101, 403], [101, 101], [101, 403]),
    ] {
        let socket = folder.path(&number.to_string());
        let place = format!("unix:{}", show(&socket));
        let hub = Hub::start(&[&["--exec", "cat", "--echo", "--listen", &place], more].concat());
        // Of a socket that is not a loopback address a foreign name may be this server's own.
        let names = ["box.lan:81", "evil.example:81"];
        let at = |path: &str| names.map(|name| status(connect_to(&socket), path, name));
        assert_eq!((at("/exec"), at("/exec/x"), at("/echo")), (exec, exec, echo), "{more:?}");
        let on_loopback = |path: &str| names.map(|name| status(hub.connect(), path, name));
        let expected = (exec, echo_on_loopback);
        assert_eq!((on_loopback("/exec"), on_loopback("/echo")), expected, "{more:?}");
        for own in ["127.0.0.1:81", "[::1]", "192.168.1.9", "localhost:81"] {
            assert_eq!(status(hub.connect(), "/exec", own), 101, "{own}");
        }
        let foreign = upgrade_request("/exec", "Origin: https://evil.example\r\n");
        let expected = if more.ends_with(&["*"]) { 101 } else { 403 };
        assert_eq!(hub.connect().request(&foreign).status, expected, "{more:?}");
        assert_eq!(hub.connect().request(&upgrade_request("/exec", "")).status, 101);
    }
    let output = run(&["--echo", "--host", "http://box.lan", "--check"]);
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("hosts has \"http://box.lan\""), "{text}");
}

#[test]
fn pages_of_others_do_not_reach_a_program_under_any_name() {
    let status = |hub: &Hub, host: &str, origin: &str| {
        let request = upgrade_request("/exec", &format!("Origin: {origin}\r\n"));
        let request = request.replace("Host: h\r\n", &format!("Host: {host}\r\n"));
        hub.connect().request(&request).status
    };
    let start = |more: &[&str]| Hub::start(&[&["--exec", "/bin/cat"], more].concat());
    let hub = start(&[]);
    let port = hub.addr.port();
    let here = format!("127.0.0.1:{port}");
    assert_eq!(status(&hub, &here, &format!("http://{here}")), 101, "its own page");
    let local = format!("localhost:{port}");
    assert_eq!(status(&hub, &local, &format!("http://{local}")), 101);
    assert_eq!(status(&hub, &here, "https://evil.example"), 403);
    assert_eq!(status(&hub, &here, "null"), 403);
    // A name of somebody else that points here stands in both lines.
    let rebound = format!("evil.example:{port}");
    assert_eq!(status(&hub, &rebound, &format!("http://{rebound}")), 403);
    let named = start(&["--host", "box.example", "--allow-origin", "https://page.example"]);
    assert_eq!(status(&named, "box.example", "http://box.example"), 101);
    assert_eq!(status(&named, "evil.example", "http://evil.example"), 403);
    assert_eq!(status(&named, "box.example", "https://page.example"), 101);
    let open = start(&["--allow-origin", "*"]);
    assert_eq!(status(&open, &here, "https://evil.example"), 101);
}

/// Where an address is not loopback, or there is none, names pass as long as none is given, but not to a
/// shell.
#[test]
fn a_name_that_nobody_gave_reaches_topics_through_a_proxy_and_no_program() {
    let folder = Folder::new("names");
    let path = folder.path("socket");
    let place = format!("unix:{}", show(&path));
    let start = |more: &[&str]| {
        Hub::start(&[&["--echo", "--exec", "/bin/cat", "--listen", &place], more].concat())
    };
    let status = |route: &str, name: &str| {
        let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(&path).unwrap()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request = upgrade_request(route, &format!("Origin: https://{name}\r\n"));
        let request = request.replace("Host: h\r\n", &format!("Host: {name}\r\n"));
        Client { stream, inbox: Vec::new() }.request(&request).status
    };
    let hub = start(&[]);
    assert_eq!(status("/echo", "box.example"), 101);
    assert_eq!(status("/exec", "box.example"), 403);
    assert_eq!(status("/exec/any/path", "box.example"), 403);
    assert_eq!(status("/exec", "localhost"), 101);
    drop(hub);
    std::fs::remove_file(&path).unwrap();
    let _named = start(&["--host", "box.example"]);
    assert_eq!(status("/exec", "box.example"), 101);
    assert_eq!(status("/exec", "evil.example"), 403);
    assert_eq!(status("/echo", "evil.example"), 403);
}

#[test]
fn files_are_served_and_nothing_outside_their_folder() {
    let folder = Folder::new("serve");
    folder.write("secret.txt", "secret");
    folder.write("root/index.html", "start");
    folder.write("root/app.js", "code");
    folder.write("root/docs/index.html", "docs");
    folder.write("root/docs/a b.txt", "spaces");
    folder.write("root/.hidden", "hidden");
    std::fs::create_dir(folder.path("root/empty")).unwrap();
    let root = folder.path("root");
    symlink("../secret.txt", root.join("relative")).unwrap();
    symlink(folder.path("secret.txt"), root.join("absolute")).unwrap();
    symlink("..", root.join("up")).unwrap();
    let hub = Hub::start(&["--serve", &show(&root)]);
    let get =
        |target: &str| hub.connect().request(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    for (target, body, kind) in [
        ("/", "start", "text/html; charset=utf-8"),
        ("/app.js?v=2&path=x", "code", "text/javascript; charset=utf-8"),
        ("/docs/", "docs", "text/html; charset=utf-8"),
        ("/docs/a%20b.txt", "spaces", "text/plain; charset=utf-8"),
    ] {
        let answer = get(target);
        assert_eq!((answer.status, answer.body.as_str()), (200, body), "{target}");
        assert_eq!(answer.header("content-type"), Some(kind), "{target}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    for target in [
        "/missing",
        "/.hidden",
        "/empty/",
        "/app.js/",
        "/docs//a%20b.txt",
        "//",
        "//evil/",
        "/../secret.txt",
        "/docs/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/docs/%2e%2e/%2E%2E/secret.txt",
        "/relative",
        "/absolute",
        "/up/secret.txt",
        "/up/",
        "/%2fetc/passwd",
        "/%00",
        "/app.js%00.html",
        "/%ff",
        "/..\\secret.txt",
    ] {
        let answer = get(target);
        assert!(matches!(answer.status, 400 | 404), "{target}: {answer:?}");
        assert!(!answer.body.contains("secret"), "{target}: {answer:?}");
    }
    let head = hub.connect().request("HEAD /app.js HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(head.header("content-length"), Some("4"));
}

#[test]
fn the_one_hidden_name_that_is_meant_to_be_asked_for_is_served_and_a_query_is_kept() {
    let folder = Folder::new("well-known");
    folder.write("docs/index.html", "docs");
    folder.write(".hidden", "hidden");
    folder.write(".well-known/security.txt", "contact");
    folder.write(".well-known/.hidden", "hidden");
    folder.write("docs/.well-known/x", "hidden");
    let hub = Hub::start(&["--serve", &show(&folder.path(""))]);
    let get =
        |target: &str| hub.connect().request(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
    for (target, location) in [
        ("/docs", "./docs/"),
        ("/docs?v=2&w=%20", "./docs/?v=2&w=%20"),
        ("/.well-known", "./.well-known/"),
    ] {
        let moved = get(target);
        assert_eq!((moved.status, moved.header("location")), (301, Some(location)), "{target}");
    }
    for target in ["/.well-known/security.txt", "/%2Ewell-known/security.txt"] {
        assert_eq!(get(target).body, "contact", "{target}");
    }
    for target in ["/.well-known/.hidden", "/.well-known/../.hidden", "/docs/.well-known/x"] {
        let answer = get(target);
        assert!(matches!(answer.status, 400 | 404), "{target}: {answer:?}");
        assert!(!answer.body.contains("hidden"), "{target}");
    }
}

#[test]
fn a_folder_that_is_replaced_is_served_anew() {
    let folder = Folder::new("replaced");
    let get = |hub: &Hub, target: &str| {
        let answer = hub.connect().request(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        (answer.status, answer.body)
    };
    let page = |text: &str| (200, text.to_owned());
    // Removed and made again, as builders do.
    folder.write("dist/index.html", "first");
    let dist = folder.path("dist");
    let hub = Hub::start(&["--serve", &show(&dist)]);
    assert_eq!(get(&hub, "/"), page("first"));
    std::fs::remove_dir_all(&dist).unwrap();
    assert_eq!(get(&hub, "/").0, 404);
    folder.write("dist/index.html", "second");
    folder.write("dist/new.txt", "new");
    assert_eq!((get(&hub, "/"), get(&hub, "/new.txt")), (page("second"), page("new")));
    // Moved away, with another in its place.
    folder.write("next/index.html", "third");
    std::fs::rename(&dist, folder.path("old")).unwrap();
    std::fs::rename(folder.path("next"), &dist).unwrap();
    assert_eq!((get(&hub, "/"), get(&hub, "/new.txt").0), (page("third"), 404));
    // A link that is switched, as deployers do.
    folder.write("v1/index.html", "one");
    folder.write("v2/index.html", "two");
    let current = folder.path("current");
    symlink("v1", &current).unwrap();
    let hub = Hub::start(&["--serve", &show(&current)]);
    assert_eq!(get(&hub, "/"), page("one"));
    symlink("v2", folder.path("switching")).unwrap();
    std::fs::rename(folder.path("switching"), &current).unwrap();
    assert_eq!(get(&hub, "/"), page("two"));
}

/// A filter that answers one system call with an error, as those of containers do.
const FILTER: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 437 /* openat2 */, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | atoi(argv[1])),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { 4, filter };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return 98;
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) return 98;
    execv(argv[2], argv + 2);
    return 99;
}
"#;

#[test]
fn files_are_served_where_openat2_is_refused_with_whatever_error() {
    let folder = Folder::new("filtered");
    let source = folder.write("filter.c", FILTER);
    let filter = folder.path("filter");
    let built = std::process::Command::new("cc").arg("-o").arg(&filter).arg(&source).status();
    if !built.is_ok_and(|status| status.success()) {
        return eprintln!("not looked at without cc");
    }
    folder.write("root/index.html", "start");
    folder.write("root/docs/a.txt", "text");
    folder.write("secret.txt", "secret");
    symlink("../secret.txt", folder.path("root/out")).unwrap();
    for errno in [rustix::io::Errno::NOSYS, rustix::io::Errno::PERM, rustix::io::Errno::ACCESS] {
        let mut command = std::process::Command::new(&filter);
        command.arg(errno.raw_os_error().to_string());
        command.args(support::client::emulator::words(env!("CARGO_BIN_EXE_wirewheel-hub")));
        command.args(["--listen", "127.0.0.1:0", "--serve", &show(&folder.path("root"))]);
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut log = std::io::BufReader::new(child.stderr.take().unwrap());
        let (mut text, mut addr) = (String::new(), None);
        while addr.is_none() {
            let from = text.len();
            if std::io::BufRead::read_line(&mut log, &mut text).unwrap() == 0 {
                let status = child.wait().unwrap();
                assert_eq!(status.code(), Some(98), "{text}");
                return eprintln!("not looked at: filters are not allowed here");
            }
            let line = text[from..].trim();
            addr = line.rsplit_once("bound to ").map(|(_, addr)| addr.parse().unwrap());
        }
        assert!(text.contains("openat2: "), "{errno:?} is said: {text}");
        let get = |target: &str| {
            let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            Client::connect(addr.unwrap()).request(&request)
        };
        assert_eq!((get("/").body, get("/docs/a.txt").body), ("start".into(), "text".into()));
        assert_eq!(get("/out").status, 404);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
