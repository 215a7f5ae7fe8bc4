//! Owns the application's descriptors while the loop watches them.

use std::io;
use std::os::fd::AsRawFd;

use log::error;
use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::core::Core;
use crate::domain::watch::{NewWatch, Ready, Watch, Watched};
use crate::words::time::Time;

/// The watched descriptors; the tokens count down from `top`.
pub(crate) struct Watches {
    top: usize,
    places: Vec<Option<Box<dyn Watched>>>,
}

impl Watches {
    pub(crate) fn new(top: usize) -> Self {
        Self { top, places: Vec::new() }
    }

    /// Begins to watch one.
    pub(crate) fn add(&mut self, registry: &Registry, new: NewWatch) -> io::Result<()> {
        let place = self.places.iter().position(Option::is_none).unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        let descriptor = new.watched.fd().as_raw_fd();
        let interest = interest(new.interest);
        registry.register(&mut SourceFd(&descriptor), Token(self.top - place), interest)?;
        if let Some(slot) = self.places.get_mut(place) {
            *slot = Some(new.watched);
        }
        Ok(())
    }

    /// Whether a token is one of a watched descriptor.
    pub(crate) fn has(&self, token: Token) -> bool {
        token.0 <= self.top && self.top - token.0 < self.places.len()
    }

    /// Calls the callback whose descriptor is ready.
    pub(crate) fn ready(&mut self, registry: &Registry, core: &mut Core, now: Time, event: &Event) {
        let place = self.top - event.token().0;
        let Some(mut watched) = self.places.get_mut(place).and_then(Option::take) else { return };
        let hung_up = event.is_read_closed() || event.is_write_closed() || event.is_error();
        let ready = Ready::of(event.is_readable() || hung_up, event.is_writable());
        let wish = core.with_server(now, "watch", |server| watched.ready(server, ready));
        let descriptor = watched.fd().as_raw_fd();
        match wish {
            Some(Watch::For(ready)) => {
                // Registering anew brings the event again if the descriptor still is ready, so that
                // a callback need not read until there is nothing.
                let (token, interest) = (event.token(), interest(ready));
                let mut source = SourceFd(&descriptor);
                let again = match registry.reregister(&mut source, token, interest) {
                    // The callback has put another one in its place, such as a reopened port.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        registry.register(&mut source, token, interest)
                    }
                    other => other,
                };
                match again {
                    Ok(()) => {
                        if let Some(slot) = self.places.get_mut(place) {
                            *slot = Some(watched);
                        }
                    }
                    Err(error) => log_unwatchable(&error),
                }
            }
            Some(Watch::Stop) | None => {
                // Closing it, which dropping does, would do as well unless it was duplicated.
                let _ = registry.deregister(&mut SourceFd(&descriptor));
            }
        }
    }
}

pub(crate) fn log_unwatchable(error: &io::Error) {
    error!(target: "wirewheel::server", "a descriptor cannot be watched: {error}");
}

fn interest(ready: Ready) -> Interest {
    match (ready.is_readable(), ready.is_writable()) {
        (true, true) => Interest::READABLE | Interest::WRITABLE,
        (false, true) => Interest::WRITABLE,
        (_, false) => Interest::READABLE,
    }
}
