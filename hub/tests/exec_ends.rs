//! How programs end: in order, in time, and with nothing left of them.

#![allow(clippy::print_stderr, reason = "what is not looked at is said")]
#![allow(clippy::disallowed_methods, reason = "waiting for another process has a bound")]

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, poll};
use rustix::process::{Pid, Signal, test_kill_process};
use support::client::{
    CLOSE, Client, PATIENCE, TEXT, close_payload, masked, measured, millis, upgrade_request,
};
use support::{Folder, Hub, show};

fn script(folder: &Folder, name: &str, text: &str) -> String {
    let path = folder.write(name, text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Leaves the processor to whom is waited for.
fn pause() {
    let _ = poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 5_000_000 }));
}

/// Waits for something that another process does.
#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        pause();
    }
}

/// The state of a process, `None` if it is not there.
fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// The number that a process tells as its next message.
#[track_caller]
fn told_pid(client: &mut Client) -> u32 {
    String::from_utf8(client.frame().payload).unwrap().parse().unwrap()
}

fn descriptors_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// A program in C that copies its input to a file and says every line on its output too.
fn program_in_c(folder: &Folder) -> Option<String> {
    let source = folder.write(
        "copy.c",
        "#include <stdio.h>\n\
         int main(int argc, char **argv) {\n\
             char line[1000]; FILE *out = fopen(argv[1], \"a\");\n\
             while (fgets(line, sizeof line, stdin)) { fputs(line, stdout); fputs(line, out); }\n\
             return fclose(out);\n\
         }\n",
    );
    let program = folder.path("copy");
    let built = Command::new("cc").arg("-o").arg(&program).arg(&source).status();
    built.is_ok_and(|status| status.success()).then(|| show(&program))
}

/// Says twenty lines and a Close in one write, which is as fast as a client can leave. False if there
/// is no room for one more program.
fn says_twenty_and_leaves(hub: &Hub) -> bool {
    let mut client = hub.connect();
    if client.request(&upgrade_request("/exec", "")).status != 101 {
        return false;
    }
    let lines = (1..=20).map(|number| masked(TEXT, format!("line {number}").as_bytes()));
    let mut bytes: Vec<u8> = lines.flatten().collect();
    bytes.extend(masked(CLOSE, &close_payload(1000, "")));
    client.write(bytes);
    loop {
        let frame = client.frame();
        if frame.first == CLOSE {
            assert_eq!(frame.payload, close_payload(1000, ""));
            return true;
        }
    }
}

fn twenty_of_twenty_arrive(name: &str, program: &str, folder: &Folder) {
    let rounds = 100;
    let heard = folder.path(&format!("heard-{name}"));
    // The grace is for machines that are busy with something else.
    let mut arguments = vec!["--exec", program, "--max-children", "8", "--child-grace", "60s"];
    let path = show(&heard);
    arguments.extend(["--", &path]);
    let hub = Hub::start(&arguments);
    for _ in 0..rounds {
        until("there is room for one more", || says_twenty_and_leaves(&hub));
    }
    let text = || fs::read_to_string(&heard).unwrap_or_default();
    until("all lines have arrived", || text().lines().count() >= 20 * rounds);
    let text = text();
    for number in 1..=20 {
        let line = format!("line {number}");
        let count = text.lines().filter(|heard| *heard == line).count();
        assert_eq!(count, rounds, "{name}: {line}");
    }
}

#[test]
fn a_shell_hears_all_that_was_said_before_the_close() {
    let folder = Folder::new("twenty-sh");
    let text = "#!/bin/sh\nwhile read -r line; do echo \"$line\"; echo \"$line\" >> \"$1\"; done\n";
    twenty_of_twenty_arrive("sh", &script(&folder, "copy.sh", text), &folder);
}

#[test]
fn python_hears_all_that_was_said_before_the_close() {
    if let Err(error) = Command::new("python3").arg("--version").output() {
        return eprintln!("not looked at without Python: {error}");
    }
    let folder = Folder::new("twenty-python");
    let text = "#!/usr/bin/env python3\nimport sys\nfor line in sys.stdin:\n    print(line, end='', \
                flush=True)\n    open(sys.argv[1], 'a').write(line)\n";
    twenty_of_twenty_arrive("python", &script(&folder, "copy.py", text), &folder);
}

#[test]
fn a_program_in_c_hears_all_that_was_said_before_the_close() {
    let folder = Folder::new("twenty-c");
    match program_in_c(&folder) {
        Some(program) => twenty_of_twenty_arrive("c", &program, &folder),
        None => eprintln!("not looked at without cc"),
    }
}

