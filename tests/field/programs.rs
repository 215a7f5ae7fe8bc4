//! Programs that are not ours: ab and curl as clients, nginx and HAProxy in front. A test of one that is
//! not installed says so and passes; `.ci/proxy` runs those of the proxies for longer and wants them.
#![allow(clippy::print_stdout, reason = "a test that tests nothing says so")]

use std::collections::HashSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use wirewheel::{Application, Call, Response, WebSockets};

use crate::support::streams::{Dice, stream};
use crate::support::{PATIENCE, Running, free_port, installed, millis};

/// Streams through each proxy; WIREWHEEL_PROXY_STREAMS asks for more, and then the proxies must be there.
const STREAMS: u64 = 150;

/// What a program printed; it must end well.
fn output(program: &PathBuf, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {printed} {said}");
    printed + &said
}

fn pages() -> Running {
    Running::start(|app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.get("/", |_| "page");
            route.get("/large", |_| Response::text("x".repeat(1_000_000)));
        });
    })
}

/// ab speaks HTTP/1.0 with `Connection: keep-alive`, and waits for the end where that is not answered.
#[test]
fn ab_keeps_its_connections() {
    let Some(ab) = installed("ab") else { return };
    let server = pages();
    for (path, count) in [("/", "400"), ("/large", "20")] {
        let begun = Instant::now();
        let url = format!("http://{}{path}", server.addr());
        let told = output(&ab, &["-k", "-n", count, "-c", "4", &url]);
        let kept = told.lines().find_map(|line| line.strip_prefix("Keep-Alive requests:"));
        assert_eq!(kept.map(str::trim), Some(count), "{told}");
        assert!(told.contains("Failed requests:        0"), "{told}");
        assert!(begun.elapsed() < PATIENCE);
        let told = output(&ab, &["-n", "8", "-c", "2", &url]);
        assert!(told.contains("Failed requests:        0"), "without keep-alive: {told}");
    }
}

#[test]
fn curl_in_both_versions() {
    let Some(curl) = installed("curl") else { return };
    let server = pages();
    let url = format!("http://{}/", server.addr());
    for version in ["--http1.0", "--http1.1"] {
        let told = output(&curl, &["-sSv", "--max-time", "25", version, &url, &url]);
        assert_eq!(told.matches("HTTP/1.1 200 OK").count(), 2, "{told}");
        assert_eq!(told.matches("page").count(), 2, "{told}");
        assert_eq!(told.matches("< Date: ").count(), 2, "{told}");
        let kept =
            ["--http1.0", "-sSv", "--max-time", "25", "-H", "Connection: keep-alive", &url, &url];
        let kept = if version == "--http1.1" { told } else { output(&curl, &kept) };
        assert!(kept.to_ascii_lowercase().contains("re-us") || kept.contains("Reusing"), "{kept}");
    }
    // A body for which curl asks first: the answer comes at once, and ends the connection.
    let begun = Instant::now();
    let body = "x".repeat(3_000_000);
    let file = std::env::temp_dir().join(format!("wirewheel-body-{}", std::process::id()));
    std::fs::write(&file, body).unwrap();
    let data = format!("@{}", file.display());
    let told = output(&curl, &["-sSi", "-H", "Expect: 100-continue", "--data-binary", &data, &url]);
    std::fs::remove_file(file).unwrap();
    assert!(told.starts_with("HTTP/1.1 405 ") && told.contains("Connection: close"), "{told}");
    assert!(begun.elapsed() < PATIENCE);
    let told = output(&curl, &["-sS", "--request-target", "wss://other.example/", &url]);
    assert_eq!(told, "page");
}

/// A request that a handler saw: its mark, what the proxy says it is, what it was taken for; and its body in
/// hexadecimal digits, as the proxy says and as it came, where the proxy says so.
type Seen = (Option<String>, Option<String>, String, Option<String>, String);

fn seen(call: &Call, body: &[u8]) -> Seen {
    let header = |name| call.header(name).map(str::to_owned);
    let request = format!("{} {}", call.method(), call.uri());
    let hex: String = body.iter().map(|byte| format!("{byte:02X}")).collect();
    (header("x-mark"), header("x-request"), request, header("x-body"), hex)
}

/// A proxy that is ended with the test.
struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, what it has seen, and how many requests and bodies that is.
fn witness() -> (Running, Receiver<Seen>, Arc<[AtomicU64; 2]>) {
    let (sender, all_seen) = channel::<Seen>();
    let came: Arc<[AtomicU64; 2]> = Arc::default();
    let counted = Arc::clone(&came);
    let tell = move |call: &Call, body: &[u8]| {
        counted[0].fetch_add(1, Ordering::Relaxed);
        counted[1].fetch_add(u64::from(!body.is_empty()), Ordering::Relaxed);
        let _ = sender.send(seen(call, body));
    };
    let server = Running::start(move |app: &mut Application| {
        app.install(WebSockets::new().allow_any_origin());
        app.routing(move |route| {
            let (of_posts, of_puts) = (tell.clone(), tell.clone());
            route.post("/{...}", move |call, body| {
                of_posts(call, body.bytes());
                "posted"
            });
            route.put("/{...}", move |call, body| {
                of_puts(call, body.bytes());
                "put"
            });
            route.get("/{...}", move |call| {
                tell(call, b"");
                "page"
            });
        });
    });
    (server, all_seen, came)
}

