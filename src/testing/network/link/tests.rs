//! One connection of the network: what arrives, what is announced, and buffers between.

use super::*;
use crate::transport::stream::Stream;
use std::time::Duration;

const NOW: Time = Time::ZERO;

fn link() -> Link {
    let mut link = Link::new(SocketAddr::from(([127, 0, 0, 1], 80)));
    link.set_buffers(Buffers { send: 3_000, receive: 1_000, segment: 400 });
    link.slot = Some(0);
    link
}

fn ready(writable: bool, readable: bool, ended: bool) -> Option<Readiness> {
    Some(Readiness { writable, readable, ended })
}

#[test]
fn events_come_once_and_with_all_that_it_is_ready_for() {
    let mut link = link();
    assert_eq!(link.take_event(NOW), None);
    link.send(b"one");
    assert_eq!(link.take_event(NOW), ready(true, true, false));
    assert_eq!(link.take_event(NOW), None, "it is told once");
    link.send(b"two");
    assert_eq!(link.take_event(NOW), ready(true, true, false));
    let mut buffer = [0; 10];
    assert_eq!(Stream::read(&mut *link.socket, &mut buffer), ReadOutcome::Bytes(6));
    assert_eq!(Stream::read(&mut *link.socket, &mut buffer), ReadOutcome::Drained);
}

#[test]
fn room_is_told_of_only_to_who_was_refused_it() {
    let mut link = link();
    link.set_pace(Pace::Nothing);
    assert_eq!(link.wire().write(&[0; 5_000]).ok(), Some(3_000));
    assert_eq!(link.take_event(NOW), ready(true, false, false), "1,000 have gone");
    assert_eq!(link.wire().write(&[0; 5_000]).ok(), Some(1_000));
    assert_eq!(link.take_event(NOW), None, "the window is closed");
    link.set_pace(Pace::All);
    assert_eq!(link.take_event(NOW), ready(true, false, false));
    assert_eq!((link.take_event(NOW), link.socket.got.len()), (None, 4_000));
}

/// As with EPOLLRDHUP, which does not wait for what came before to be read.
#[test]
fn the_end_is_told_while_nothing_is_read() {
    let mut link = link();
    link.send(b"unread");
    link.end(PeerEnd::Shut);
    assert_eq!(link.take_event(NOW), ready(true, true, true));
    let mut buffer = [0; 10];
    assert_eq!(Stream::read(&mut *link.socket, &mut buffer), ReadOutcome::Bytes(6));
    assert_eq!(Stream::read(&mut *link.socket, &mut buffer), ReadOutcome::Eof);
    link.end(PeerEnd::Reset);
    assert_eq!(
        Stream::read(&mut *link.socket, &mut buffer),
        ReadOutcome::Failed(ErrorKind::ConnectionReset)
    );
}

#[test]
fn the_system_reads_on_for_a_server_only_as_far_as_it_has_room() {
    let mut link = link();
    link.receive_buffer = 4;
    link.send(b"123456");
    link.end(PeerEnd::Shut);
    assert_eq!(link.take_event(NOW), ready(true, true, false), "the end is on its way");
    assert_eq!(Stream::read(&mut *link.socket, &mut [0; 10]), ReadOutcome::Bytes(4));
    assert_eq!(link.take_event(NOW), ready(true, true, true));
}

#[test]
fn what_a_server_has_closed_is_delivered() {
    let mut link = link();
    link.set_pace(Pace::Steadily { bytes: 500, every: Duration::from_secs(1) });
    assert_eq!(link.wire().write(&[0; 2_500]).ok(), Some(2_500));
    link.dispose(Disposal::Close);
    for second in 0..5 {
        let now = Time::ZERO.after(Duration::from_secs(second));
        assert_eq!(link.linger(now), second < 4);
    }
    assert!(link.socket.is_end_seen());
    assert_eq!(link.socket.got.len(), 2_500);
}

#[test]
fn a_reset_takes_back_what_was_not_read() {
    let closes: [fn(&mut Link); 3] = [
        |link| link.dispose(Disposal::Reset),
        |link| {
            link.send(b"unread");
            link.take_event(NOW);
            link.dispose(Disposal::Close);
        },
        |link| {
            link.dispose(Disposal::Close);
            assert!(link.linger(NOW));
            link.send(b"too late");
        },
    ];
    for close in closes {
        let mut link = link();
        link.set_pace(Pace::Nothing);
        assert_eq!(link.wire().write(&[0; 2_500]).ok(), Some(2_500));
        close(&mut link);
        assert!(!link.linger(NOW));
        assert!(!link.socket.is_end_seen());
        assert_eq!(link.socket.transit().map(Transit::lost), Some(2_500));
    }
}

#[test]
fn who_has_all_taken_awaits_no_room() {
    let mut link = link();
    assert_eq!(link.wire().write(&[0; 300]).ok(), Some(300));
    assert_eq!(link.take_event(NOW), None);
    assert!(!link.socket.notes.blocked);
}

#[test]
fn a_ping_that_a_reset_threw_away_unread_was_taken_when_its_last_byte_was() {
    let at = |seconds| NOW.after(Duration::from_secs(seconds));
    let ping = [&[0x89, 8][..], &at(1).as_micros().to_be_bytes()].concat();
    let mut link = link();
    link.set_pace(Pace::Steadily { bytes: 400, every: Duration::from_secs(60) });
    assert_eq!(link.wire().write(&[b'x'; 995]).ok(), Some(995));
    link.take_event(at(1)); // its program reads 400 of them, which opens the window
    assert_eq!(link.wire().write(&[b'x'; 400]).ok(), Some(400));
    assert_eq!(link.wire().write(&ping).ok(), Some(10));
    link.take_event(at(2)); // the window has 5 bytes for it until the program reads again
    link.take_event(at(61));
    assert_eq!(link.wire().write(&[b'y'; 100]).ok(), Some(100));
    link.take_event(at(62));
    link.dispose(Disposal::Reset);
    assert_eq!(link.unread_ping_taken_at(at(63)), Some(at(61)));
    assert_eq!(link.unread_ping_taken_at(NOW), None, "no ping is from the future");
}
