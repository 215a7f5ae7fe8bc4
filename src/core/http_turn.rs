//! One turn of a connection that speaks HTTP: request heads in, up to the one that makes it a session.

use crate::app::response::Response;
use crate::context::work::{HEAD_BYTE_WORK, REQUEST_WORK};
use crate::protocol::foreign;
use crate::protocol::head::{HeadLimits, HeadStatus, parse_head};
use crate::protocol::head_error::HeadError;

use log::Level;

use crate::core::connection::{Disposal, Stage};
use crate::core::deferred_turn::DeferredTurn;
use crate::core::http_stage::HttpStage;
use crate::core::losses::Loss;
use crate::core::progress::Queue;
use crate::core::request_admission::{ProxyBytes, RequestAdmission};
use crate::core::request_body::BodyTurn;
use crate::core::request_log::reason;
use crate::core::responder::{AfterRequest, Responder};
use crate::core::session_input::SessionTurn;
use crate::core::turn::{Reading, Turn};

/// A connection's turn before its upgrade.
pub(super) struct HttpTurn<'t, 'a> {
    pub(super) turn: &'t mut Turn<'a>,
}

/// Input.
impl HttpTurn<'_, '_> {
    /// Bytes of a connection that is not upgraded.
    pub(super) fn input(&mut self, rx: &mut [u8]) -> Reading {
        let Some(http) = self.http() else { return Reading::Continue };
        http.yielded = false;
        if http.deferred().is_some() {
            return self.keep_behind_deferred(rx);
        }
        // Held bytes go in front; a head that lies whole in the read buffer is never copied.
        let mut joined = std::mem::take(&mut http.unread);
        let begins = joined.is_empty();
        let input = if begins {
            rx
        } else {
            joined.extend_from_slice(rx);
            joined.as_mut_slice()
        };
        let (reading, left) = self.http_bytes(input);
        if left > 0 {
            // What is held already stays where it is: a head that dribbles in is not copied each time.
            let rest = if begins { rest_of(input, left).to_vec() } else { shortened(joined, left) };
            self.keep_requests(rest, begins);
        }
        self.turn.flush();
        if reading == Reading::Again {
            self.turn.watch_backlog();
        }
        reading
    }

    /// The PROXY header, if one is awaited, and requests: how many bytes at the end are to be held.
    fn http_bytes(&mut self, input: &mut [u8]) -> (Reading, usize) {
        match self.http() {
            Some(http) if http.awaits_proxy_header => match self.admission().proxy_header(input) {
                ProxyBytes::Taken(length) => {
                    self.requests(input.get_mut(length..).unwrap_or_default())
                }
                ProxyBytes::Partial => (Reading::Continue, input.len()),
                ProxyBytes::Refused => {
                    self.responder().refuse(400);
                    (Reading::Continue, 0)
                }
            },
            Some(_) => self.requests(input),
            None => (Reading::Continue, 0),
        }
    }

    /// Keeps what cannot be dealt with yet.
    fn keep_requests(&mut self, rest: Vec<u8>, begins: bool) {
        let now = self.turn.shared.now;
        let Some(http) = self.http() else { return };
        http.unread = rest;
        // The first bytes of a head behind an answer: from now on it has its own time.
        if begins && http.has_answered && http.answering.is_none() {
            http.since = now;
            self.turn.connection.state.timing_changed = true;
        }
    }

    /// The empty line that some send behind a body, which begins no request (RFC 9112 section 2.2): how long
    /// it is, if there is one.
    fn empty_line(&mut self, input: &[u8]) -> Option<usize> {
        let length = match input {
            [b'\r', b'\n', ..] => 2,
            [b'\n', ..] => 1,
            _ => return None,
        };
        let http = self.http().filter(|http| http.has_answered)?;
        http.scanned = 0;
        Some(length)
    }

