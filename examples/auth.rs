//! Who may connect, and as whom: asked before the upgrade, so that a stranger costs no session.
//!
//! Run it with `cargo run --release --example auth`. A program shows its token in a header:
//! `websocat -H 'Authorization: Bearer annas-secret' ws://127.0.0.1:8080/me`. A page cannot set
//! headers on a WebSocket, so it fetches a ticket with the token and shows that in the query, where
//! it may be logged: it is good for one connection and half a minute.
//!
//! ```text
//! curl -H 'Authorization: Bearer annas-secret' http://127.0.0.1:8080/ticket
//! websocat 'ws://127.0.0.1:8080/me?ticket=...'
//! ```
//!
//! Cookies would be sent by any page that opens a socket here, another site's too: who uses them
//! has to name the own pages in `WebSockets::allowed_origins`.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use wirewheel::{
    Accept, Application, Call, Handler, HandlerResult, Response, Server, Session, WebSockets,
};

/// Users and their tokens. A real program reads them from a file that only it can read.
const USERS: [(&str, &str); 2] = [("anna", "annas-secret"), ("ben", "bens-secret")];
/// Tickets that a user may have at once; one more, and the oldest of them is void.
const MAX_TICKETS_EACH: usize = 8;
const TICKET_SECONDS: u32 = 30;

/// Who somebody turned out to be; kept with the call for the handler.
struct User(&'static str);

/// The user whose token the request shows, as `Authorization: Bearer TOKEN`.
fn user_of(call: &Call) -> Option<&'static str> {
    let (scheme, shown) = call.header("authorization")?.split_once(' ')?;
    let known = USERS.iter().find(|(_, token)| same(token, shown.trim()));
    known.filter(|_| scheme.eq_ignore_ascii_case("bearer")).map(|(user, _)| *user)
}

/// Compares in a time that does not tell how much was right.
fn same(token: &str, shown: &str) -> bool {
    let differences = token.bytes().zip(shown.bytes()).fold(0, |all, (a, b)| all | (a ^ b));
    (differences == 0) & (token.len() == shown.len())
}

fn refusal() -> Response {
    Response::text("show a token, please\n").status(401).header("WWW-Authenticate", "Bearer")
}

struct Ticket {
    text: String,
    user: &'static str,
    seconds_left: u32,
}

/// Tickets that were given out and not used, the oldest first.
#[derive(Clone, Default)]
struct Tickets(Rc<RefCell<Vec<Ticket>>>);

impl Tickets {
    fn give(&self, user: &'static str) -> io::Result<String> {
        let mut chance = [0_u8; 16];
        File::open("/dev/urandom")?.read_exact(&mut chance)?;
        let text = chance.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}"); // a String takes everything
            text
        });
        let mut tickets = self.0.borrow_mut();
        // Each has a share of its own: whoever asks without end takes nobody else's.
        if tickets.iter().filter(|ticket| ticket.user == user).count() >= MAX_TICKETS_EACH {
            let oldest = tickets.iter().position(|ticket| ticket.user == user);
            oldest.map(|place| tickets.remove(place));
        }
        tickets.push(Ticket { text: text.clone(), user, seconds_left: TICKET_SECONDS });
        Ok(text)
    }

    /// Whose ticket it is; it is used up.
    fn redeem(&self, shown: &str) -> Option<&'static str> {
        let mut tickets = self.0.borrow_mut();
        let place = tickets.iter().position(|ticket| same(&ticket.text, shown))?;
        Some(tickets.remove(place).user)
    }

    fn second_is_over(&self) {
        self.0.borrow_mut().retain_mut(|ticket| {
            ticket.seconds_left -= 1;
            ticket.seconds_left > 0
        });
    }
}

struct Member;

impl Handler for Member {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let user = call.attached::<User>().map_or("nobody", |User(name)| name);
        session.send(format!("hello, {user}"))
    }
}

fn module(app: &mut Application) {
    app.install(WebSockets::new());
    let tickets = Tickets::default();
    let aging = tickets.clone();
    app.every(Duration::from_secs(1), move |_server| aging.second_is_over());

    app.routing(|route| {
        let given = tickets.clone();
        route.get("/ticket", move |call| {
            let Some(user) = user_of(call) else { return refusal() };
            match given.give(user) {
                Ok(ticket) => Response::text(ticket).header("Cache-Control", "no-store"),
                Err(_) => Response::new(500),
            }
        });
        route.web_socket("/me", |_call: &Call| Member).on_upgrade(move |call| {
            let shown = call.query_parameter("ticket");
            let by_ticket = || shown.and_then(|shown| tickets.redeem(&shown));
            let user = user_of(call).or_else(by_ticket).ok_or_else(refusal)?;
            call.attach(User(user));
            Ok(Accept::new())
        });
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Server::bind(address.as_str(), module)?;
    println!("listening on http://{}", server.local_addr());
    let _ = io::stdout().flush();
    server.run()
}
