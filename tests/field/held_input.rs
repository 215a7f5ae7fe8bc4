//! Input that is held, and peers that are not read.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use wirewheel::error::SessionError;
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::{
    Application, Call, CloseInfo, Handler, HandlerResult, Limits, Message, Server, Session,
    WebSockets, on_connect,
};

use crate::support::{
    BINARY, Client, Events, PATIENCE, Running, TEXT, masked, millis, upgrade_request, wait_until,
};

/// What a session may hold of its input: two read buffers.
const HELD_MAX: u64 = 128 << 10;

pub(super) fn held(server: &Running) -> u64 {
    server.0.stats().unwrap().recv_timeout(PATIENCE).unwrap().bytes_held
}

/// It reads well all the time, and is suspended by its own reading all the time.
#[test]
fn a_publisher_that_collects_its_own_flow_gets_all_of_it() {
    const MESSAGES: usize = 160_000;
    let server = Running::start(|app: &mut Application| {
        let options = FlowOptions::new().on_buffer_overflow(BufferOverflow::Suspend);
        let flow: SharedFlow = app.flow(options);
        app.install(WebSockets::new().ping_period(None)); // which would come between the messages
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| {
                let (joined, said) = (flow.clone(), flow.clone());
                on_connect(move |session, _| session.collect(&joined)).on_message(
                    move |session, message| session.emit(&said, message.text().unwrap_or_default()),
                )
            });
        });
    });
    let mut client = server.upgrade("/");
    let mut writer = client.stream.try_clone().unwrap();
    let writing = thread::spawn(move || {
        for batch in 0..MESSAGES / 100 {
            let numbers = batch * 100..(batch + 1) * 100;
            let frames = numbers.flat_map(|n| masked(TEXT, format!("{n:0100}").as_bytes()));
            writer.write_all(&frames.collect::<Vec<u8>>()).unwrap();
        }
    });
    let mut most = 0;
    for n in 0..MESSAGES {
        let frame = client.frame();
        assert_eq!((frame.first, frame.payload), (TEXT, format!("{n:0100}").into_bytes()));
        if n % 5_000 == 0 {
            most = most.max(held(&server));
        }
    }
    writing.join().unwrap();
    // Beside its input, what its peer has not read of the flow.
    assert!(most <= HELD_MAX + (128 << 10), "{most} held");
}

/// Pauses when it is told to, and says what becomes of it.
struct Stuck(Sender<String>);

impl Stuck {
    fn tell(&self, event: String) {
        let _ = self.0.send(event);
    }
}

impl Handler for Stuck {
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        if message.text() == Some("pause") {
            session.pause();
            self.tell("paused".into());
        } else {
            self.tell(format!("{} bytes", message.bytes().len()));
        }
        Ok(())
    }

    fn on_error(&mut self, _session: &mut Session<'_>, error: &SessionError) {
        self.tell(format!("error {error}"));
    }

    fn on_close(&mut self, _session: &mut Session<'_>, close: &CloseInfo) {
        self.tell(format!("close {}", close.code()));
    }
}

/// A module of stuck sessions, and what becomes of them.
fn stuck(
    options: impl Fn() -> WebSockets + Send + 'static,
) -> (impl FnOnce(&mut Application) + Send + 'static, Events) {
    let (tell, told) = channel();
    let module = move |app: &mut Application| {
        app.install(options());
        app.routing(move |route| {
            route.web_socket("/", move |_: &Call| Stuck(tell.clone()));
        });
    };
    (module, Events::from_channel(told))
}

/// Has no pings, and little patience with the peer's end.
fn impatient() -> WebSockets {
    WebSockets::new().ping_period(None).limits(Limits::new().close_timeout(millis(300)))
}

/// Little that is held is read on, so that the end is read too; of more, only the event tells.
const HELD: [usize; 2] = [10, 40_000];
/// So much that the rest, and the end behind it, stay with the peer's system.
const MORE_THAN_FITS: usize = 20 << 20;

fn flood(bytes: usize) -> Vec<u8> {
    masked(BINARY, &vec![7; bytes.min(30_000)]).repeat(bytes.div_ceil(30_000))
}

