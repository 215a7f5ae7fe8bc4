//! Connections that are being made: sockets that connect without waiting, until the system says how that
//! went.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::core::dial_orders::{Attempt, Remote};
use crate::session::state::NO_ADDR;
use crate::structures::places::place_at;

/// Sockets that are connecting, by token.
#[derive(Debug)]
pub(crate) struct Connecting {
    tokens: Range<usize>,
    next: usize,
    sockets: HashMap<Token, Candidate>,
    /// The tokens of each dialer's attempts, with their rounds.
    by_dial: Vec<Vec<(u32, Token)>>,
}

#[derive(Debug)]
struct Candidate {
    stream: TcpStream,
    attempt: Attempt,
    remote: SocketAddr,
}

/// How the making of a connection has ended.
pub(crate) type Connected = (Attempt, SocketAddr, io::Result<TcpStream>);

impl Connecting {
    pub(crate) fn new(tokens: Range<usize>) -> Self {
        Self { next: tokens.start, tokens, sockets: HashMap::new(), by_dial: Vec::new() }
    }

    /// Begins to connect.
    pub(crate) fn start(
        &mut self,
        registry: &Registry,
        attempt: Attempt,
        remote: &Remote,
    ) -> io::Result<()> {
        let (mut stream, remote) = match remote {
            Remote::Tcp(address) => {
                let stream = TcpStream::connect(*address)?;
                // What a session sends goes out as it is made.
                stream.set_nodelay(true)?;
                (stream, *address)
            }
            // The calls made on a stream are the same for both kinds, so one type serves.
            Remote::Unix(path) => {
                let stream = UnixStream::connect_addr(&unix_address(path)?)?;
                (TcpStream::from(OwnedFd::from(stream)), NO_ADDR)
            }
        };
        let token = self.new_token();
        registry.register(&mut stream, token, Interest::WRITABLE)?;
        self.sockets.insert(token, Candidate { stream, attempt, remote });
        if let Some(tokens) = place_at(&mut self.by_dial, attempt.dial as usize) {
            tokens.push((attempt.round, token));
        }
        Ok(())
    }

    fn new_token(&mut self) -> Token {
        loop {
            let token = Token(self.next);
            self.next += 1;
            if self.next >= self.tokens.end {
                self.next = self.tokens.start;
            }
            if !self.sockets.contains_key(&token) {
                return token;
            }
        }
    }

    /// Whether a token is one of a socket that connects.
    pub(crate) fn has(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    /// The system says something of a socket: how the making of its connection has ended, if it has.
    pub(crate) fn ready(&mut self, registry: &Registry, token: Token) -> Option<Connected> {
        let stream = &self.sockets.get(&token)?.stream;
        let outcome = match stream.take_error() {
            Ok(Some(error)) | Err(error) => Err(error),
            Ok(None) => match stream.peer_addr() {
                // Nobody else listens there: the system has given it the port that it connects to.
                Ok(peer) if stream.local_addr().is_ok_and(|own| own == peer) => {
                    Err(io::ErrorKind::ConnectionRefused.into())
                }
                Ok(_) => Ok(()),
                Err(error) if is_unfinished(&error) => return None,
                // A Unix socket's peer has no address that this type could say.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
                Err(error) => Err(error),
            },
        };
        let Candidate { mut stream, attempt, remote } = self.sockets.remove(&token)?;
        if let Some(tokens) = self.by_dial.get_mut(attempt.dial as usize) {
            tokens.retain(|(_, known)| *known != token);
        }
        // It is registered once more, with the token of its slot.
        let outcome = outcome.and_then(|()| registry.deregister(&mut stream)).map(|()| stream);
        Some((attempt, remote, outcome))
    }

    /// An attempt waits for none of its sockets any longer. Each that has connected comes here, so that this
    /// does not go through those of others.
    pub(crate) fn abandon(&mut self, attempt: Attempt) {
        let Some(tokens) = self.by_dial.get_mut(attempt.dial as usize) else { return };
        tokens.retain(|(round, token)| {
            let is_over = *round == attempt.round;
            if is_over {
                self.sockets.remove(token);
            }
            !is_over
        });
    }
}

fn is_unfinished(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotConnected || error.raw_os_error() == Some(libc::EINPROGRESS)
}

fn unix_address(path: &str) -> io::Result<UnixAddr> {
    match path.strip_prefix('@') {
        Some(name) => UnixAddr::from_abstract_name(name),
        None => UnixAddr::from_pathname(path),
    }
}

#[cfg(all(repository, test))]
mod tests;