    /// Deals with requests, up to where the rest has to wait: how many bytes that is.
    fn requests(&mut self, mut input: &mut [u8]) -> (Reading, usize) {
        loop {
            let Some(http) = self.http() else { return (Reading::Continue, 0) };
            // RFC 9112 section 9.3: the body of the last request has to be read to find the next one.
            let skipped = http.pass_over(input.len());
            let is_body = http.receiving.is_some();
            input = input.get_mut(skipped..).unwrap_or_default();
            if let Some(reading) = self.must_wait(is_body, input.is_empty()) {
                return (reading, input.len());
            }
            let after = if is_body {
                let (taken, after) = self.body().bytes(input);
                input = input.get_mut(taken..).unwrap_or_default();
                after
            } else if let Some(length) = self.empty_line(input) {
                input = input.get_mut(length..).unwrap_or_default();
                continue;
            } else {
                match self.head(input) {
                    Ok(HeadStatus::Complete { head, length }) => {
                        input = input.get_mut(length..).unwrap_or_default();
                        self.request(head)
                    }
                    Ok(HeadStatus::Partial) => return (Reading::Continue, input.len()),
                    Err(error) => {
                        self.refuse_head(error, input);
                        return (Reading::Continue, 0);
                    }
                }
            };
            match after {
                AfterRequest::Http => self.flush_large(),
                AfterRequest::Streaming(reading) => return (reading, input.len()),
                // RFC 6455 section 4.1 has a client wait for the answer; what it sent before is taken.
                AfterRequest::Session => return (SessionTurn { turn: self.turn }.input(input), 0),
                AfterRequest::Detached(take) => {
                    self.hand_over(take, input);
                    return (Reading::Paused, 0);
                }
                AfterRequest::Over => return (Reading::Continue, 0),
            }
        }
    }

    /// Why what has come has to wait, or that nothing has.
    #[inline(always)] // into its one caller, on the way of every request
    fn must_wait(&mut self, is_body: bool, is_empty: bool) -> Option<Reading> {
        let blocked = self.turn.connection.state.waiting().is_some();
        if is_body && self.http().is_some_and(|http| http.is_paused()) {
            return Some(Reading::Paused); // the application does not want it yet
        }
        if is_empty {
            if is_body && !blocked {
                self.body().bytes(&mut []); // its sender may wait to be asked for it
            }
            return Some(Reading::Continue);
        }
        if blocked {
            // The peer does not read its answers: its further requests wait.
            return Some(Reading::Paused);
        }
        if self.turn.shared.work.is_spent() {
            // No event announces what was read already: the driver comes back for it.
            if let Some(http) = self.http() {
                http.yielded = true;
            }
            return Some(Reading::Again);
        }
        None
    }

    /// Reads the head of the next request.
    #[inline(always)] // likewise: a head would be moved once more
    fn head(&mut self, input: &[u8]) -> Result<HeadStatus, HeadError> {
        let now = self.turn.shared.now;
        let limits = HeadLimits {
            max_bytes: self.turn.shared.limits.max_head_bytes,
            max_lines: self.turn.shared.limits.max_head_lines,
        };
        let Some(http) = self.http() else { return Ok(HeadStatus::Partial) };
        let status = parse_head(input, &limits, &mut http.scanned)?;
        if let HeadStatus::Complete { length, .. } = &status {
            // The next head is searched from its own start.
            http.scanned = 0;
            http.since = now;
            let head_work = length.saturating_mul(HEAD_BYTE_WORK);
            self.turn.shared.work.add(REQUEST_WORK.saturating_add(head_work));
        }
        Ok(status)
    }

    /// The socket has taken what waited: the file goes on, then the requests that wait behind.
    pub(super) fn drained(&mut self) -> Reading {
        let reading = self.responder().send_body();
        let now = self.turn.shared.now;
        match self.http() {
            Some(http) if http.deferred().is_some() => self.resume_deferred(),
            Some(http) if http.answering.is_none() => {
                http.since = now; // the time for the next head begins
                if let Some(receiving) = http.receiving.as_deref_mut() {
                    receiving.begin_window(now); // and that of a body that was not read meanwhile
                }
                self.turn.connection.state.timing_changed = true;
                self.turn.connection.state.release_idle();
                self.input(&mut [])
            }
            _ => reading,
        }
    }

