//! What slows a session down and what wakes it, over real sockets: pauses, suspended publishers,
//! timers.

#![allow(clippy::disallowed_methods, reason = "a test of real time reads the clock")]

mod support;

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use socket2::SockRef;
use support::*;
use wirewheel::flow::{FlowOptions, SharedFlow};
use wirewheel::options::ListenOptions;
use wirewheel::{Application, Call, Server, WebSockets, on_connect, on_message};

/// Sockets that hold little, so that who sends is soon held up; but more than a segment of the loopback
/// device, below which TCP waits for its timers.
fn start_small(module: impl FnOnce(&mut Application) + Send + 'static) -> Running {
    let small = ListenOptions::new().receive_buffer_bytes(64 << 10).send_buffer_bytes(64 << 10);
    Running::of(Server::bind_with("127.0.0.1:0", &small, module).unwrap())
}

fn upgrade_small(server: &Running, path: &str) -> Client {
    let client = server.upgrade(path);
    let socket = SockRef::from(&client.stream);
    socket.set_send_buffer_size(64 << 10).unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    client
}

/// Writes until the other side has taken nothing for a while; how much it took.
fn write_until_held_up(client: &mut Client, bytes: &[u8]) -> usize {
    client.stream.set_write_timeout(Some(millis(300))).unwrap();
    let mut written = 0;
    while written < bytes.len() {
        match client.stream.write(&bytes[written..]) {
            Ok(n) => written += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    client.stream.set_write_timeout(None).unwrap();
    written
}

fn numbered(count: usize) -> Vec<u8> {
    (0..count).flat_map(|number| masked(TEXT, format!("{number:01000}").as_bytes())).collect()
}

#[test]
fn a_paused_session_holds_its_sender_up_and_loses_nothing() {
    const MESSAGES: usize = 4_000;
    let (opened, id) = channel();
    let (told, numbers) = channel();
    let server = start_small(move |app| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (opened, told) = (opened.clone(), told.clone());
                on_message(move |session, message| {
                    let number: usize = message.text().unwrap_or_default().parse()?;
                    told.send(number)?;
                    if number == 9 {
                        session.pause();
                        opened.send(session.id())?;
                    }
                    Ok(())
                })
            });
        });
    });
    let mut client = upgrade_small(&server, "/");
    let all = numbered(MESSAGES);
    let written = write_until_held_up(&mut client, &all);
    assert!(written < 1 << 20, "{written} bytes were taken of a session that is not read");
    let id = id.recv_timeout(PATIENCE).unwrap();
    assert_eq!(numbers.try_iter().collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    let stats = server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap();
    assert!(stats.bytes_held <= 70 << 10, "{} bytes are held", stats.bytes_held);
    server.0.defer(move |server| server.resume(id).unwrap()).unwrap();
    client.write(&all[written..]);
    let rest: Vec<usize> =
        (10..MESSAGES).map(|_| numbers.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(rest, (10..MESSAGES).collect::<Vec<_>>());
}

/// Reads the numbers of that many messages of 1,000 digits.
fn read_numbers(client: &mut Client, count: usize) -> Vec<usize> {
    let mut frame = [0; 1_004];
    (0..count)
        .map(|_| {
            client.stream.read_exact(&mut frame).unwrap();
            std::str::from_utf8(&frame[4..]).unwrap().parse().unwrap()
        })
        .collect()
}

#[test]
fn a_publisher_is_held_up_by_the_slowest_and_goes_on_with_nothing_lost_or_reordered() {
    const MESSAGES: usize = 4_000;
    for buffer in [0, 16] {
        let flow_options = FlowOptions::new().extra_buffer(buffer);
        let server = start_small(move |app| {
            let flow: SharedFlow = SharedFlow::with(flow_options).unwrap();
            app.install(WebSockets::new().ping_period(None));
            app.routing(move |route| {
                let published = flow.clone();
                route.web_socket("/listen", move |_: &Call| {
                    let flow = flow.clone();
                    on_connect(move |session, _| session.collect(&flow))
                });
                route.web_socket("/talk", move |_: &Call| {
                    let flow = published.clone();
                    on_message(move |session, message| {
                        session.emit(&flow, message.text().unwrap_or_default())
                    })
                });
            });
        });
        let mut slow = upgrade_small(&server, "/listen");
        let mut quick = upgrade_small(&server, "/listen");
        let mut publisher = upgrade_small(&server, "/talk");
        let (tell, told) = channel();
        let reader = thread::spawn(move || {
            let first = read_numbers(&mut quick, 10);
            tell.send(()).unwrap();
            [first, read_numbers(&mut quick, MESSAGES - 10)].concat()
        });
        let all = numbered(MESSAGES);
        let written = write_until_held_up(&mut publisher, &all);
        assert!(written < 1 << 20, "{written} bytes were taken of a publisher that has to wait");
        told.recv_timeout(PATIENCE).unwrap();
        let (tell, told) = channel();
        let writer = thread::spawn(move || {
            publisher.write(&all[written..]);
            tell.send(()).unwrap();
            publisher
        });
        assert_eq!(told.recv_timeout(millis(300)), Err(RecvTimeoutError::Timeout));
        let expected: Vec<usize> = (0..MESSAGES).collect();
        assert_eq!(read_numbers(&mut slow, MESSAGES), expected, "buffer {buffer}");
        assert_eq!(reader.join().unwrap(), expected, "buffer {buffer}");
        writer.join().unwrap();
    }
}

#[test]
fn timers_of_a_session_fire_in_time_and_end_with_it() {
    let (told, ends) = channel();
    let server = Running::start(move |app| {
        app.install(WebSockets::new().ping_period(None));
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let told = told.clone();
                on_connect(|session, _| {
                    session.set_timer(millis(50))?;
                    let never = session.set_timer(millis(10))?;
                    session.cancel_timer(never);
                    session.send("set")
                })
                .on_timer(move |session, _| {
                    session.set_timer(millis(50))?;
                    told.send("timer")?;
                    session.send("timer")
                })
            });
        });
    });
    let begun = Instant::now();
    let mut client = server.upgrade("/");
    client.expect_text("set");
    client.expect_text("timer");
    client.expect_text("timer");
    assert!(begun.elapsed() >= millis(100), "{:?}", begun.elapsed());
    client.send(CLOSE, &close_payload(1000, ""));
    // They go on until it is read.
    let frames = std::iter::repeat_with(|| client.frame());
    let later = frames.into_iter().take_while(|frame| frame.first != CLOSE).count();
    client.expect_eof();
    let fired = ends.try_iter().count();
    assert_eq!(fired, 2 + later);
    let behind = ends.recv_timeout(millis(200));
    assert_eq!(behind, Err(RecvTimeoutError::Timeout), "none fires behind the end");
    drop(server);
}

