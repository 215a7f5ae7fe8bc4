//! A process for each session: its lines are the messages.

#![allow(clippy::disallowed_methods, reason = "waiting for another process has a bound")]

mod support;

use std::fs;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::process::{Pid, Signal, test_kill_process};
use support::client::{CLOSE, Client, PATIENCE, close_payload, upgrade_request};
use support::{Folder, Hub, show};

/// A script of the test, and the hub that runs it.
fn hub_with(folder: &Folder, script: &str, arguments: &[&str]) -> Hub {
    let path = folder.write("program", &format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut all = vec!["--exec", &path];
    all.extend(arguments);
    Hub::start(&all)
}

#[test]
fn lines_go_in_and_come_out() {
    let hub = Hub::start(&["--exec", "sed", "--", "-u", "s/^/got /"]);
    let mut client = hub.upgrade("/exec");
    for text in ["one", "two words", ""] {
        client.text(text);
        client.expect_text(&format!("got {text}"));
    }
    let mut other = hub.upgrade("/exec"); // a process of its own
    other.text("three");
    other.expect_text("got three");
}

/// A byte that is no UTF-8 takes three as U+FFFD, and a line of them as much more room.
#[test]
fn the_longest_line_arrives_whatever_it_is_of() {
    let folder = Folder::new("longest");
    let script = "head -c 100000 /dev/zero | tr '\\0' '\\377'; echo; echo end";
    let hub = hub_with(&folder, script, &["--memory", "1m", "--max-line", "100k"]);
    let mut client = hub.upgrade("/exec");
    assert_eq!(client.message().payload.len(), 300_000);
    client.expect_text("end");
}

#[test]
fn what_a_peer_says_is_data_and_never_a_command() {
    let folder = Folder::new("data");
    let proof = folder.path("proof");
    let hub = hub_with(
        &folder,
        "printf '%s\\n' \"$QUERY_STRING\" \"$REMOTE_ADDR\" \"$PATH_INFO\" \"$HTTP_USER_AGENT\" \
         \"${HTTP_PROXY-none}\" \"${HOME-none}\" \"$#\"; read line; printf '%s\\n' \"$line\"",
        &["--", "one"],
    );
    let mut client = hub.connect();
    let attack = format!("$(touch${{IFS}}{})", proof.display());
    let path = format!("/exec/a;b?x=`touch%20{}`&{attack}", proof.display());
    let headers = format!("User-Agent: {attack}\r\nProxy: http://evil\r\n");
    assert_eq!(client.request(&upgrade_request(&path, &headers)).status, 101);
    client.expect_text(path.split_once('?').unwrap().1);
    client.expect_text("127.0.0.1");
    client.expect_text("/a;b");
    client.expect_text(&attack);
    client.expect_text("none");
    client.expect_text("none");
    client.expect_text("1");
    client.text(&attack);
    client.expect_text(&attack);
    client.expect_close(1000);
    assert!(!proof.exists());
}

#[test]
fn how_a_process_ends_is_told_and_its_last_words_arrive() {
    let folder = Folder::new("ends");
    let hub = hub_with(&folder, "printf 'last words'; read code; exit $code", &[]);
    for (code, close) in [("0", 1000), ("3", 1011)] {
        let mut client = hub.upgrade("/exec");
        client.text(code);
        client.expect_text("last words");
        client.expect_close(close);
    }
    // One that is not there is refused at the start; it may go later.
    fs::remove_file(folder.path("program")).unwrap();
    hub.upgrade("/exec").expect_close(1011);
}

/// The pid that a process tells as its first message.
fn told_pid(client: &mut Client) -> Pid {
    let text = String::from_utf8(client.frame().payload).unwrap();
    Pid::from_raw(text.parse().unwrap()).unwrap()
}

/// Whether a process is neither there nor a zombie.
fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
        && !Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()
}

#[test]
fn when_a_session_ends_its_process_is_told_and_reaped() {
    let folder = Folder::new("told");
    // What it has for its end before it is killed is more than a busy machine takes to give it its turn.
    let mut hub = hub_with(&folder, "echo $$; exec sleep 1000", &["--child-grace", "2s"]);
    let mut client = hub.upgrade("/exec");
    let pid = told_pid(&mut client);
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_close(1000);
    hub.log_until("signal: 15 (SIGTERM)");
    assert!(is_gone(pid));
}

