//! The event source of a test: the client of an event stream, as a browser's `EventSource` is.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::answer::Answer;
use super::client::TestClient;
use super::network::PeerEnd;

/// A client that reads an event stream of a [`TestApplication`](super::TestApplication).
///
/// Everything that can happen at one moment of the virtual time has happened when a method returns; what is
/// not there fails the test at once. It hangs up when the server has ended the stream. It does not connect
/// again of its own: [`reconnect`](Self::reconnect) does what a browser does after
/// [`retry`](Self::retry).
///
/// ```
/// use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
/// use wirewheel::testing::{Event, TestApplication};
/// use wirewheel::{Application, Call, on_connect};
///
/// let options = FlowOptions::new().replay(2).on_buffer_overflow(BufferOverflow::DropOldest);
/// let news: SharedFlow = SharedFlow::with(options).unwrap();
/// let collected = news.clone();
/// let app = TestApplication::new(move |app: &mut Application| {
///     app.routing(move |route| {
///         route.event_stream("/news", move |_call: &Call| {
///             let news = collected.clone();
///             on_connect(move |session, _call| {
///                 session.send_event("hello", "who comes")?;
///                 session.collect(&news)
///             })
///         });
///     });
/// })?;
///
/// let mut source = app.event_source("/news");
/// assert_eq!(source.answer().header("cache-control"), Some("no-store"));
/// source.expect_event("hello", "who comes");
/// app.with_server(|_server| news.emit("first")).unwrap();
/// let event: Event = source.receive().unwrap();
/// assert_eq!((event.name.as_str(), event.data.as_str()), ("message", "first"));
/// assert_eq!(event.id, source.last_event_id());
/// source.expect_nothing();
///
/// source.client().half_close(); // the browser's connection is lost
/// app.with_server(|_server| news.emit("second")).unwrap();
/// let waits = source.retry().unwrap();
/// assert!((3.0..4.5).contains(&waits.as_secs_f64()));
/// source.reconnect(); // with Last-Event-ID
/// source.expect_event("hello", "who comes");
/// source.expect_event("message", "second");
///
/// app.advance(std::time::Duration::from_secs(16));
/// source.expect_nothing();
/// assert_eq!(source.comments(), 1); // a heartbeat
/// app.shutdown(std::time::Duration::from_secs(1));
/// source.expect_nothing();
/// assert!(source.is_over() && app.stats().event_streams_total == 2);
/// # Ok::<(), wirewheel::error::ServerError>(())
/// ```
pub struct TestEventSource {
    client: TestClient,
    path: String,
    answer: Answer,
    parser: EventParser,
}

/// An event as a page gets it.
///
/// ```
/// use wirewheel::testing::{Event, TestEventSource};
/// fn ticks(source: &mut TestEventSource) -> Vec<Event> {
///     let mut ticks: Vec<Event> = std::iter::from_fn(|| source.receive()).collect();
///     ticks.retain(|event| event.name == "tick" && !event.data.is_empty());
///     ticks
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What the page listens for: `message` where the event has no name.
    pub name: String,
    /// The message; lines are separated by line feeds.
    pub data: String,
    /// What the client would name in `Last-Event-ID`.
    pub id: String,
}

impl fmt::Debug for TestEventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestEventSource").field("path", &self.path).finish_non_exhaustive()
    }
}

impl TestEventSource {
    /// Asks for a stream; the error is any answer that an `EventSource` would not accept.
    pub(super) fn open(client: TestClient, path: &str, last: &str) -> Result<Self, Answer> {
        let mut client = client;
        let last =
            if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: test\r\nAccept: text/event-stream\r\n\
             Cache-Control: no-cache\r\n{last}\r\n"
        );
        client.send_bytes(request.as_bytes());
        let answer = client.expect_answer();
        let kind = answer.header("content-type").unwrap_or_default();
        if answer.status != 200 || kind != "text/event-stream" {
            return Err(answer);
        }
        let mut parser = EventParser::default();
        parser.take(&answer.body);
        Ok(Self { client, path: path.to_owned(), answer, parser })
    }

    /// The answer that began the stream.
    pub fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The connection, with its manners and faults.
    pub fn client(&mut self) -> &mut TestClient {
        &mut self.client
    }

    /// Connects once more, and names the event that was had last. What had arrived before and was not
    /// asked for stays.
    ///
    /// # Panics
    /// If the answer is no event stream.
    #[track_caller]
    pub fn reconnect(&mut self) {
        self.read();
        let address = SocketAddr::from(([127, 0, 0, 1], 9_000));
        let id = self.client.network.borrow_mut().connect(address);
        let client = TestClient::new(self.client.network.clone(), id);
        let path = self.path.clone();
        match Self::open(client, &path, self.last_event_id()) {
            Ok(mut source) => {
                // Of an event that was cut off nothing stays (WHATWG HTML, section 9.2.6).
                source.parser.follow(std::mem::take(&mut self.parser));
                *self = source;
            }
            Err(answer) => panic!("{path} was refused: {answer:?}"),
        }
    }

    /// The next event that has arrived.
    pub fn receive(&mut self) -> Option<Event> {
        self.read();
        self.parser.events.pop_front()
    }

    /// The next event has this name (`message` if it has none) and data.
    ///
    /// # Panics
    /// If it has not.
    #[track_caller]
    pub fn expect_event(&mut self, name: &str, data: &str) {
        let came = self.receive();
        let is_it = came.as_ref().is_some_and(|event| event.name == name && event.data == data);
        assert!(is_it, "expected {name:?} {data:?}, received {came:?}\n{}", self.client.state());
    }

    /// No event has arrived that was not asked for.
    ///
    /// # Panics
    /// If one has.
    #[track_caller]
    pub fn expect_nothing(&mut self) {
        let came = self.receive();
        assert!(came.is_none(), "expected nothing, received {came:?}\n{}", self.client.state());
    }

    /// What it would name in `Last-Event-ID`.
    pub fn last_event_id(&self) -> &str {
        &self.parser.last_id
    }

    /// How long it would wait before it connects again, if the server has said so.
    pub fn retry(&mut self) -> Option<Duration> {
        self.read();
        self.parser.retry
    }

    /// How many comments have come, which are heartbeats.
    pub fn comments(&mut self) -> usize {
        self.read();
        self.parser.comments
    }

    /// Whether the server has ended the stream.
    pub fn is_over(&mut self) -> bool {
        self.read();
        self.client.ending().is_some()
            || self.client.network.borrow_mut().link(self.client.id).socket.shut
    }

    fn read(&mut self) {
        let mut network = self.client.network.borrow_mut();
        let socket = &mut network.link(self.client.id).socket;
        self.parser.take(&std::mem::take(&mut socket.got));
        if socket.shut && socket.gone.is_none() {
            network.end(self.client.id, PeerEnd::Shut);
        }
    }
}