/// A paused session's client, of which so much is held.
fn held_up(server: &Running, events: &Events, bytes: usize) -> Client {
    let mut client = server.upgrade("/");
    client.text("pause");
    events.expect("paused");
    client.write(flood(bytes));
    wait_until("it is held", || held(server) >= bytes.min(30_000) as u64);
    client
}

#[test]
fn a_peer_that_hangs_up_while_it_is_not_read_is_found_gone() {
    for bytes in HELD {
        let (module, events) = stuck(impatient);
        let server = Running::start(module);
        drop(held_up(&server, &events, bytes));
        events.expect("close 1006");
        assert_eq!(held(&server), 0);
    }
}

#[test]
fn a_peer_that_shuts_its_side_while_it_is_not_read_is_found_gone() {
    for bytes in HELD {
        let (module, events) = stuck(impatient);
        let server = Running::start(module);
        let client = held_up(&server, &events, bytes);
        client.half_close();
        events.expect("close 1006");
    }
}

/// Its end never arrives, for what is before it is not read: but nobody is there to take a ping.
#[test]
fn a_peer_whose_end_is_stuck_behind_what_is_not_read_is_found_gone_by_pings() {
    let (module, events) = stuck(|| impatient().ping_period(millis(200)));
    let server = Running::start(module);
    let mut client = held_up(&server, &events, 40_000);
    client.stream.set_nonblocking(true).unwrap();
    let rest = flood(MORE_THAN_FITS);
    let written = client.stream.write(&rest).unwrap();
    assert!(written < rest.len(), "all of it fits");
    drop(client);
    assert!(events.next().starts_with("error connection lost"));
    events.expect("close 1006");
}

#[test]
fn a_peer_that_resets_while_it_is_not_read_is_found_gone_at_once() {
    // The time that a hang-up leaves has no part in it.
    let patient = || {
        let slow = Limits::new().close_timeout(Duration::from_secs(3_600));
        WebSockets::new().ping_period(None).limits(slow)
    };
    for bytes in HELD {
        let (module, events) = stuck(patient);
        let server = Running::start(module);
        let client = held_up(&server, &events, bytes);
        let socket = socket2::SockRef::from(&client.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
        drop(client);
        events.expect("error connection lost: connection reset");
        events.expect("close 1006");
    }
}

#[test]
fn the_end_of_a_local_peer_is_seen_in_the_same_way() {
    let folder = std::env::temp_dir().join(format!("wh{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("s");
    for (bytes, half) in [(10, true), (40_000, true), (40_000, false)] {
        let (module, events) = stuck(impatient);
        let address = format!("unix:{}", path.display());
        let handle = Server::bind(&address, module).unwrap().spawn().unwrap();
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(upgrade_request("/", "").as_bytes()).unwrap();
        stream.read_exact(&mut [0; 129]).unwrap(); // the answer
        stream.write_all(&masked(TEXT, b"pause")).unwrap();
        events.expect("paused");
        stream.write_all(&flood(bytes)).unwrap();
        stream.shutdown(if half { Shutdown::Write } else { Shutdown::Both }).unwrap();
        events.expect("close 1006");
        handle.shutdown(Duration::ZERO);
        handle.join().unwrap();
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

/// The other half: who goes on in time gets all that came before the end.
#[test]
fn what_was_sent_before_the_end_is_taken_by_who_goes_on_in_time() {
    for bytes in [10, 40_000, 300_000] {
        let (module, events) = stuck(|| {
            // Longer than a busy machine takes until it goes on.
            impatient().limits(Limits::new().close_timeout(PATIENCE))
        });
        let server = Running::start(module);
        let client = held_up(&server, &events, bytes);
        client.half_close();
        server
            .0
            .defer(|server| {
                let id = server.sessions().next().unwrap();
                server.resume(id).unwrap();
            })
            .unwrap();
        for _ in 0..bytes.div_ceil(30_000) {
            events.expect(&format!("{} bytes", bytes.min(30_000)));
        }
        events.expect("close 1006");
    }
}

#[test]
fn pause_timeout_ends_a_session_that_nobody_reads() {
    let (module, events) = stuck(|| WebSockets::new().pause_timeout(millis(200)));
    let server = Running::start(module);
    let mut client = server.upgrade("/");
    client.text("pause");
    events.expect("paused");
    client.text("held");
    events.expect("error Pause timeout");
    events.expect("close 1013");
    assert_eq!(client.expect_close(1013), "Pause timeout");
}