#[test]
fn a_process_that_ignores_sigterm_is_killed_with_all_it_started() {
    let folder = Folder::new("killed");
    let script = "trap '' TERM; sleep 1000 & echo $!; echo $$; while :; do wait; done";
    let mut hub = hub_with(&folder, script, &["--child-grace", "100ms"]);
    let mut client = hub.upgrade("/exec");
    let pids = [told_pid(&mut client), told_pid(&mut client)];
    drop(client);
    hub.log_until("ignores SIGTERM");
    hub.log_until("signal: 9 (SIGKILL)");
    assert!(is_gone(pids[1]));
    // The grandchild is the init process's to reap, and may take a moment to die.
    let stat = format!("/proc/{}/stat", pids[0].as_raw_nonzero());
    let begun = Instant::now();
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        assert!(begun.elapsed() < PATIENCE, "it lives on");
    }
}

#[test]
fn over_max_children_there_is_503_until_one_has_ended() {
    let folder = Folder::new("children");
    // Nothing but the signal ends it: one that reads may have ended with its input before.
    let script = "echo ready; exec sleep 1000";
    let mut hub = hub_with(&folder, script, &["--max-children", "2", "--child-grace", "2s"]);
    let mut clients: Vec<Client> = (0..2).map(|_| hub.upgrade("/exec")).collect();
    clients.iter_mut().for_each(|client| client.expect_text("ready"));
    let status = |hub: &Hub| hub.connect().request(&upgrade_request("/exec", "")).status;
    assert_eq!(status(&hub), 503);
    drop(clients.pop());
    hub.log_until("signal: 15");
    assert_eq!(status(&hub), 101);
    // Or the program would outlive a hub that is killed.
    drop(clients);
    hub.signal(Signal::TERM);
    hub.expect_clean_exit();
}

#[test]
fn a_peer_that_does_not_read_holds_its_process_and_nobody_else() {
    let folder = Folder::new("flood");
    let count = 400_000;
    let script = format!("read go; seq 1 {count}; echo end >&2");
    // It answers no pings while it does not read.
    let mut hub = hub_with(&folder, &script, &["--metrics", "/metrics", "--ping-period", "0"]);
    let mut client = hub.upgrade("/exec");
    let mut other = hub.upgrade("/exec");
    client.text("go");
    // Some lines are read, the rest waits in the process; the hub holds little of it meanwhile.
    client.expect_text("1");
    let metrics = hub.connect().request("GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n").body;
    let held = metrics.lines().find(|line| line.starts_with("wirewheel_bytes_held")).unwrap();
    let held: f64 = held.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(held < f64::from(4 << 20), "{held}");
    other.text("go");
    for number in 1..=1000 {
        other.expect_text(&number.to_string());
    }
    for number in 2..=count {
        client.expect_text(&number.to_string());
    }
    client.expect_close(1000);
    hub.log_until("end");
}

#[test]
fn a_process_that_does_not_read_holds_its_peer() {
    let folder = Folder::new("slow");
    // It reads only when a file tells it to, and then counts what it gets.
    let go = folder.path("go");
    let script =
        format!("while [ ! -e {} ]; do sleep 0.1; done; head -c 18000000 | wc -c", go.display());
    let hub = hub_with(&folder, &script, &["--max-message", "64k", "--ping-period", "0"]);
    let mut client = hub.upgrade("/exec");
    let mut writer = client.stream.try_clone().unwrap();
    let frame = support::client::masked(support::client::TEXT, &vec![b'x'; 59_999]);
    let sending = std::thread::Builder::new()
        .spawn(move || {
            use std::io::Write;
            for _ in 0..300 {
                writer.write_all(&frame).unwrap();
            }
        })
        .unwrap();
    // 18 MB do not fit between the two: the sender is held, the hub is not.
    let mut other = hub.upgrade("/exec");
    other.send(support::client::PING, b"alive");
    assert_eq!(other.frame().payload, b"alive");
    assert!(!sending.is_finished());
    fs::write(&go, "").unwrap();
    sending.join().unwrap();
    client.expect_text("18000000");
    client.expect_close(1000);
}

