//! The actor whose session takes messages in pieces, and sends some so: its books are those of all actors.

use std::io::Write;

use crate::app::handler::Handler;
use crate::app::piece_handler::PieceHandler;
use crate::session::Session;
use crate::session::message_stream::MessageStream;
use crate::words::error::HandlerResult;
use crate::words::message::Message;
use crate::words::piece::Piece;

use super::actors::Actor;
use super::content::{self, FROM_SESSION};
use super::sequence::Arriving;

impl PieceHandler for Actor {
    fn on_piece(&mut self, session: &mut Session<'_>, piece: Piece<'_>) -> HandlerResult {
        self.enter("on_piece", session);
        let Some(arriving) = &mut self.arriving else {
            self.violation("a piece for who takes none");
            return Ok(());
        };
        let is_first = arriving.pieces == 0;
        let is_kept = piece.is_first() == is_first && piece.offset() == arriving.bytes.len() as u64;
        let is_of_kind = is_first || arriving.is_text == piece.is_text();
        arriving.bytes.extend_from_slice(piece.bytes());
        arriving.pieces += 1;
        arriving.is_text = piece.is_text();
        if !is_kept || !is_of_kind || (piece.bytes().is_empty() && !piece.is_last()) {
            self.violation(&format!("a piece out of order: {piece:?}"));
        }
        if !piece.is_last() {
            // What a handler does between two pieces of a message has to be possible too.
            return if self.choose(|choices, _| choices.one_in(8)) {
                self.act(session)
            } else {
                Ok(())
            };
        }
        let Some(Arriving { bytes, pieces, is_text }) = self.arriving.replace(Arriving::default())
        else {
            return Ok(());
        };
        self.tally(|tally| tally.in_pieces += usize::from(pieces > 1));
        match std::str::from_utf8(&bytes) {
            Ok(text) if is_text => self.on_message(session, Message::from(text)),
            _ => self.on_message(session, Message::from(&bytes)),
        }
    }
}

impl Actor {
    pub(super) fn takes_pieces(&self) -> bool {
        self.arriving.is_some()
    }

    /// Sends a message as a stream, in pieces of a size that follows from its number.
    pub(super) fn send_as_stream(
        &self,
        session: &mut Session<'_>,
        number: usize,
        text: &str,
    ) -> HandlerResult {
        let (mut rest, size) = (text.to_owned(), 1 + number * 37 % 125);
        let stream = MessageStream::text(move |piece| {
            let later = rest.split_off(size.min(rest.len()));
            piece.write_all(std::mem::replace(&mut rest, later).as_bytes())
        });
        session.send_stream(stream.compressed(number % 5 != 0))?;
        self.log(|log| log.streams = true);
        self.tally(|tally| tally.streamed += 1);
        Ok(())
    }

    pub(super) fn send_fragment(&self, session: &mut Session<'_>) {
        let open = self.log(|log| log.open);
        let number = self.log(|log| log.sent.len());
        let start = content::start(FROM_SESSION, number);
        let begun = open.map_or(0, |open| open - start.len());
        let mut piece = if open.is_none() { start } else { String::new() };
        piece.push_str(&content::text(number, begun..begun + self.size()));
        let fin = self.choose(|choices, _| choices.one_in(3));
        let sent = match self.takes_pieces() {
            true => session.send_piece(&piece, fin),
            false => session.send_fragment(&piece, fin),
        };
        if sent.is_ok() {
            let len = open.unwrap_or(0) + piece.len();
            self.log(|log| {
                log.open = (!fin).then_some(len);
                if fin {
                    log.sent.push(len);
                }
            });
        }
    }
}
