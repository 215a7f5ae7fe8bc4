//! Owns the sending of an answer with a long body: piece by piece, as the peer takes them.

use crate::app::long_body::LongBody;

use crate::core::connection::{Disposal, Stage};
use crate::core::ending::Loss;
use crate::core::turn::{Reading, Turn};

/// A body on its way out.
#[derive(Debug)]
pub(crate) struct FileAnswer {
    body: LongBody,
    sent: u64,
    /// The connection ends behind it.
    pub(crate) is_last: bool,
}

impl FileAnswer {
    pub(crate) fn new(body: LongBody, is_last: bool) -> Self {
        Self { body, sent: 0, is_last }
    }

    /// Bytes of memory that it takes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>().saturating_add(self.body.memory())
    }
}

impl Turn<'_> {
    /// Lets the connection end once its file is out; false if there is none on its way.
    pub(crate) fn end_behind_file(&mut self) -> bool {
        let Stage::Http(http) = &mut self.connection.stage else { return false };
        http.body.as_mut().map(|answer| answer.is_last = true).is_some()
    }

    /// Sends the file that is on its way, if there is one: until it is out, the socket takes no
    /// more, or this connection has had its share of the turn. At most one piece waits in the
    /// outbox, whatever the size of the file.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "never past the length of the file, which is a u64"
    )]
    pub(crate) fn send_file(&mut self) -> Reading {
        loop {
            self.flush();
            let blocked = self.connection.state.waiting().is_some();
            let Stage::Http(http) = &mut self.connection.stage else { return Reading::Continue };
            let Some(answer) = &mut http.body else { return Reading::Continue };
            if answer.sent >= answer.body.length() {
                let is_last = answer.is_last;
                http.body = None;
                if is_last {
                    self.finish();
                } else {
                    self.watch_answer();
                }
                return Reading::Continue;
            }
            if blocked {
                return Reading::Paused;
            }
            if self.shared.work.is_spent() {
                return Reading::Again;
            }
            match answer.body.read_piece(answer.sent, &mut self.shared.tx) {
                Ok(read) => {
                    answer.sent += read as u64;
                    self.shared.work.add(read);
                    self.shared.opaque_prefix = self.shared.tx.len();
                }
                Err(error) => {
                    // The length is announced: only a broken connection says that this is not all.
                    let (sent, length) = (answer.sent, answer.body.length());
                    self.shared.warnings.note("file", self.shared.now, || {
                        format!("a file ended at {sent} of {length} bytes: {error}")
                    });
                    self.lose(Loss::Aborted);
                    self.drop_socket(Disposal::Reset);
                    return Reading::Continue;
                }
            }
        }
    }
}