#[test]
fn a_program_that_is_not_there_any_more_is_named() {
    let folder = Folder::new("gone");
    let mut hub = hub_with(&folder, "cat", &[]);
    let program = folder.path("program");
    fs::remove_file(&program).unwrap();
    hub.upgrade("/exec").expect_close(1011);
    hub.log_until(&format!("--exec {}: No such file or directory", program.display()));
}

#[test]
fn at_the_end_of_the_hub_no_process_is_left() {
    let folder = Folder::new("left");
    let hub = hub_with(&folder, "trap '' TERM; echo $$; while :; do sleep 1000; done", &[]);
    let mut client = hub.upgrade("/exec");
    let pid = told_pid(&mut client);
    hub.signal(Signal::TERM);
    client.expect_close(1001);
    client.send(CLOSE, &close_payload(1001, ""));
    hub.expect_clean_exit();
    assert!(is_gone(pid));
}

/// What a program prints, as variables.
fn variables(client: &mut Client) -> std::collections::BTreeMap<String, String> {
    let mut found = std::collections::BTreeMap::new();
    loop {
        let line = String::from_utf8(client.frame().payload).unwrap();
        if line == "end" {
            return found;
        }
        let (name, value) = line.split_once('=').unwrap();
        assert_eq!(found.insert(name.to_owned(), value.to_owned()), None, "{name} twice");
    }
}

