//! What a failed expectation says: what was expected, what came instead, and how the connection
//! stands, so that a failing test need not be run again to be understood.

use std::fmt;

use crate::words::time::Time;

use super::answer::Answer;
use super::client::{Ending, Received, TestClient};
use super::far_end::RawFrame;

/// More of a payload is not shown.
const SHOWN_BYTES: usize = 200;

impl TestClient {
    /// Ends the test.
    #[track_caller]
    pub(super) fn fail(&self, expected: &str, came: Option<&Received>) -> ! {
        match came {
            Some(came) => panic!("expected {expected}, received {came:?}\n{}", self.state()),
            None => panic!("expected {expected}, received nothing\n{}", self.state()),
        }
    }

    /// How the connection stands, in words.
    pub(super) fn state(&self) -> String {
        let ending = self.ending();
        let mut network = self.network.borrow_mut();
        let now = network.now;
        let link = network.link(self.id);
        let stands = match ending {
            Some(Ending::Closed) => "closed by the server, in order",
            Some(Ending::Reset) => "reset by the server",
            None if link.is_waiting() => "not accepted: the server is full",
            None if link.socket.shut => {
                "half closed by the server, which waits for this client's end"
            }
            None => "open",
        };
        let mut state = format!(
            "client {} ({}), {:?} after the start: the connection is {stands}",
            self.id,
            link.address,
            now.since(Time::ZERO)
        );
        let mut add = |what: String| {
            state.push_str("; ");
            state.push_str(&what);
        };
        match &link.far_end {
            None => add("it was not upgraded".into()),
            Some(far_end) if !far_end.rest().is_empty() => {
                add(format!("not asked for yet: {:?}", far_end.rest()));
            }
            Some(_) => {}
        }
        if let Some(open) = &self.open {
            add(format!("a message has begun and its last fragment is missing: {open:?}"));
        }
        if !link.socket.got.is_empty() {
            add(format!("an incomplete rest: {}", Shown(&link.socket.got)));
        }
        if link.socket.room != usize::MAX {
            add(format!("the client reads only {} more bytes", link.socket.room));
        }
        if let Some(until) = link.socket.blocked_until {
            add(format!("the server's writes are blocked for {:?}", until.since(now)));
        }
        state
    }
}

/// A payload as text where it is, else as bytes; its start if it is long.
struct Shown<'a>(&'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.0.get(..SHOWN_BYTES).unwrap_or(self.0);
        match std::str::from_utf8(start) {
            Ok(text) => write!(f, "{text:?}")?,
            Err(error) if error.error_len().is_none() => {
                write!(f, "{:?}", String::from_utf8_lossy(start))?
            }
            Err(_) => write!(f, "b\"{}\"", start.escape_ascii())?,
        }
        if start.len() < self.0.len() {
            write!(f, ".. ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The answer as it came, line by line.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.head.trim_end().lines().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "body: {}", Shown(&self.body))
    }
}

impl fmt::Debug for RawFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RawFrame")
            .field("first", &format_args!("{:#04x}", self.first))
            .field("payload", &Shown(&self.payload))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_shown_as_what_they_are() {
        assert_eq!(Shown("κό".as_bytes()).to_string(), "\"κό\"");
        assert_eq!(Shown(b"\xff\0").to_string(), "b\"\\xff\\x00\"");
        let long = Shown(&[b'x'; 1_000]).to_string();
        assert!(long.len() < 230 && long.ends_with("x\".. (1000 bytes)"), "{long}");
        // Cut inside a character.
        let greek = "xκό".repeat(100);
        assert!(Shown(greek.as_bytes()).to_string().starts_with("\"xκόxκό"));
    }
}
