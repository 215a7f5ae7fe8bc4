//! Who may connect, and as whom: asked before the upgrade, so that a stranger costs no session; and asked
//! of an authority that takes its time, so that the answer comes later and nobody waits for it but who asked.
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
//! A browser sends cookies with every socket that a page opens here, another site's page too. Such pages
//! are refused unless `WebSockets::allowed_origins` lists them; who uses cookies names the server in
//! `WebSockets::hosts`, so that no page can pass for its own.
//!
//! Arguments: the address to listen at, and how many milliseconds the authority takes (50).
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::RefCell;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use wirewheel::auth::{bearer_challenge, is_same_secret};
use wirewheel::defer::Pending;
use wirewheel::{
    Accept, Application, Call, Handler, HandlerResult, Response, Server, Session, WebSockets,
};

/// Users and their tokens, of which only the authority knows.
const USERS: [(&str, &str); 2] = [("anna", "annas-secret"), ("ben", "bens-secret")];
const REALM: &str = "members";
/// Tickets that a user may have at once; one more, and the oldest of them is void.
const MAX_TICKETS_EACH: usize = 8;
const TICKET_SECONDS: u32 = 30;

/// Who somebody turned out to be; kept with the call for the handler.
struct User(&'static str);

/// Whose token is this? And what is to be done with the answer.
struct Question {
    token: String,
    pending: Pending,
    then: fn(Pending, Option<&'static str>),
}

/// The authority, on a thread of its own, which may wait: for another machine, or as here for nothing.
fn authority(questions: &Receiver<Question>, takes: Duration) {
    for Question { token, pending, then } in questions {
        if pending.is_cancelled() {
            continue; // its client has left, or there are too many
        }
        thread::park_timeout(takes); // nobody wakes it
        let known = USERS.iter().find(|(_, known)| is_same_secret(&token, known));
        then(pending, known.map(|(user, _)| *user));
    }
}

/// Asks the authority whose token the request shows, as `Authorization: Bearer TOKEN`.
fn ask(
    authority: &Sender<Question>,
    call: &Call,
    then: fn(Pending, Option<&'static str>),
) -> Response {
    let Some(token) = call.bearer_token() else { return bearer_challenge(call, REALM) };
    let question = Question { token: token.to_owned(), pending: call.defer(), then };
    match authority.send(question) {
        Ok(()) => Response::deferred(),
        Err(_) => Response::new(503), // its thread is over
    }
}

/// The answer to an upgrade. What is called with the request runs on the loop.
fn let_in(pending: Pending, user: Option<&'static str>) {
    pending.accept_with(move |call| {
        let user = user.ok_or_else(|| bearer_challenge(call, REALM))?;
        call.attach(User(user));
        Ok(Accept::new())
    });
}

/// The answer to who wants a ticket.
fn give_ticket(pending: Pending, user: Option<&'static str>) {
    pending.answer_with(move |call, _server| {
        let (Some(user), Some(tickets)) = (user, call.attached::<Tickets>()) else {
            return bearer_challenge(call, REALM);
        };
        match tickets.give(user) {
            Ok(ticket) => Response::text(ticket).header("Cache-Control", "no-store"),
            Err(_) => Response::new(500),
        }
    });
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
        let place = tickets.iter().position(|ticket| is_same_secret(shown, &ticket.text))?;
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

fn module(app: &mut Application, authority: Sender<Question>) {
    app.install(WebSockets::new());
    let tickets = Tickets::default();
    let aging = tickets.clone();
    app.every(Duration::from_secs(1), move |_server| aging.second_is_over());

    app.routing(|route| {
        let (given, asked) = (tickets.clone(), authority.clone());
        route.get("/ticket", move |call| {
            // What belongs to the loop goes with the request: the answer finds it there again.
            call.attach(given.clone());
            ask(&asked, call, give_ticket)
        });
        route.web_socket("/me", |_call: &Call| Member).on_upgrade(move |call| {
            let shown = call.query_parameter("ticket");
            match shown.and_then(|shown| tickets.redeem(&shown)) {
                Some(user) => {
                    call.attach(User(user));
                    Ok(Accept::new())
                }
                None => Err(ask(&authority, call, let_in)),
            }
        });
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let takes = arguments.next().and_then(|millis| millis.parse().ok()).unwrap_or(50);
    let (asks, questions) = channel();
    let waits = move || authority(&questions, Duration::from_millis(takes));
    if let Err(error) = thread::Builder::new().name("authority".into()).spawn(waits) {
        println!("no thread for the authority: {error}");
    }
    let server = Server::bind(address.as_str(), |app: &mut Application| module(app, asks))?;
    println!("listening on http://{}", server.local_addr());
    let _ = io::stdout().flush();
    server.run()
}