    /// Goes on with a body that was paused, and with what is held behind it.
    pub(super) fn resume(&mut self) -> Reading {
        match self.body().resume() {
            AfterRequest::Http => self.input(&mut []),
            AfterRequest::Streaming(reading) => reading,
            AfterRequest::Session | AfterRequest::Detached(_) | AfterRequest::Over => {
                Reading::Continue
            }
        }
    }

    /// What comes while an answer is awaited waits for it: what was read already, for nothing is read then.
    #[cold]
    fn keep_behind_deferred(&mut self, rx: &[u8]) -> Reading {
        if let Some(http) = self.http() {
            http.unread.extend_from_slice(rx);
        }
        Reading::Paused
    }

    /// Goes on with a request whose answer was deferred, and with what is held behind it.
    pub(super) fn resume_deferred(&mut self) -> Reading {
        // A session takes it as its first frames, and has no stage of HTTP any more.
        let mut held = self.http().map(|http| std::mem::take(&mut http.unread)).unwrap_or_default();
        match (DeferredTurn { turn: self.turn }).go_on() {
            Some(AfterRequest::Http) => {
                self.put_back(held);
                self.input(&mut [])
            }
            Some(AfterRequest::Streaming(reading)) => {
                self.put_back(held);
                reading
            }
            None => {
                self.put_back(held);
                Reading::Paused
            }
            Some(AfterRequest::Session) => SessionTurn { turn: self.turn }.input(&mut held),
            Some(AfterRequest::Detached(take)) => {
                self.hand_over(take, &held);
                Reading::Paused
            }
            Some(AfterRequest::Over) => Reading::Continue,
        }
    }

    fn put_back(&mut self, held: Vec<u8>) {
        if let Some(http) = self.http() {
            http.unread = held;
        }
    }

    /// Answers what is no head, and says what it is where that can be told.
    fn refuse_head(&mut self, error: HeadError, input: &[u8]) -> AfterRequest {
        let foreign = if error == HeadError::TooLarge { None } else { foreign::protocol_of(input) };
        let Some(protocol) = foreign else {
            self.turn.log().refused(error.status(), None, head_reason(error));
            return self.responder().refuse(error.status());
        };
        let why = format_args!("it begins with {protocol}, where plain HTTP/1 is spoken");
        self.turn.log().refused_because(Level::Warn, 400, None, protocol, why);
        self.responder().refuse(400)
    }

    /// Keeps pipelined answers from piling up unseen.
    fn flush_large(&mut self) {
        // Thousands of small requests fit one read, and their answers are larger.
        if self.turn.shared.tx.len() >= self.turn.shared.tx_flush_bytes {
            self.turn.flush();
        }
    }
}