#[test]
fn more_than_a_pipe_takes_is_written_after_the_peer_has_left() {
    let folder = Folder::new("pipeful");
    let (go, count) = (folder.path("go"), folder.path("count"));
    let text = format!(
        "#!/bin/sh\necho ready\nwhile [ ! -e {} ]; do sleep 0.05; done\nwc -c > {}.new\nmv {}.new {}\n",
        go.display(),
        count.display(),
        count.display(),
        count.display()
    );
    let hub = Hub::start(&["--exec", &script(&folder, "late", &text), "--max-message", "256k"]);
    let mut client = hub.upgrade("/exec");
    client.expect_text("ready");
    // A pipe holds 64 KiB.
    client.send(TEXT, &vec![b'x'; 199_999]);
    client.send(CLOSE, &close_payload(1000, ""));
    client.stream.set_read_timeout(Some(millis(300))).unwrap();
    let _ = client.stream.read(&mut [0]); // its Close is seen by the hub, whatever it answers by now
    fs::write(&go, "").unwrap();
    until("the program has read to the end", || count.exists());
    assert_eq!(fs::read_to_string(&count).unwrap().trim(), "200000");
}

/// Programs that do not want to end, or do not play their part: what they are, and their script. Each
/// says its number first if it can.
const HOSTILE: [(&str, &str); 10] = [
    ("ignores SIGTERM", "trap '' TERM; echo $$; while :; do sleep 1000 & wait; done"),
    ("forks away", "echo $$; sleep 1000 & exit 0"),
    ("forks away and ignores SIGTERM", "echo $$; (trap '' TERM; sleep 1000) & exit 0"),
    (
        "leaves its group",
        "echo $$; setsid sleep 1000 & until [ \"$(cut -d' ' -f6 /proc/$!/stat)\" = $! ]; do :; done; \
         echo $!; exit 0",
    ),
    ("floods stderr", "echo $$; while :; do echo noise noise noise >&2; done"),
    ("never reads", "echo $$; exec sleep 1000"),
    ("never writes", "exec >&-; exec sleep 1000"),
    ("closes both ends", "exec >&- <&-; exec sleep 1000"),
    ("exits at once", "exit 0"),
    ("stops itself", "echo $$; kill -STOP $$"),
];

/// All of them in one script, which is told by its path which one to be.
fn hostile_script(folder: &Folder) -> String {
    let mut text = "#!/bin/sh\ncase \"$PATH_INFO\" in\n".to_owned();
    for (number, (_, body)) in HOSTILE.iter().enumerate() {
        text.push_str(&format!("/{number}) {body} ;;\n"));
    }
    text.push_str("esac\n");
    script(folder, "hostile", &text)
}

/// The children of a process, those that nobody has taken away included.
fn children_of(hub: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()?;
        (parent == hub).then_some(pid)
    });
    processes.collect()
}

#[test]
fn whatever_a_program_does_it_is_gone_soon_after_its_session_and_nothing_leaks() {
    let folder = Folder::new("hostile");
    let program = hostile_script(&folder);
    let mut arguments = vec!["--echo", "--child-grace", "200ms", "--max-children", "64"];
    arguments.extend(["--ping-period", "0", "--exec", &program]);
    let hub = Hub::start(&arguments);
    let pid = hub.child.id();
    let mut other = hub.upgrade("/echo");
    let before = descriptors_of(pid);
    for (number, (name, body)) in HOSTILE.iter().enumerate() {
        let mut client = hub.upgrade(&format!("/exec/{number}"));
        let told = body.matches("echo $").count();
        let mut pids: Vec<u32> = (0..told).map(|_| told_pid(&mut client)).collect();
        for text in ["hello", "anybody?"] {
            let _ = client.stream.write_all(&masked(TEXT, text.as_bytes())); // it may have gone
        }
        other.text(name);
        other.expect_text(name);
        drop(client);
        until(&format!("{name}: its descriptors are closed"), || descriptors_of(pid) == before);
        until(&format!("{name}: it is gone"), || children_of(pid).is_empty());
        if *name == "leaves its group" {
            // It is out of reach, and keeps nothing of the hub's.
            let escaped = pids.pop().unwrap();
            assert!(state(escaped).is_some());
            rustix::process::kill_process(Pid::from_raw(escaped as i32).unwrap(), Signal::KILL)
                .unwrap();
        }
    }
}

#[test]
fn sixty_four_hostile_programs_are_ended_within_the_grace_of_a_stop() {
    measured(sixty_four_are_ended);
}

