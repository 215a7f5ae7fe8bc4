//! A name server that never answers, in a network namespace of its own: who is connected goes on, attempts
//! end at their deadline, a stop waits for no lookup, and nobody but threads for names ever asks it.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

mod support;

use std::collections::HashSet;
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};
use std::{env, fs};

use support::{Client, PATIENCE, emulator, installed, measured};
use wirewheel::client::{ConnectError, ConnectOptions, ConnectStep, Reconnect};
use wirewheel::{Application, Call, Server, WebSockets, on_message};

/// The system's resolver gives a question up after five seconds, and asks once more.
const RESOLVER_WAITS: Duration = Duration::from_secs(5);
/// Nobody else waits so long.
const NOTICED: Duration = Duration::from_secs(2);
const NAMES: [&str; 6] =
    ["a.example", "b.example", "c.example", "d.example", "e.example", "f.example"];

#[test]
#[allow(clippy::print_stdout, reason = "a skipped test says so")]
fn a_name_server_that_never_answers_blocks_nobody() {
    if env::var_os("WIREWHEEL_PART").is_some() {
        return beside_a_silent_name_server();
    }
    let folder = env::temp_dir().join(format!("wirewheel-name-server-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let (settings, trace) = (folder.join("resolv.conf"), folder.join("trace"));
    fs::write(&settings, "nameserver 127.0.0.1\n").unwrap();
    let rules = format!(
        "ip link set lo up && mount --bind '{}' \"$(readlink -f /etc/resolv.conf)\"",
        settings.display()
    );
    let unshare = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--net", "--mount", "sh", "-c", script]);
        command
    };
    let permitted = unshare(&rules).stderr(Stdio::null()).status();
    if !permitted.is_ok_and(|status| status.success()) {
        println!("skipped: no namespace with a name server of its own here");
        return;
    }
    let tracer = installed("strace").filter(|_| emulator::SLOWER == 1);
    let traced = tracer.as_ref().map_or(String::new(), |strace| {
        // glibc's resolver connects to the name server, musl's names it where it sends.
        let calls = "trace=connect,sendto,poll,ppoll,select,prctl";
        format!("'{}' -f -e '{calls}' -o '{}'", strace.display(), trace.display())
    });
    let part = "\"$0\" \"$@\" a_name_server_that_never_answers_blocks_nobody --exact";
    let status = unshare(&format!("{rules} && exec {traced} {part}"))
        .args(emulator::words(env::current_exe().unwrap()))
        .env("WIREWHEEL_PART", "name server")
        .stdout(Stdio::null())
        .status()
        .unwrap();
    let trace = fs::read_to_string(trace);
    fs::remove_dir_all(folder).unwrap();
    assert!(status.success());
    match trace {
        Ok(trace) => only_threads_for_names_ask(&trace),
        Err(_) => println!("skipped in part: no strace here, which shows who asks"),
    }
}

/// What runs in the namespace, where no name is ever resolved.
fn beside_a_silent_name_server() {
    let name_server = UdpSocket::bind("127.0.0.1:53").unwrap();
    name_server.set_read_timeout(Some(PATIENCE)).unwrap();
    measured(|| nobody_waits(&name_server));
}

fn nobody_waits(name_server: &UdpSocket) {
    let (tell, failures) = channel();
    let module = move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
        });
        for name in NAMES {
            let tell = tell.clone();
            let options =
                ConnectOptions::new().connect_timeout(NOTICED / 4).on_failure(move |error, _| {
                    let at_its_deadline =
                        matches!(error, ConnectError::Timeout(ConnectStep::Lookup));
                    tell.send((at_its_deadline, error.to_string())).unwrap();
                    Reconnect::Retry
                });
            app.connect(&format!("ws://{name}/"), options, |_: &Call| {
                on_message(|session, message| session.send(message))
            });
        }
    };
    let server = Server::bind("127.0.0.1:0", module).unwrap().spawn().unwrap();
    let mut client = Client::connect(server.local_addr()).upgraded("/");
    // What was asked before is nobody's. From here on somebody waits for an answer.
    name_server.set_nonblocking(true).unwrap();
    while name_server.recv(&mut [0; 512]).is_ok() {}
    name_server.set_nonblocking(false).unwrap();
    name_server.recv(&mut [0; 512]).unwrap();
    let asked = Instant::now();
    let mut failed = 0;
    // Well into the time in which the system's resolver waits.
    while failed < NAMES.len() || asked.elapsed() < NOTICED {
        let begun = Instant::now();
        client.text("are you there?");
        client.expect_text("are you there?");
        assert!(begun.elapsed() < NOTICED, "an echo took {:?}", begun.elapsed());
        while let Ok((at_its_deadline, error)) = failures.try_recv() {
            assert!(at_its_deadline, "{error}");
            failed += 1;
        }
        assert!(asked.elapsed() < RESOLVER_WAITS, "{failed} attempts had ended");
    }
    let begun = Instant::now();
    server.shutdown(Duration::ZERO);
    server.join().unwrap();
    assert!(begun.elapsed() < NOTICED, "the stop took {:?}", begun.elapsed());
}

/// In what strace wrote, lines such as `12 connect(5, {.. sin_port=htons(53) ..}, 16) = 0`.
fn only_threads_for_names_ask(trace: &str) {
    let of = |what: &'static str| {
        let lines = trace.lines().filter(move |line| line.contains(what));
        lines.filter_map(|line| line.split_whitespace().next())
    };
    let for_names: HashSet<_> = of("PR_SET_NAME, \"wirewheel-dns").collect();
    let asking: HashSet<_> = of("sin_port=htons(53)").collect();
    assert!(!asking.is_empty(), "nobody asked:\n{trace}");
    assert!(asking.is_subset(&for_names), "{asking:?} asked, of {for_names:?}");
    // Beside the loop's own wait, epoll_wait(2), it has none.
    let of_the_loop: HashSet<_> = of("PR_SET_NAME, \"wirewheel\"").collect();
    assert!(!of_the_loop.is_empty(), "{trace}");
    let mut waits = ["poll(", "ppoll(", "select("].into_iter().flat_map(of);
    assert!(!waits.any(|thread| of_the_loop.contains(thread)), "{trace}");
}