/// What makes events of a stream's bytes (WHATWG HTML, section 9.2.6).
#[derive(Debug, Default)]
pub(crate) struct EventParser {
    /// A line that is not complete.
    line: Vec<u8>,
    /// The line before ended with a carriage return, with which a line feed belongs.
    behind_return: bool,
    name: String,
    data: String,
    id: String,
    pub(crate) events: VecDeque<Event>,
    pub(crate) last_id: String,
    retry: Option<Duration>,
    comments: usize,
}

impl EventParser {
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            let behind_return = std::mem::replace(&mut self.behind_return, byte == b'\r');
            match byte {
                b'\n' if behind_return => {}
                b'\n' | b'\r' => {
                    let line = std::mem::take(&mut self.line);
                    self.take_line(&String::from_utf8_lossy(&line));
                }
                other => self.line.push(other),
            }
        }
    }

    /// Whether an event has begun and not ended.
    #[cfg(all(repository, any(test, fuzzing)))]
    pub(crate) fn is_within_event(&self) -> bool {
        !(self.line.is_empty() && self.data.is_empty() && self.name.is_empty())
    }

    /// Goes on for one whose connection is lost.
    fn follow(&mut self, before: Self) {
        let Self { mut events, last_id, comments, retry, .. } = before;
        events.append(&mut self.events);
        self.events = events;
        if self.last_id.is_empty() {
            self.id.clone_from(&last_id);
            self.last_id = last_id;
        }
        self.comments += comments;
        self.retry = self.retry.or(retry);
    }

    fn take_line(&mut self, line: &str) {
        if line.is_empty() {
            return self.dispatch();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                self.retry = value.parse().ok().map(Duration::from_millis);
            }
            _ => {}
        }
    }

    fn dispatch(&mut self) {
        self.last_id.clone_from(&self.id);
        let (name, mut data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if data.is_empty() {
            return;
        }
        data.truncate(data.len() - 1);
        let name = if name.is_empty() { "message".to_owned() } else { name };
        self.events.push_back(Event { name, data, id: self.id.clone() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, data and id of each event.
    fn parsed(stream: &str) -> Vec<(String, String, String)> {
        let whole = {
            let mut parser = EventParser::default();
            parser.take(stream.as_bytes());
            parser.events
        };
        let mut parser = EventParser::default();
        stream.as_bytes().chunks(1).for_each(|byte| parser.take(byte));
        assert_eq!(parser.events, whole, "however it is cut");
        whole.into_iter().map(|Event { name, data, id }| (name, data, id)).collect()
    }

    fn event(name: &str, data: &str, id: &str) -> (String, String, String) {
        (name.into(), data.into(), id.into())
    }

    /// The examples of the standard.
    #[test]
    fn the_streams_of_the_standard() {
        let stock = "data: YHOO\ndata: +2\ndata: 10\n\n";
        assert_eq!(parsed(stock), [event("message", "YHOO\n+2\n10", "")]);
        let four = ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event";
        let first = event("message", "first event", "1");
        assert_eq!(parsed(four), [first, event("message", "second event", "")]);
        assert_eq!(
            parsed("data\n\ndata\ndata\n\ndata:"),
            [event("message", "", ""), event("message", "\n", "")]
        );
        let same = event("message", "test", "");
        assert_eq!(parsed("data:test\n\ndata: test\n\n"), [same.clone(), same]);
    }

    #[test]
    fn ends_of_lines_and_fields_without_data() {
        let event = event("a", "x\ny", "7");
        assert_eq!(parsed("event: a\r\nid: 7\rdata: x\r\ndata: y\n\r\n"), [event]);
        assert_eq!(parsed("event: a\nid: 7\n\n"), []);
        let mut parser = EventParser::default();
        parser.take(b"retry: 1500\nid: 9\n\n:\n\nretry: soon\ndata: cut");
        assert_eq!((parser.retry, parser.comments), (Some(Duration::from_millis(1_500)), 1));
        assert_eq!(parser.last_id, "9");
        #[cfg(repository)]
        assert!(parser.is_within_event());
    }
}
