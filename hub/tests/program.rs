//! The hub as a program: options, echo, files, tokens, figures.

mod support;

use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;

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
    for (arguments, complaint) in [
        (&["--nonsense"][..], "there is no option --nonsense; --help lists them"),
        (&[], "nothing to serve: give --topics"),
        (&["--serve", "/nonexistent"], "--serve /nonexistent: No such file or directory"),
        (&["--echo", "--token-file", "/nonexistent"], "--token-file: /nonexistent: No such file"),
        (&["--echo", "--listen", "127.0.0.1:http"], "cannot listen on 127.0.0.1:http: "),
        (&["--echo", "--listen", "fd:"], "fd: is given, and no socket was handed over"),
        (&["--echo", "--check", "--listen", "unix:/nonexistent/x"], "--listen unix:/nonexistent/x"),
        (&["--echo", "--check", "--max-message", "2000m"], "max_frame_size is"),
        (&["--echo", "--check", "--metrics", "/{"], "/{"),
    ] {
        let output = run(arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {text}");
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
    let figures = hub.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
    assert!(figures.contains("\nwirewheel_sessions_open 1\n"), "{figures}");
    assert_eq!(hub.connect().request("GET /elsewhere HTTP/1.1\r\nHost: h\r\n\r\n").status, 404);
    hub.signal(Signal::TERM);
    client.expect_close(1001);
    client.send(CLOSE, &close_payload(1001, ""));
    client.expect_eof();
    hub.expect_clean_exit();
}

#[test]
fn it_listens_at_several_places() {
    let folder = Folder::new("places");
    let path = folder.path("socket");
    let hub = Hub::start(&["--echo", "--listen", &format!("unix:{}", show(&path))]);
    let stream = UnixStream::connect(&path).unwrap();
    let stream = std::net::TcpStream::from(OwnedFd::from(stream));
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    for mut client in [Client { stream, inbox: Vec::new() }.upgraded("/echo"), hub.upgrade("/echo")]
    {
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
    let moved = get("/docs");
    assert_eq!((moved.status, moved.header("location")), (301, Some("./docs/")));
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