/// Starts a proxy with this configuration, in which `{port}`, `{server}` and `{folder}` are put in, and
/// sends streams through it. Every request that is seen behind it bears a mark that only the proxy
/// makes, each mark is seen once, and the request is the one that the proxy means.
fn nothing_is_seen_that_was_not_forwarded(name: &str, arguments: &[&str], configuration: &str) {
    let Some(program) = installed(name) else { return };
    let (server, all_seen, came) = witness();
    let folder = std::env::temp_dir().join(format!("wirewheel-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let port = free_port();
    let text = configuration
        .replace("{port}", &port.to_string())
        .replace("{server}", &server.addr().to_string())
        .replace("{folder}", &folder.display().to_string())
        + "\n";
    let file = folder.join("configuration");
    std::fs::write(&file, text).unwrap();
    let proxy = Command::new(program)
        .args(arguments)
        .arg(&file)
        .current_dir(&folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let proxy = Proxy(proxy.unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let asked = std::env::var("WIREWHEEL_PROXY_STREAMS").ok();
    let count = asked.map_or(STREAMS, |count| count.parse().unwrap());
    // Where the machine is busy, answers take longer than the pause after which a stream is left.
    for pause in [25, 100, 400] {
        for number in 0..count {
            send(address, &stream(&mut Dice(number), false), millis(pause));
        }
        let [requests, bodies] = [0, 1].map(|at: usize| came[at].load(Ordering::Relaxed));
        if requests > count / 3 && bodies > count / 10 {
            break;
        }
    }
    drop(proxy);
    std::fs::remove_dir_all(&folder).unwrap();
    drop(server);
    let mut marks = HashSet::new();
    let mut bodies = 0;
    for (mark, meant, request, meant_body, body) in all_seen {
        let is_body = request.starts_with('P') && meant_body.is_some();
        assert!(!is_body || meant_body.as_deref() == Some(&body), "{name}: {request} with {body}");
        bodies += usize::from(request.starts_with('P') && !body.is_empty());
        let known = format!("{name}: {request} with mark {mark:?}, meant as {meant:?}");
        assert!(mark.is_some_and(|mark| marks.insert(mark)), "{known}");
        // A target in absolute form is told as it was sent.
        let (method, target) = request.split_once(' ').unwrap();
        let (meant_method, meant_target) = meant.as_deref().unwrap().split_once(' ').unwrap();
        let without_fragment = meant_target.split('#').next().unwrap();
        let same = without_fragment == target
            || (without_fragment.contains("://")
                && (without_fragment.ends_with(target) || target == "/"))
            || without_fragment.ends_with(target.trim_start_matches('/'));
        assert!(method == meant_method && same, "{known}");
    }
    println!("{name}: {count} streams, {} requests seen, {bodies} bodies", marks.len());
    assert!(bodies as u64 > count / 10, "{name}: only {bodies} bodies of {count}");
    assert!(marks.len() as u64 > count / 3, "{name}: only {} of {count}", marks.len());
}

/// Writes a stream and reads what comes, until the end or a pause.
fn send(address: SocketAddr, bytes: &[u8], pause: Duration) {
    let begun = Instant::now();
    let mut proxy = loop {
        match TcpStream::connect(address) {
            Ok(proxy) => break proxy,
            Err(error) => {
                assert!(begun.elapsed() < PATIENCE, "the proxy does not come up: {error}")
            }
        }
    };
    proxy.set_read_timeout(Some(pause)).unwrap();
    if proxy.write_all(bytes).is_err() {
        return; // refused already
    }
    let mut buffer = [0; 4_096];
    loop {
        match proxy.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[test]
fn behind_nginx_no_request_is_seen_that_it_did_not_forward() {
    let configuration = "
        daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
        events {}
        http {
            access_log off;
            client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
            uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
            upstream behind { server {server}; keepalive 4; }
            server {
                listen 127.0.0.1:{port};
                location / {
                    proxy_pass http://behind;
                    proxy_http_version 1.1;
                    proxy_set_header Connection \"\";
                    proxy_set_header Host $http_host;
                    proxy_set_header X-Mark $request_id;
                    proxy_set_header X-Request \"$request_method $request_uri\";
                }
            }
        }";
    nothing_is_seen_that_was_not_forwarded("nginx", &["-e", "stderr", "-c"], configuration);
}

#[test]
fn behind_haproxy_no_request_is_seen_that_it_did_not_forward() {
    let configuration = "
        defaults
            mode http
            timeout connect 5s
            timeout client 5s
            timeout server 5s
        frontend in
            bind 127.0.0.1:{port}
            option http-buffer-request
            http-request set-header X-Body %[req.body,hex]
            http-request set-header X-Mark %[uuid]
            http-request set-header X-Request \"%[method] %[url]\"
            default_backend behind
        backend behind
            http-reuse always
            server one {server}
    ";
    nothing_is_seen_that_was_not_forwarded("haproxy", &["-db", "-f"], configuration);
}