fn sixty_four_are_ended() {
    let folder = Folder::new("sixty-four");
    let program = hostile_script(&folder);
    let mut arguments = vec!["--grace", "2s", "--max-children", "64", "--ping-period", "0"];
    arguments.extend(["--exec", &program]);
    let mut hub = Hub::start(&arguments);
    let kinds: Vec<usize> =
        (0..HOSTILE.len()).filter(|kind| HOSTILE[*kind].0 != "leaves its group").collect();
    let mut clients: Vec<Client> = (0..64)
        .map(|number| hub.upgrade(&format!("/exec/{}", kinds[number % kinds.len()])))
        .collect();
    let pid = hub.child.id();
    for client in &mut clients {
        client.text("hello");
    }
    let running = children_of(pid);
    assert!(running.len() >= 40, "{running:?}");
    let begun = Instant::now();
    hub.signal(Signal::TERM);
    let status = hub.child.wait().unwrap();
    assert!(status.success(), "{status}");
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    until("they are gone", || running.iter().all(|pid| matches!(state(*pid), None | Some('Z'))));
}

#[test]
fn asked_twice_it_ends_at_once() {
    let folder = Folder::new("twice");
    let program = hostile_script(&folder);
    for (first, second) in
        [(Signal::TERM, Signal::TERM), (Signal::HUP, Signal::HUP), (Signal::TERM, Signal::HUP)]
    {
        let mut hub = Hub::start(&["--grace", "10m", "--exec", &program]);
        let mut client = hub.upgrade("/exec/0");
        let pid = told_pid(&mut client);
        let begun = Instant::now();
        hub.signal(first);
        client.expect_close(1001);
        client.send(CLOSE, &close_payload(1001, ""));
        client.expect_eof();
        // The server has ended; the hub waits for the program.
        assert!(hub.child.try_wait().unwrap().is_none());
        hub.signal(second);
        assert!(hub.child.wait().unwrap().success());
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
        assert!(test_kill_process(Pid::from_raw(pid as i32).unwrap()).is_err());
    }
}

#[test]
fn a_second_sighup_waits_for_nobody_as_a_second_sigterm_does() {
    for signals in [[Signal::HUP, Signal::HUP], [Signal::TERM, Signal::HUP]] {
        let hub = Hub::start(&["--echo", "--grace", "10m"]);
        let mut silent = hub.upgrade("/echo");
        let begun = Instant::now();
        hub.signal(signals[0]);
        silent.expect_close(1001);
        hub.signal(signals[1]);
        hub.expect_clean_exit();
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    }
}

/// Nobody tells of a child that had ended before the hub could be told.
#[test]
fn a_child_that_has_ended_before_the_hub_began_is_taken_away() {
    let folder = Folder::new("before");
    let held = show(&folder.path("held"));
    // The child ends, and gives up the lock, once the shell has become one that takes no children away and
    // becomes the hub when it has the lock.
    let started = format!(
        "exec 9>{held}; flock 9 || exit 9; \
         (until read -r name < /proc/$$/comm && [ $name = flock ]; do :; done) & exec 9>&-; \
         exec flock --no-fork {held} \"$0\" \"$@\""
    );
    if !Command::new("flock").arg("--version").output().is_ok_and(|it| it.status.success()) {
        return eprintln!("not looked at without flock");
    }
    for what in [["--exec", "cat"], ["--echo", "--topics"]] {
        let mut command = Command::new("sh");
        command.args(["-c", &started]);
        command.args(support::client::emulator::words(env!("CARGO_BIN_EXE_wirewheel-hub")));
        command.args(["--listen", "127.0.0.1:0"]).args(what);
        let hub = Hub::of(command);
        until("nobody is left", || children_of(hub.child.id()).is_empty());
    }
}

#[test]
fn a_program_that_has_ended_ends_its_session_though_descendants_hold_its_output() {
    let folder = Folder::new("held-output");
    let text = "#!/bin/sh\necho one; echo two\nsleep 1000 &\nexit 0\n";
    let hub = Hub::start(&["--exec", &script(&folder, "program", text)]);
    let mut client = hub.upgrade("/exec");
    client.expect_text("one");
    client.expect_text("two");
    client.expect_close(1000);
    client.send(CLOSE, &close_payload(1000, ""));
    client.expect_eof();
    until("its descendant is told to end too", || children_of(hub.child.id()).is_empty());
}

#[test]
fn a_program_lives_as_long_as_its_session_whatever_it_does_with_its_pipes() {
    let folder = Folder::new("quiet");
    // The one ends by itself, whatever a busy machine takes for it; the other is told.
    for (name, grace, body) in [
        ("no output", "60s", "exec >&-; cat > \"$1\".new; mv \"$1\".new \"$1\""),
        (
            "no input",
            "2s",
            "exec <&-; trap 'echo bye > \"$1\"; exit' TERM; echo here; while :; do sleep 0.1; done",
        ),
    ] {
        let marker = folder.path(name);
        let program = script(&folder, "program", &format!("#!/bin/sh\n{body}\n"));
        let arguments = ["--exec", &program, "--child-grace", grace, "--", &show(&marker)];
        let hub = Hub::start(&arguments);
        let mut client = hub.upgrade("/exec");
        client.text("one");
        if name == "no input" {
            client.expect_text("here");
        }
        // Longer than anything has to wait in the hub.
        client.stream.set_read_timeout(Some(millis(1500))).unwrap();
        let error = client.stream.read(&mut [0]).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            "{name}: {error}"
        );
        assert!(!marker.exists(), "{name}");
        client.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        client.text("two");
        client.send(CLOSE, &close_payload(1000, ""));
        client.expect_close(1000);
        until(name, || marker.exists());
        let text = || fs::read_to_string(&marker).unwrap();
        match name {
            "no output" => assert_eq!(text(), "one\ntwo\n"),
            _ => until("it said so", || text() == "bye\n"),
        }
    }
}

