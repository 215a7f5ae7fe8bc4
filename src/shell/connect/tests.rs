//! Connections that are made, refused or given up, with real sockets.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use mio::{Events, Poll};

use super::*;

const ATTEMPT: Attempt = Attempt { dial: 1, round: 1 };

fn connect(remote: &Remote) -> io::Result<TcpStream> {
    let mut poll = Poll::new().unwrap();
    let mut connecting = Connecting::new(100..200);
    connecting.start(poll.registry(), ATTEMPT, remote)?;
    let mut events = Events::with_capacity(4);
    loop {
        poll.poll(&mut events, Some(Duration::from_secs(20))).unwrap();
        assert!(!events.is_empty(), "the system says nothing");
        for event in &events {
            assert!(connecting.has(event.token()));
            if let Some((attempt, _, outcome)) = connecting.ready(poll.registry(), event.token()) {
                assert_eq!(attempt, ATTEMPT);
                assert!(connecting.sockets.is_empty() && connecting.by_dial[1].is_empty());
                return outcome;
            }
        }
    }
}

#[test]
fn connections_over_tcp_are_made_or_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let stream = connect(&Remote::Tcp(address)).unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    assert!(stream.nodelay().unwrap());
    drop((listener, stream));
    let error = connect(&Remote::Tcp(address)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn unix_sockets_are_connected_to_by_path_and_by_name() {
    let name = format!("wirewheel-connect-{}", std::process::id());
    let path = std::path::Path::new("/tmp").join(&name);
    let by_path = UnixListener::bind(&path).unwrap();
    let abstract_name = UnixAddr::from_abstract_name(&name).unwrap();
    let by_name = UnixListener::bind_addr(&abstract_name).unwrap();
    for place in [path.to_str().unwrap().to_owned(), format!("@{name}")] {
        assert!(connect(&Remote::Unix(place.into())).is_ok());
    }
    std::fs::remove_file(&path).unwrap();
    drop((by_path, by_name));
    let gone = connect(&Remote::Unix(path.to_str().unwrap().into())).unwrap_err();
    assert_eq!(gone.kind(), io::ErrorKind::NotFound);
}

/// Where nobody listens, the system may give a socket the very port that it connects to. It would keep
/// the server that is to listen there from doing so.
#[test]
fn a_socket_that_has_dialled_itself_is_refused() {
    let poll = Poll::new().unwrap();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let socket = socket.unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let own = socket.local_addr().unwrap();
    socket.connect(&own).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut stream = TcpStream::from_std(socket.into());
    let (token, remote) = (Token(100), own.as_socket().unwrap());
    poll.registry().register(&mut stream, token, Interest::WRITABLE).unwrap();
    let mut connecting = Connecting::new(100..103);
    connecting.sockets.insert(token, Candidate { stream, attempt: ATTEMPT, remote });
    let (_, _, outcome) = connecting.ready(poll.registry(), token).unwrap();
    assert_eq!(outcome.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn what_is_abandoned_is_dropped() {
    let poll = Poll::new().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut connecting = Connecting::new(100..103);
    let remote = Remote::Tcp(listener.local_addr().unwrap());
    for round in 1..=2 {
        let attempt = Attempt { dial: 1, round };
        connecting.start(poll.registry(), attempt, &remote).unwrap();
    }
    connecting.abandon(Attempt { dial: 1, round: 1 });
    assert_eq!((connecting.sockets.len(), connecting.by_dial[1].len()), (1, 1));
    connecting.start(poll.registry(), ATTEMPT, &remote).unwrap();
    connecting.start(poll.registry(), ATTEMPT, &remote).unwrap(); // tokens come round
    assert_eq!(connecting.sockets.len(), 3);
}
