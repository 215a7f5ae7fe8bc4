//! The application's descriptors that the loop watches.

use std::collections::HashMap;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsRawFd, RawFd};

use log::error;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::context::loop_state::{NewWatch, Watched};
use crate::context::watch::{Ready, Watch};
use crate::core::Core;
use crate::core::panics::{Panicked, caught, drop_caught};
use crate::words::time::Time;

/// The watched descriptors, by the token that their events come with.
///
/// A descriptor that takes another's place has a token of its own: where the one before it is open
/// elsewhere too, such as in a child process, its events go on, and there is no way to have none.
pub(crate) struct Watches {
    /// Tokens lie between these, and are given out downwards.
    tokens: RangeInclusive<usize>,
    next: usize,
    watched: HashMap<Token, Box<dyn Watched>>,
}

impl Watches {
    pub(crate) fn new(tokens: RangeInclusive<usize>) -> Self {
        Self { next: *tokens.end(), tokens, watched: HashMap::new() }
    }

    /// Begins to watch one.
    pub(crate) fn add(&mut self, registry: &Registry, new: NewWatch) -> io::Result<()> {
        let NewWatch { watched, interest } = new;
        let token = self.new_token();
        let registered = descriptor_of(&*watched)
            .and_then(|fd| registry.register(&mut SourceFd(&fd), token, interest_of(interest)));
        match registered {
            Ok(()) => drop(self.watched.insert(token, watched)),
            Err(_) => drop_caught("a watch", watched),
        }
        registered
    }

    fn new_token(&mut self) -> Token {
        loop {
            let token = Token(self.next);
            let lowest = self.next == *self.tokens.start();
            self.next = if lowest { *self.tokens.end() } else { self.next - 1 };
            if !self.watched.contains_key(&token) {
                return token;
            }
        }
    }

    /// Whether a token is one of a watched descriptor.
    pub(crate) fn has(&self, token: Token) -> bool {
        self.tokens.contains(&token.0)
    }

    /// Calls the callback whose descriptor is ready.
    pub(crate) fn ready(&mut self, registry: &Registry, core: &mut Core, now: Time, event: &Event) {
        let token = event.token();
        let Some(mut watched) = self.watched.remove(&token) else { return };
        let hung_up = event.is_read_closed() || event.is_write_closed() || event.is_error();
        let ready = Ready::of(event.is_readable() || hung_up, event.is_writable());
        let wish = core.with_server(now, "watch", |server| watched.ready(server, ready));
        let goes_on = match (wish, descriptor_of(&*watched)) {
            (Some(Watch::For(ready)), Ok(descriptor)) => {
                self.watch_on(registry, token, descriptor, interest_of(ready))
            }
            (Some(Watch::For(_)), Err(error)) => Err(error),
            (Some(Watch::Stop) | None, descriptor) => {
                // Closing it, which dropping does, would do as well unless it was duplicated.
                let _ = descriptor.and_then(|fd| registry.deregister(&mut SourceFd(&fd)));
                return drop_caught("a watch", watched);
            }
        };
        match goes_on {
            Ok(token) => drop(self.watched.insert(token, watched)),
            Err(error) => {
                log_unwatchable(&error);
                drop_caught("a watch", watched);
            }
        }
    }

    /// Registering anew brings the event again if the descriptor still is ready, so that a callback need
    /// not read until there is nothing.
    fn watch_on(
        &mut self,
        registry: &Registry,
        token: Token,
        descriptor: RawFd,
        interest: Interest,
    ) -> io::Result<Token> {
        let mut source = SourceFd(&descriptor);
        match registry.reregister(&mut source, token, interest) {
            // The callback has put another one in its place, such as a reopened port.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = self.new_token();
                registry.register(&mut source, token, interest).map(|()| token)
            }
            other => other.map(|()| token),
        }
    }
}

/// Which descriptor it is: only its type knows, which is the application's.
fn descriptor_of(watched: &dyn Watched) -> io::Result<RawFd> {
    caught(|| watched.fd().as_raw_fd()).map_err(|Panicked(text)| io::Error::other(text))
}

pub(crate) fn log_unwatchable(error: &io::Error) {
    error!(target: "wirewheel::server", "a descriptor cannot be watched: {error}");
}

fn interest_of(ready: Ready) -> Interest {
    match (ready.is_readable(), ready.is_writable()) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (false, true) => Interest::WRITABLE,
        (_, false) => Interest::READABLE,
    }
}
