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
use crate::structures::ids::WatchId;
use crate::words::time::Time;

/// The watched descriptors, by the token that their events come with.
///
/// A descriptor that takes another's place has a token of its own: where the one before it is open
/// elsewhere too, such as in a child process, its events go on, and there is no way to have none.
pub(crate) struct Watches {
    /// Tokens lie between these, and are given out downwards.
    tokens: RangeInclusive<usize>,
    next: usize,
    watched: HashMap<Token, Entry>,
    /// Of those of the application.
    by_id: HashMap<WatchId, Token>,
}

struct Entry {
    id: WatchId,
    watched: Box<dyn Watched>,
}

impl Watches {
    pub(crate) fn new(tokens: RangeInclusive<usize>) -> Self {
        Self { next: *tokens.end(), tokens, watched: HashMap::new(), by_id: HashMap::new() }
    }

    /// Begins to watch one.
    pub(crate) fn add(
        &mut self,
        registry: &Registry,
        id: WatchId,
        new: NewWatch,
    ) -> io::Result<()> {
        let NewWatch { watched, interest } = new;
        let token = self.new_token();
        let registered = descriptor_of(&*watched)
            .and_then(|fd| registry.register(&mut SourceFd(&fd), token, interest_of(interest)));
        match registered {
            Ok(()) => self.keep(token, Entry { id, watched }),
            Err(_) => drop_caught("a watch", watched),
        }
        registered
    }

    /// Watches one for something else, if it is still watched.
    pub(crate) fn change(
        &mut self,
        registry: &Registry,
        id: WatchId,
        interest: Ready,
    ) -> io::Result<()> {
        let Some((token, entry)) =
            self.by_id.remove(&id).and_then(|token| self.watched.remove_entry(&token))
        else {
            return Ok(());
        };
        self.go_on(registry, token, entry, interest)
    }

    fn keep(&mut self, token: Token, entry: Entry) {
        if entry.id != WatchId::OF_THE_SERVER {
            self.by_id.insert(entry.id, token);
        }
        self.watched.insert(token, entry);
    }

    /// Has one watched on, for that; drops it where that cannot be.
    fn go_on(
        &mut self,
        registry: &Registry,
        token: Token,
        entry: Entry,
        interest: Ready,
    ) -> io::Result<()> {
        let descriptor = descriptor_of(&*entry.watched);
        let goes_on = descriptor.and_then(|descriptor| {
            self.watch_on(registry, token, descriptor, interest_of(interest))
        });
        match goes_on {
            Ok(token) => self.keep(token, entry),
            Err(error) => {
                drop_caught("a watch", entry.watched);
                return Err(error);
            }
        }
        Ok(())
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
        let Some(mut entry) = self.watched.remove(&token) else { return };
        self.by_id.remove(&entry.id);
        let hung_up = event.is_read_closed() || event.is_write_closed() || event.is_error();
        let ready = Ready::of(event.is_readable() || hung_up, event.is_writable());
        let wish = core.with_server(now, "watch", |server| entry.watched.ready(server, ready));
        if let Some(Watch::For(interest)) = wish {
            if let Err(error) = self.go_on(registry, token, entry, interest) {
                log_unwatchable(&error);
            }
            return;
        }
        // Closing it, which dropping does, would do as well unless it was duplicated.
        let _ = descriptor_of(&*entry.watched)
            .and_then(|descriptor| registry.deregister(&mut SourceFd(&descriptor)));
        drop_caught("a watch", entry.watched);
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
