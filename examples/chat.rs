//! Telling many at once (Ktor's and Kotlin's `SharedFlow`): what anybody in a room says, everybody in it
//! gets, encoded once; whoever comes gets the last 100 messages first.
//!
//! Run it with `cargo run --release --example chat` and open <http://127.0.0.1:8080/> in two tabs.
//! - `/ws` is the example of Ktor's page: one flow for all, text as it comes.
//! - `/rooms/{room}?name=anna` is a room: lines are `anna: hello` for what was said and `* anna came`
//!   for what happened. A room is made by who comes first and dropped with who leaves last.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io::Write;
use std::rc::Rc;

use wirewheel::error::{ConfigError, ServerError};
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message,
    Response, Server, Session, WebSockets, on_connect,
};

const GREETING: &str = "You are connected to WebSocket!";
const MAX_ROOMS: usize = 64;
const MAX_NAME_CHARS: usize = 32;
const MAX_MESSAGE_BYTES: usize = 4 << 10;
const REPLAYED_MESSAGES: usize = 100;

/// What a room has: two flows, because only one of them is replayed. A session that collects both
/// gets their messages in the order in which they were emitted.
struct Room {
    messages: SharedFlow,
    notices: SharedFlow,
    members: Cell<usize>,
}

/// A flow in which who does not read misses the oldest messages; nobody else waits for such a member.
fn dropping() -> FlowOptions {
    FlowOptions::new().on_buffer_overflow(BufferOverflow::DropOldest)
}

impl Room {
    fn new() -> Result<Self, ConfigError> {
        let dropping = dropping();
        let messages = dropping.replay(REPLAYED_MESSAGES).max_bytes(128 << 10);
        let notices = dropping.extra_buffer(16).max_bytes(16 << 10);
        Ok(Self {
            messages: SharedFlow::with(messages)?,
            notices: SharedFlow::with(notices)?,
            members: Cell::new(0),
        })
    }
}

/// The rooms by name. One thread runs everything, so that no lock is needed.
#[derive(Clone, Default)]
struct Rooms(Rc<RefCell<HashMap<String, Rc<Room>>>>);

impl Rooms {
    /// The room of that name, made if it is not there; none beyond `MAX_ROOMS`.
    fn enter(&self, name: &str) -> Result<Option<Rc<Room>>, ConfigError> {
        let mut rooms = self.0.borrow_mut();
        if !rooms.contains_key(name) {
            if rooms.len() >= MAX_ROOMS {
                return Ok(None);
            }
            rooms.insert(name.to_owned(), Rc::new(Room::new()?));
        }
        let room = rooms.get(name).cloned();
        if let Some(room) = &room {
            room.members.set(room.members.get() + 1);
        }
        Ok(room)
    }

    fn leave(&self, name: &str, room: &Room) {
        room.members.set(room.members.get() - 1);
        if room.members.get() == 0 {
            self.0.borrow_mut().remove(name); // and with it what was said
        }
    }
}

/// One session: a visitor, and once it has come in, a member of a room.
struct Member {
    rooms: Rooms,
    place: Option<Place>,
}

/// Where a member is, and under which name.
struct Place {
    room: Rc<Room>,
    room_name: String,
    name: String,
}

impl Handler for Member {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        // A browser's page cannot see the answer to an upgrade that is refused, but the code and
        // text of a Close; so the session is opened even if only to say no.
        let room_name = call.parameter("room").unwrap_or_default().into_owned();
        let name = call.query_parameter("name").unwrap_or_default().trim().to_owned();
        let name =
            if name.is_empty() { format!("guest {}", session.remote_addr().port()) } else { name };
        if !is_name(&room_name) || !is_name(&name) {
            let rule = format!("names have 1 to {MAX_NAME_CHARS} characters, no colon and no star");
            return session.close(CloseReason::new(CloseCode::VIOLATED_POLICY, rule)?);
        }
        let Some(room) = self.rooms.enter(&room_name)? else {
            let full = format!("all {MAX_ROOMS} rooms are taken");
            return session.close(CloseReason::new(CloseCode::TRY_AGAIN_LATER, full)?);
        };
        session.send(GREETING)?;
        session.collect(&room.messages)?; // first those that are replayed
        session.collect(&room.notices)?;
        let notice = format!("* {name} came, {} here", room.members.get());
        let place = self.place.insert(Place { room, room_name, name });
        session.emit(&place.room.notices, &notice)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let (Some(place), Some(text)) = (&self.place, message.text()) else { return Ok(()) };
        if text.trim().is_empty() {
            return Ok(());
        }
        session.emit(&place.room.messages, &format!("{}: {text}", place.name))
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        let Some(Place { room, room_name, name }) = self.place.take() else { return };
        self.rooms.leave(&room_name, &room);
        let notice = format!("* {name} left, {} here", room.members.get());
        let _ = session.emit(&room.notices, &notice); // without room for it, it is not told
    }
}

/// A name that cannot be taken for something else in the lines that are sent.
fn is_name(name: &str) -> bool {
    let unclear = |c: char| c.is_control() || c == ':' || c == '*';
    (1..=MAX_NAME_CHARS).contains(&name.chars().count())
        && name.trim() == name
        && !name.contains(unclear)
}

fn module(app: &mut Application, everybody: SharedFlow) {
    app.install(WebSockets::new().max_frame_size(MAX_MESSAGE_BYTES));
    app.routing(|route| {
        route.get("/", |_call| Response::html(include_str!("chat.html")));

        route.web_socket("/ws", move |_call: &Call| {
            let (joined, spoken) = (everybody.clone(), everybody.clone());
            on_connect(move |session, _call| {
                session.send(GREETING)?;
                session.collect(&joined)
            })
            .on_message(move |session, message| match message.text() {
                Some(text) => session.emit(&spoken, text),
                None => Ok(()),
            })
        });

        let rooms = Rooms::default();
        route.web_socket("/rooms/{room}", move |_call: &Call| Member {
            rooms: rooms.clone(),
            place: None,
        });
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let everybody = dropping().extra_buffer(64).max_bytes(256 << 10);
    let everybody =
        SharedFlow::with(everybody).map_err(|mistake| ServerError::Config(mistake.to_string()))?;
    let server = Server::bind(address.as_str(), |app: &mut Application| module(app, everybody))?;
    println!("listening on http://{}", server.local_addr());
    let _ = std::io::stdout().flush();
    server.run()
}