/// Deadlines.
impl HttpTurn<'_, '_> {
    /// The time for a request head is over.
    pub(super) fn timeout(&mut self) {
        let now = self.turn.shared.now;
        DeferredTurn { turn: self.turn }.timeout();
        if self.turn.connection.state.waiting().is_some() {
            // RFC 9112 section 9.5: a peer that does not read its answer may be hung up on.
            if self.turn.progress().is_stuck() {
                self.turn.shared.stats.timeouts_write += 1;
                self.turn.lose(Loss::Stalled);
                self.turn.drop_socket(Disposal::Reset);
            }
            return;
        }
        let Stage::Http(http) = &self.turn.connection.stage else { return };
        // What has come waits for a turn, or, with TLS, for the peer to take records: nothing of it is late.
        if http.yielded || http.streams() {
            return self.begin_waits_behind_answer();
        }
        if http.receiving.is_some() {
            return self.body().timeout();
        }
        if http.answering.is_some() {
            return;
        }
        let is_between_requests = http.has_answered && http.unread.is_empty();
        if is_between_requests && self.answer_is_on_its_way() {
            return; // silence begins when the peer has it
        }
        let Stage::Http(http) = &self.turn.connection.stage else { return };
        // The wheel may be armed too early, never too late.
        if http.deadline(&self.turn.shared.limits) > now {
            return;
        }
        if !http.has_answered {
            // Whoever was pushed out did not run out of time.
            self.turn.shared.stats.timeouts_handshake += u64::from(!http.expired);
        }
        if http.unread.is_empty() {
            // Between two requests silence is no fault, and browsers connect in advance: an answer to
            // a request that was not sent would be taken for that of the next one.
            self.turn.finish();
        } else {
            let refusal = match http.over_limit {
                Some(over_limit) => self.admission().over_limit_refusal(over_limit, None),
                None => {
                    self.turn.log().refused(408, None, reason::TOO_SLOW);
                    Response::refusal(408)
                }
            };
            self.responder().refuse_with(&refusal);
        }
    }

    /// Ends a peer that does not take the answer; else what came behind has its time from here.
    #[cold]
    fn begin_waits_behind_answer(&mut self) {
        let now = self.turn.shared.now;
        self.answer_is_on_its_way();
        let Stage::Http(http) = &mut self.turn.connection.stage else { return };
        http.since = now;
        if let Some(receiving) = http.receiving.as_deref_mut() {
            receiving.begin_window(now);
        }
        self.turn.connection.state.timing_changed = true;
    }

    /// Whether the peer still takes the last answer, whose end begins the wait for the next request. A
    /// peer that takes nothing is hung up on.
    fn answer_is_on_its_way(&mut self) -> bool {
        let now = self.turn.shared.now;
        match self.turn.progress().look_at_queue() {
            Queue::Empty => {
                self.turn.connection.state.release_idle();
                false
            }
            Queue::Moving => {
                if let Stage::Http(http) = &mut self.turn.connection.stage {
                    http.since = now;
                }
                true
            }
            Queue::Stuck => {
                self.turn.shared.stats.timeouts_write += 1;
                self.turn.lose(Loss::Stalled);
                self.turn.drop_socket(Disposal::Reset);
                true
            }
        }
    }
}

/// Parts of the turn.
impl<'a> HttpTurn<'_, 'a> {
    pub(super) fn http(&mut self) -> Option<&mut HttpStage> {
        self.turn.connection.http()
    }

    pub(super) fn responder(&mut self) -> Responder<'_, 'a> {
        Responder { turn: self.turn }
    }

    pub(super) fn body(&mut self) -> BodyTurn<'_, 'a> {
        BodyTurn { turn: self.turn }
    }

    pub(super) fn admission(&mut self) -> RequestAdmission<'_, 'a> {
        RequestAdmission { turn: self.turn }
    }
}

fn rest_of(bytes: &[u8], left: usize) -> &[u8] {
    bytes.get(bytes.len().saturating_sub(left)..).unwrap_or_default()
}

/// The last `left` bytes, in no more room than is due to them.
fn shortened(mut bytes: Vec<u8>, left: usize) -> Vec<u8> {
    // A few bytes must not keep the room of a large read for as long as the peer likes.
    if bytes.capacity() / 4 > left {
        return rest_of(&bytes, left).to_vec();
    }
    bytes.drain(..bytes.len().saturating_sub(left));
    bytes
}

fn head_reason(error: HeadError) -> &'static str {
    match error {
        HeadError::Malformed => "this is no HTTP request, or an ambiguous one",
        HeadError::TooLarge => "the head is over max_head_bytes or max_head_lines",
        HeadError::UnsupportedVersion => "this is not HTTP/1.1 or HTTP/1.0",
        HeadError::UnknownCoding => "a transfer coding other than chunked",
    }
}