#[test]
fn timers_of_the_server_fire_once_or_on_the_beat() {
    let (told, beats) = channel();
    let once = told.clone();
    let server = Running::start(|app| app.every(millis(20), |_| ()));
    let began = Instant::now();
    server
        .0
        .defer(move |server| {
            let mut count = 0;
            server.after(millis(50), move |_| once.send("once").unwrap()).unwrap();
            let never = server.after(millis(5), |_| panic!("was taken back")).unwrap();
            server.cancel_timer(never);
            server
                .every(millis(30), move |server| {
                    count += 1;
                    told.send("beat").unwrap();
                    if count == 3 {
                        server.shutdown(millis(100));
                    }
                })
                .unwrap();
        })
        .unwrap();
    let all: Vec<&str> = (0..4).map(|_| beats.recv_timeout(PATIENCE).unwrap()).collect();
    assert_eq!(all, ["beat", "once", "beat", "beat"]);
    assert!(began.elapsed() >= millis(90), "{:?}", began.elapsed());
    server.0.join().unwrap();
}

/// A process that is stopped and goes on, whose every wait ends at that (signal(7)). It ends with the test.
struct Interrupted(Option<Child>);

impl Interrupted {
    fn interrupt(&mut self) {
        let Some(child) = &self.0 else { return };
        let pid = Pid::from_child(child);
        kill_process(pid, Signal::STOP).unwrap();
        // A stop that the process does not come to is none.
        let (_, status) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap().unwrap();
        if !status.stopped() {
            self.0 = None; // it is over, and waited for
            return;
        }
        kill_process(pid, Signal::CONT).unwrap();
    }
}

impl Drop for Interrupted {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn what_is_due_comes_however_often_the_wait_is_interrupted() {
    let program = std::env::current_exe().unwrap();
    let mut command = emulator::command(program);
    command.args(["--ignored", "--exact", "interrupted"]).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = child.stdout.take().unwrap();
    let (tell, told) = channel();
    thread::spawn(move || {
        let mut said = String::new();
        output.read_to_string(&mut said).unwrap();
        tell.send(said).unwrap();
    });
    let (mut child, began) = (Interrupted(Some(child)), Instant::now());
    let said = loop {
        if let Ok(said) = told.recv_timeout(millis(20)) {
            break said;
        }
        child.interrupt();
        assert!(began.elapsed() < PATIENCE, "it waits as long again each time");
    };
    assert!(said.contains(" 1 passed"), "{said}");
}

#[test]
#[ignore = "in a process of its own"]
fn interrupted() {
    let server = Running::start(|app| app.every(millis(500), |server| server.shutdown(millis(0))));
    server.0.join().unwrap();
}
