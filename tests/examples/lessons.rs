//! The examples that teach one thing each, in use.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use super::support::program::Program;
use super::support::*;

#[test]
fn auth_lets_in_by_token_or_by_a_ticket_that_is_good_once() {
    let program = Program::with_arguments("auth", &["127.0.0.1:0", "1"]);
    let bearer = "Authorization: bearer annas-secret\r\n";
    let mut anna = program.connect();
    assert_eq!(anna.request(&upgrade_request("/me", bearer)).status, 101);
    anna.expect_text("hello, anna");

    for wrong in
        ["", "Authorization: Bearer annas-secre\r\n", "Authorization: Basic bens-secret\r\n"]
    {
        for path in ["/me", "/me?ticket=", "/me?ticket=00"] {
            let answer = program.connect().request(&upgrade_request(path, wrong));
            let error = if wrong.contains("Bearer") { ", error=\"invalid_token\"" } else { "" };
            let challenge = format!("Bearer realm=\"members\"{error}");
            let shown = answer.header("www-authenticate").map(str::to_owned);
            assert_eq!((answer.status, shown), (401, Some(challenge)));
        }
        let asked = format!("GET /ticket HTTP/1.1\r\nHost: h\r\n{wrong}\r\n");
        assert_eq!(program.connect().request(&asked).status, 401);
    }

    let asked = "GET /ticket HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer bens-secret\r\n\r\n";
    let ticket = program.connect().request(asked).body;
    assert_eq!(ticket.len(), 32, "{ticket}");
    let path = format!("/me?ticket={ticket}");
    program.connect().upgraded(&path).expect_text("hello, ben");
    assert_eq!(program.connect().request(&upgrade_request(&path, "")).status, 401);
    let mut asking = program.connect();
    let tickets: Vec<String> = (0..300).map(|_| asking.request(asked).body).collect();
    assert!(tickets.iter().all(|ticket| ticket.len() == 32));
    // Who asks without end voids tickets of its own, and nobody else's.
    let of_anna = asked.replace("bens", "annas");
    let ticket = program.connect().request(&of_anna).body;
    for asked_again in 0..20 {
        assert_eq!(asking.request(asked).status, 200, "{asked_again}");
    }
    program.connect().upgraded(&format!("/me?ticket={ticket}")).expect_text("hello, anna");
    let too_old = upgrade_request(&format!("/me?ticket={}", tickets[299]), "");
    assert_eq!(program.connect().request(&too_old).status, 401);
}

#[test]
fn broadcast_from_thread_tells_lines_to_everybody_who_is_there_or_comes() {
    let mut program = Program::start("broadcast_from_thread");
    let mut input = program.child.stdin.take().unwrap();
    writeln!(input, "before anybody came").unwrap();
    let mut clients = [(); 3].map(|()| program.connect().upgraded("/"));
    for client in &mut clients {
        client.expect_text("before anybody came");
    }
    for line in ["fire drill", "", "it is over"] {
        writeln!(input, "{line}").unwrap();
        for client in &mut clients {
            client.expect_text(line);
        }
    }
    drop(input); // the thread ends, the server goes on
    clients[0].send(PING, b"?");
    assert_eq!(clients[0].frame().first, PONG);
    program.signal(Signal::TERM);
    for mut client in clients {
        client.expect_close(1001);
        client.send(CLOSE, &close_payload(1001, ""));
    }
    program.expect_clean_exit();
}

#[test]
fn embedded_in_tests_passes_as_a_program_too() {
    let run = emulator::command(Program::path("embedded_in_tests")).output().unwrap();
    assert_eq!(String::from_utf8(run.stdout).unwrap(), "in memory: passed\nreal server: passed\n");
    assert!(run.status.success());
}

#[test]
fn serial_passes_lines_both_ways_and_holds_back_who_sends_more_than_the_port_takes() {
    let mut program = Program::start("serial");
    let line = program.line();
    let device = line.strip_prefix("no port given; ").unwrap().strip_suffix(" is the device");
    let mut device = File::options().read(true).write(true).open(device.unwrap()).unwrap();
    let mut clients = [(); 2].map(|()| program.connect().upgraded("/"));
    for client in &mut clients {
        client.send(PING, b"in?"); // answered once it is in
        client.frame();
    }
    device.write_all(b"21.5\r\n22").unwrap();
    device.write_all(b".5\n").unwrap();
    for client in &mut clients {
        client.expect_text("21.5");
        client.expect_text("22.5");
    }
    clients[0].text("led on");
    let mut read = BufReader::new(device.try_clone().unwrap());
    let mut next = || {
        let mut line = String::new();
        read.read_line(&mut line).unwrap();
        line
    };
    assert_eq!(next(), "led on\n");

    // A terminal holds a few kilobytes; the sockets some megabytes. What does not fit is not taken
    // from who sends it, who cannot write any more then.
    let command = |n: usize| format!("{n:06} {}", "x".repeat(1000));
    let frame_len = masked(TEXT, command(0).as_bytes()).len();
    let all: Vec<u8> = (0..40_000).flat_map(|n| masked(TEXT, command(n).as_bytes())).collect();
    clients[0].stream.set_write_timeout(Some(millis(300))).unwrap();
    let mut written = 0;
    while let Ok(n) = clients[0].stream.write(&all[written..]) {
        written += n;
    }
    assert!(written < all.len() / 2, "{written} of {} bytes went somewhere", all.len());
    clients[1].text("from the other");
    device.write_all(b"still heard\n").unwrap();
    // On a slow machine a ping has come before.
    let heard = std::iter::repeat_with(|| clients[1].frame()).find(|frame| frame.first != PING);
    assert_eq!(heard.map(|frame| frame.payload), Some(b"still heard".to_vec()));
    let whole = written / frame_len;
    let (mut expected, mut others) = (0, 0);
    while expected < whole || others == 0 {
        match next().trim_end() {
            "from the other" => others += 1,
            line => {
                assert_eq!(line, command(expected));
                expected += 1;
            }
        }
    }
    clients[0].write(&all[written..(whole + 1) * frame_len]);
    assert_eq!(next().trim_end(), command(whole));
    clients[0].text("led off");
    assert_eq!(next(), "led off\n");
}

#[test]
fn serial_ends_when_its_port_is_unplugged() {
    // Not for the program to inherit: it would hold both ends.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let cable = openpt(flags).unwrap();
    grantpt(&cable).unwrap();
    unlockpt(&cable).unwrap();
    let port = ptsname(&cable, Vec::new()).unwrap().into_string().unwrap();
    let program = Program::with_arguments("serial", &["127.0.0.1:0", &port]);
    let mut client = program.connect().upgraded("/");
    client.text("on");
    let mut said = [0; 3];
    File::from(cable).read_exact(&mut said).unwrap(); // and drops it
    assert_eq!(&said, b"on\n");
    client.expect_close(1012);
    client.send(CLOSE, &close_payload(1012, ""));
    client.expect_eof();
    program.expect_failure();
}