#[test]
fn the_environment_is_that_of_cgi_and_the_token_is_not_in_it() {
    let folder = Folder::new("environment");
    let tokens = folder.write("tokens", "swordfish/1\ntell-nobody\n");
    let path = folder.write("program", "#!/bin/sh\nenv\necho end\n");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = support::command();
    command.args(["--listen", "127.0.0.1:0", "--exec", &path, "--token-file", &tokens]);
    command.args(["--trusted-proxy", "127.0.0.1", "--pass-env", "LANG", "--pass-env", "UNSET_ONE"]);
    command.env("LANG", "C.UTF-8").env("SECRET", "hub's own");
    let hub = Hub::of(command);
    let target = "/exec/a%20b/%C3%A9?x=1&token=swordfish%2F1&y=%20&z=swordfish%2f1";
    let headers = "User-Agent: agent\r\nX-Two: one\r\nX-Two: two\r\nCookie: a=1\r\nCookie: b=2\r\n\
                   X_Two: hidden\r\nProxy: http://evil\r\nX-Token: swordfish/1\r\n\
                   X-Forwarded-For: 192.0.2.7\r\nX-Empty:\r\n";
    let mut client = hub.connect();
    assert_eq!(client.request(&upgrade_request(target, headers)).status, 101);
    let found = variables(&mut client);
    let port = hub.addr.port().to_string();
    for (name, value) in [
        ("AUTH_TYPE", "Bearer"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("PATH_INFO", "/a b/é"),
        ("QUERY_STRING", "x=1&y=%20"),
        ("REMOTE_ADDR", "192.0.2.7"),
        ("REMOTE_HOST", "192.0.2.7"),
        ("REQUEST_METHOD", "GET"),
        ("SCRIPT_NAME", "/exec"),
        ("SERVER_NAME", "h"),
        ("SERVER_PORT", &port),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", concat!("wirewheel-hub/", env!("CARGO_PKG_VERSION"))),
        ("HTTP_HOST", "h"),
        ("HTTP_USER_AGENT", "agent"),
        ("HTTP_X_TWO", "one, two"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_X_EMPTY", ""),
        ("LANG", "C.UTF-8"),
    ] {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name} in {found:#?}");
    }
    for absent in ["SECRET", "UNSET_ONE", "HTTP_PROXY", "HTTP_AUTHORIZATION", "CONTENT_LENGTH"] {
        assert_eq!(found.get(absent), None);
    }
    assert!(!format!("{found:?}").contains("swordfish"), "{found:#?}");
    // As a header it is as secret.
    let mut client = hub.connect();
    let bearer = "Authorization: Bearer swordfish/1\r\n";
    assert_eq!(client.request(&upgrade_request("/exec", bearer)).status, 101);
    let found = variables(&mut client);
    assert_eq!((found["PATH_INFO"].as_str(), found["QUERY_STRING"].as_str()), ("", ""));
    assert!(!format!("{found:?}").contains("swordfish"), "{found:#?}");
    // Nor do a path, the name of a host, or the name of a header give it away.
    let mut client = hub.connect();
    let bearer_two = "Authorization: Bearer tell-nobody\r\nTELL-nobody: 1\r\n";
    let request = upgrade_request("/exec/a/tell%2Dnobody/b?x=TELL-nobody", bearer_two);
    assert_eq!(client.request(&request.replace("Host: h", "Host: tell-nobody:80")).status, 101);
    let found = variables(&mut client);
    for name in ["PATH_INFO", "SERVER_NAME"] {
        assert_eq!(found[name], "", "{name}");
    }
    let all = format!("{found:?}").to_ascii_lowercase().replace('_', "-");
    assert!(!all.replace("x=tell-nobody", "").contains("tell-nobody"), "{found:#?}");
    // No variable holds such a path.
    let mut client = hub.connect();
    assert_eq!(client.request(&upgrade_request("/exec/a%00b", bearer)).status, 400);
}

#[test]
fn a_long_line_is_one_text_message_whatever_messages_a_client_may_send() {
    let folder = Folder::new("long-line");
    let script = "head -c 80000 /dev/zero | tr '\\0' x; echo; i=0; while [ $i -lt 400 ]; do printf \
                  'éééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééééé\
                  éééééééééééééééééé'; i=$((i+1)); done; echo; echo end; read line";
    let hub = hub_with(&folder, script, &[]);
    let mut client = hub.upgrade("/exec");
    let (first, second) = (client.message(), client.message());
    assert_eq!((first.first, first.payload.len()), (0x81, 80_000));
    assert_eq!((second.first, second.payload.len()), (0x81, 80_000));
    assert!(String::from_utf8(second.payload).unwrap().chars().all(|letter| letter == 'é'));
    client.expect_text("end");
    // What a client may send is another matter.
    client.send(0x82, &vec![0; 70_000]);
    client.expect_close(1009);
}

#[test]
fn lines_over_their_own_limit_are_split_cut_or_the_end_and_the_log_says_so() {
    let folder = Folder::new("over-line");
    let script = "printf 'ééééé\\nnext\\nééééé\\n'; read line";
    let start = |how: &[&str]| hub_with(&folder, script, &[&["--max-line", "5"], how].concat());
    let said = "a line is longer than --max-line";
    let mut splitting = start(&[]);
    let mut client = splitting.upgrade("/exec");
    for text in ["éé", "éé", "é", "next", "éé", "éé", "é"] {
        client.expect_text(text);
    }
    splitting.log_until(said);
    let mut cutting = start(&["--long-line", "cut"]);
    let mut client = cutting.upgrade("/exec");
    for text in ["éé", "next", "éé"] {
        client.expect_text(text);
    }
    cutting.log_until(said);
    let mut closing = start(&["--long-line", "close"]);
    let mut client = closing.upgrade("/exec");
    client.expect_close(1009);
    closing.log_until(said);
}

#[test]
fn output_that_is_not_utf8_is_text_and_said_once_or_binary_if_that_is_asked_for() {
    let folder = Folder::new("latin");
    let script = "printf 'caf\\351\\ncaf\\351\\n'; exit 0";
    let mut hub = hub_with(&folder, script, &[]);
    let mut client = hub.upgrade("/exec");
    client.expect_text("caf\u{fffd}");
    client.expect_text("caf\u{fffd}");
    client.expect_close(1000);
    client.send(CLOSE, &close_payload(1000, ""));
    hub.log_until("a line is not UTF-8");
    hub.signal(Signal::TERM);
    assert!(!hub.rest_of_log().iter().any(|line| line.contains("UTF-8")));
    let binary = hub_with(&folder, script, &["--binary-lines"]);
    let frame = binary.upgrade("/exec").frame();
    assert_eq!((frame.first, frame.payload.as_slice()), (0x82, &b"caf\xe9"[..]));
}

#[test]
fn many_short_lines_at_once_are_all_there() {
    let folder = Folder::new("short-lines");
    let script = "head -c 100000 /dev/zero | tr '\\0' '\\n'; echo end";
    let hub = hub_with(&folder, script, &["--ping-period", "0"]);
    let mut client = hub.upgrade("/exec");
    for _ in 0..100_000 {
        client.expect_text("");
    }
    client.expect_text("end");
    client.expect_close(1000);
}

/// So long a line and a chunk of empty ones are more than the hub keeps for a peer at once.
#[test]
fn short_lines_behind_a_long_one_are_all_there() {
    let folder = Folder::new("long-and-short");
    let chunk = 8 << 10;
    let round = format!(
        "head -c {} /dev/zero | tr '\\0' x; head -c {chunk} /dev/zero | tr '\\0' '\\n'",
        31 * chunk
    );
    let text = show(&folder.path("text"));
    let script = format!("for n in 1 2 3 4; do {round}; done > {text}; cat {text}; echo end");
    let hub = hub_with(&folder, &script, &["--ping-period", "0"]);
    let mut client = hub.upgrade("/exec");
    for _ in 0..4 {
        assert_eq!(client.message().payload.len(), 31 * chunk);
        for _ in 1..chunk {
            client.expect_text("");
        }
    }
    client.expect_text("end");
    client.expect_close(1000);
}

/// Clients that each have a program, over what the system keeps little for.
fn sixteen_at(socket: &Path) -> Vec<Client> {
    let client = |_| {
        let stream = TcpStream::from(OwnedFd::from(UnixStream::connect(socket).unwrap()));
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, inbox: Vec::new() }.upgraded("/exec")
    };
    (0..16).map(client).collect()
}

#[test]
fn programs_of_peers_that_do_not_read_have_their_memory_and_no_line_is_lost() {
    let folder = Folder::new("short-memory");
    let (socket, count) = (folder.path("socket"), 40_000);
    let place = format!("unix:{}", show(&socket));
    let script = format!("read go; seq 1 {count}; printf last");
    let limits = ["--memory", "2m", "--ping-period", "0", "--listen", &place];
    let mut hub = hub_with(&folder, &script, &limits);
    let mut clients = sixteen_at(&socket);
    clients.iter_mut().for_each(|client| client.text("go"));
    for client in &mut clients {
        for number in 1..=count {
            client.expect_text(&number.to_string());
        }
        client.expect_text("last");
        client.expect_close(1000);
        client.send(CLOSE, &close_payload(1000, ""));
    }
    hub.signal(Signal::TERM);
    let log = hub.rest_of_log();
    assert!(!log.iter().any(|line| line.contains("a line ")), "{log:?}");
}

/// Their longest lines are more than the hub may keep in all.
#[test]
fn a_line_that_there_is_no_memory_for_waits_until_there_is() {
    let folder = Folder::new("no-memory");
    let (socket, length) = (folder.path("socket"), 150_000);
    let place = format!("unix:{}", show(&socket));
    let script = format!(
        "read go; for n in 1 2 3 4 5 6; do echo $n; head -c {length} /dev/zero | tr '\\0' x; echo; \
         done; printf last"
    );
    let limits = ["--memory", "2m", "--max-line", "256k", "--ping-period", "0"];
    let mut hub = hub_with(&folder, &script, &[&limits[..], &["--listen", &place]].concat());
    let mut clients = sixteen_at(&socket);
    clients.iter_mut().for_each(|client| client.text("go"));
    hub.log_until("a line waits");
    let read = |mut client: Client| {
        for number in 1..=6 {
            client.expect_text(&number.to_string());
            assert_eq!(client.message().payload.len(), length);
        }
        client.expect_text("last");
        client.expect_close(1000);
    };
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(move || read(client));
        }
    });
    hub.signal(Signal::TERM);
    let log = hub.rest_of_log();
    assert!(!log.iter().any(|line| line.contains("is lost")), "{log:?}");
}
