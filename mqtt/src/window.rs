//! The window of what is on its way to the broker: bytes that were sent and that it is not known to have
//! read.

use std::time::Duration;

/// A broker answers pings in the order in which it reads: with the answer it has read what was sent before.
/// So a ping that goes out with every quarter of the window tells how far it has come, and whether it lives.
#[derive(Debug)]
pub(crate) struct Window {
    most: u64,
    sent: u64,
    read: u64,
    /// What was sent before the ping that is not answered, and when that was.
    asked: Option<(u64, Duration)>,
}

impl Window {
    pub(crate) fn new(most: usize) -> Self {
        Self { most: most as u64, sent: 0, read: 0, asked: None }
    }

    pub(crate) fn begin_anew(&mut self) {
        (self.sent, self.read, self.asked) = (0, 0, None);
    }

    /// Whether more may be sent, where so many bytes are about to be.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        self.sent - self.read + (more as u64) < self.most
    }

    pub(crate) fn note_sent(&mut self, bytes: usize) {
        self.sent += bytes as u64;
    }

    /// How much was sent on this connection, and up to where the broker is known to have read it.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    pub(crate) fn read(&self) -> u64 {
        self.read
    }

    /// Whether a ping is to go out now.
    pub(crate) fn is_to_ask(&self) -> bool {
        self.asked.is_none() && self.sent - self.read >= self.most / 4
    }

    /// A ping goes out.
    pub(crate) fn ask(&mut self, now: Duration) {
        self.asked = Some((self.sent, now));
    }

    /// It is answered; false if none was asked.
    pub(crate) fn answered(&mut self) -> bool {
        let asked = self.asked.take();
        self.read = asked.map_or(self.read, |(sent, _)| sent);
        asked.is_some()
    }

    /// Since when an answer is awaited.
    pub(crate) fn asked_at(&self) -> Option<Duration> {
        self.asked.map(|(_, at)| at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_window_opens_with_the_answer_and_is_never_full_without_a_question() {
        let mut window = Window::new(400);
        let now = Duration::from_secs(1);
        window.note_sent(99);
        assert!(window.has_room(300) && !window.has_room(301) && !window.is_to_ask());
        window.note_sent(1);
        assert!(window.is_to_ask());
        window.ask(now);
        window.note_sent(300);
        assert!(!window.has_room(0) && !window.is_to_ask());
        assert_eq!(window.asked_at(), Some(now));
        assert!(window.answered());
        assert!(window.has_room(99) && window.is_to_ask());
        assert!(!window.answered(), "nobody asked");
    }
}