/// The hub as the first process of a namespace of processes, if that may be made here.
fn first_process(script: &str, arguments: &[&str]) -> Option<(Hub, u32)> {
    let unshare = ["unshare", "--pid", "--fork", "--kill-child"];
    let may = Command::new(unshare[0]).args(&unshare[1..]).arg("true").output();
    if !may.is_ok_and(|output| output.status.success()) {
        eprintln!("not looked at: unshare --pid is not allowed here");
        return None;
    }
    let mut command = Command::new(unshare[0]);
    command.args(&unshare[1..]).args(["sh", "-c", script]);
    command.args(support::client::emulator::words(env!("CARGO_BIN_EXE_wirewheel-hub")));
    command.args(["--listen", "127.0.0.1:0"]).args(arguments);
    let hub = Hub::of(command);
    let outer = hub.child.id();
    let children = fs::read_to_string(format!("/proc/{outer}/task/{outer}/children")).unwrap();
    let pid = children.split_whitespace().next().unwrap().parse().unwrap();
    Some((hub, pid))
}

#[test]
fn as_the_first_process_it_takes_away_everybody_who_has_ended() {
    let folder = Folder::new("first");
    let text =
        "#!/bin/sh\nsetsid sh -c 'sleep 0.2' & (sleep 0.1 &)\necho said\nread line\nexit 0\n";
    let program = script(&folder, "program", text);
    let started = "sleep 0.3 & exec \"$0\" \"$@\"";
    let Some((mut hub, pid)) = first_process(started, &["--exec", &program]) else { return };
    for _ in 0..10 {
        let mut client = hub.upgrade("/exec");
        client.expect_text("said");
        client.text("go");
        client.expect_close(1000);
    }
    until("nobody is left", || children_of(pid).is_empty());
    rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::TERM).unwrap();
    assert!(hub.child.wait().unwrap().success());
}

#[test]
fn children_that_it_inherited_are_taken_away_though_it_starts_none() {
    let started = "sleep 1000 & sleep 1000 & exec \"$0\" \"$@\"";
    let Some((hub, pid)) = first_process(started, &["--echo"]) else { return };
    let inherited = children_of(pid);
    assert_eq!(inherited.len(), 2);
    for pid in inherited {
        rustix::process::kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    }
    until("nobody is left", || children_of(pid).is_empty());
    let mut client = hub.upgrade("/echo");
    client.text("hello");
    client.expect_text("hello");
}

/// Fills what lies between, until nothing more is taken: the session is not read any more.
fn fill_up(client: &Client) {
    let frame = masked(TEXT, &[b'x'; 30_000]);
    client.stream.set_nonblocking(true).unwrap();
    let mut refused_at = None;
    until("the program takes everything", || {
        match (&client.stream).write(&frame) {
            Ok(_) => refused_at = None,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        // What was sent may still be on its way from one buffer to the next.
        refused_at.get_or_insert_with(Instant::now).elapsed() > millis(500)
    });
}

#[test]
fn a_peer_that_is_gone_is_noticed_though_its_program_reads_nothing() {
    let folder = Folder::new("unread");
    let program = script(&folder, "deaf", "#!/bin/sh\necho $$\nexec sleep 1000\n");
    let limits = ["--max-children", "1", "--child-grace", "100ms", "--ping-period", "0"];
    let hub = Hub::start(&[&["--exec", &program][..], &limits].concat());
    for resets in [false, true] {
        let mut client = hub.upgrade("/exec");
        let pid = told_pid(&mut client);
        if resets {
            // A pong that is not read makes a reset of the close.
            client.send(support::client::PING, b"");
            until("no pong", || client.stream.peek(&mut [0]).is_ok_and(|bytes| bytes > 0));
            fill_up(&client);
        } else {
            // More than the pipe takes, less than would keep the end from arriving.
            (0..5).for_each(|_| client.send(TEXT, &[b'x'; 30_000]));
        }
        assert_eq!(hub.connect().request(&upgrade_request("/exec", "")).status, 503);
        drop(client);
        until("the program outlives its session", || state(pid).is_none());
    }
    assert_eq!(hub.connect().request(&upgrade_request("/exec", "")).status, 101);
    hub.signal(Signal::TERM);
    hub.expect_clean_exit();
}
