//! Two loops of one server, turned one after the other: questions to a session that the other one has.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use super::secs;
use crate::app::application::{Application, WebSockets};
use crate::app::call::Call;
use crate::app::handler::on_message;
use crate::context::commands::StopRequest;
use crate::context::loop_state::ServerRef;
use crate::context::loops::Place;
use crate::context::mailbox::Mailbox;
use crate::flow::options::{BufferOverflow, FlowOptions};
use crate::flow::reader::Taken;
use crate::flow::shared_flow::SharedFlow;
use crate::structures::ids::SessionId;
use crate::testing::frames::{masked, unmasked, upgrade_request};
use crate::testing::network::{LinkId, Network};
use crate::words::close::CloseCode;
use crate::words::error::AskError;
use crate::words::limits::Limits;
use crate::words::message::Message;

type Answers = Rc<RefCell<Vec<Result<String, AskError>>>>;

/// A session on the first loop, which is asked by the second.
struct Two {
    first: Network,
    second: Network,
    client: LinkId,
    session: SessionId,
    answers: Answers,
}

/// Its sessions answer with what they are sent: a correlation, and the answer.
fn module(app: &mut Application) {
    let limits = Limits::new().process_bytes(2 << 20); // of which each loop has a half
    app.install(WebSockets::new().ping_period(None).limits(limits));
    app.routing(|route| {
        route.web_socket("/", |_: &Call| {
            on_message(|session, message| {
                let said = message.text().unwrap_or_default();
                if said == "dropped" {
                    return session.send(session.dropped().to_string());
                }
                let (correlation, answer) = said.split_once(' ').unwrap_or_default();
                session.answer(correlation, answer);
                Ok(())
            })
        });
    });
}

impl Two {
    fn new() -> Self {
        let mailboxes = [Mailbox::default(), Mailbox::default()];
        let places = Place::all(mailboxes.to_vec());
        let loops = mailboxes.iter().zip(places).map(|(mailbox, place)| {
            let application = Application::new().reached_by(mailbox.clone(), Vec::new());
            let mut application = application.at(place);
            module(&mut application);
            let mut network = Network::new(application.build().unwrap());
            network.accept_orders(mailbox.inbox());
            network
        });
        let [mut first, mut second]: [Network; 2] =
            loops.collect::<Vec<_>>().try_into().ok().unwrap();
        second.pump();
        let client = first.connect(SocketAddr::from(([127, 0, 0, 1], 4000)));
        first.send(client, upgrade_request("/", "").as_bytes());
        let session = first.run(|server| server.sessions().next().unwrap()).unwrap();
        let mut two = Self { first, second, client, session, answers: Answers::default() };
        assert!(two.came().starts_with(b"HTTP/1.1 101 "));
        two
    }

    /// What has come to the client.
    fn came(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.first.link(self.client).socket.got)
    }

    /// Has the second loop put a question of that correlation, for so many seconds.
    fn ask(&mut self, seconds: u64) {
        let (answers, session) = (Rc::clone(&self.answers), self.session);
        let ask = move |server: &mut ServerRef<'_>| {
            let then = move |_: &mut ServerRef<'_>, answer: Result<Message<'_>, AskError>| {
                let answer = answer.map(|message| message.text().unwrap_or_default().to_owned());
                answers.borrow_mut().push(answer);
            };
            server.ask(session, "state", "state?", secs(seconds), then)
        };
        assert_eq!(self.second.run(ask), Some(Ok(())));
    }

    fn expect(&self, answers: &[Result<&str, AskError>]) {
        let told: Vec<_> = self.answers.borrow().iter().cloned().collect();
        let answers: Vec<_> = answers.iter().map(|it| it.map(str::to_owned)).collect();
        assert_eq!(told, answers);
    }
}

/// As who asks for the state of a device again and again does.
#[test]
fn a_question_that_was_given_up_is_in_nobodys_way_when_it_is_asked_again() {
    let mut two = Two::new();
    two.ask(5);
    two.second.advance(secs(6));
    two.expect(&[Err(AskError::Timeout)]);
    two.ask(5);
    two.first.pump(); // both come at once
    two.second.pump();
    two.expect(&[Err(AskError::Timeout)]);
    assert_eq!(two.came(), unmasked(0x81, b"state?").repeat(2));
    two.first.send(two.client, &masked(0x81, b"state open"));
    two.second.pump();
    two.expect(&[Err(AskError::Timeout), Ok("open")]);
}

/// The clock of a loop may be ahead of the other's by a turn.
#[test]
fn the_end_of_a_question_is_not_that_of_the_next_one() {
    let mut two = Two::new();
    two.ask(5);
    two.first.pump();
    two.second.advance(secs(6));
    two.first.advance(secs(6)); // what became of it there is on its way
    two.ask(60);
    two.first.pump();
    two.second.pump();
    two.expect(&[Err(AskError::Timeout)]);
    two.first.send(two.client, &masked(0x81, b"state open"));
    two.second.pump();
    two.expect(&[Err(AskError::Timeout), Ok("open")]);
}

#[test]
fn a_loop_that_ends_first_says_what_became_of_its_questions() {
    let mut two = Two::new();
    two.ask(60);
    two.first.pump();
    two.second.shut_down(CloseCode::GOING_AWAY, secs(9));
    assert!(two.second.stopped && !two.first.stopped);
    two.expect(&[Err(AskError::Ended)]);
}

/// Whoever sent it is told nothing, on a thread or on another loop.
#[test]
fn what_there_is_no_room_for_counts_with_the_session_that_it_was_for() {
    let mut two = Two::new();
    let (session, message) = (two.session, vec![7; 3 << 19]);
    let sent = two.second.run(|server| server.send_to(session, message.clone()));
    assert_eq!(sent, Some(Ok(())), "it is on its way");
    two.first.pump();
    let thread = two.second.run(|server| server.handle()).unwrap();
    assert_eq!(thread.send_to(session, message), Ok(()));
    two.first.pump();
    two.first.send(two.client, &masked(0x81, b"dropped"));
    assert_eq!(two.came(), unmasked(0x81, b"2"));
}

/// The grace of this one is over, and that of others may have begun later.
#[test]
fn a_second_stop_reaches_other_loops_whatever_is_left_of_the_first_one() {
    let mut two = Two::new();
    let address = SocketAddr::from(([127, 0, 0, 1], 4001));
    let client = two.second.connect(address);
    two.second.send(client, upgrade_request("/", "").as_bytes());
    let now = two.first.now;
    let stop = |grace| StopRequest { code: CloseCode::GOING_AWAY, grace };
    two.first.stop(now, &stop(secs(10)));
    two.first.advance(secs(11));
    assert!(two.first.stopped && !two.second.stopped);
    let now = two.first.now;
    two.first.core.tell_other_loops(&stop(secs(0)));
    two.first.stop(now, &stop(secs(0)));
    two.second.pump(); // it hears of both only now
    assert!(two.second.stopped);
}

/// A loop that is short of memory may lose what the other keeps: to remove that is not without effect.
#[test]
fn a_key_that_is_lost_here_alone_is_removed_on_other_loops_too() {
    let mut two = Two::new();
    let hold = |server: &mut ServerRef<'_>| -> SharedFlow {
        let options = FlowOptions::new().extra_buffer(9);
        server.shared_flow("room", options.on_buffer_overflow(BufferOverflow::Latest)).unwrap()
    };
    let (here, there) = (two.first.run(hold).unwrap(), two.second.run(hold).unwrap());
    here.emit_latest("k", &"x".repeat(20_000)).unwrap();
    let pump = |two: &mut Two| {
        for _ in 0..3 {
            two.first.run(|_| ());
            two.second.run(|_| ());
        }
    };
    pump(&mut two);
    let has_key = || (here.newest().count(), there.newest().count());
    assert_eq!(has_key(), (1, 1));
    // What somebody has yet to take is not dropped for others.
    let options = FlowOptions::new().extra_buffer(999).max_bytes(2 << 20);
    let awaited: SharedFlow = SharedFlow::with(options).unwrap();
    two.second.run(|server| server.read_flow(&awaited, |_, _| Taken::Later));
    while has_key() == (1, 1) {
        awaited.emit(&"x".repeat(9_000)).unwrap();
    }
    assert_eq!(has_key(), (1, 0));
    assert!(!two.second.run(|_| there.remove("k")).unwrap());
    pump(&mut two);
    assert_eq!(has_key(), (0, 0));
}

/// Those who collect the one that was forgotten are none of the new one's.
#[test]
fn a_room_that_begins_anew_counts_who_collects_it() {
    let mut two = Two::new();
    let hold = |server: &mut ServerRef<'_>| -> SharedFlow {
        server.shared_flow("room", FlowOptions::new().replay(20)).unwrap()
    };
    let read = |server: &mut ServerRef<'_>, flow: &SharedFlow| {
        server.read_flow(flow, |_, _| Taken::Yes);
    };
    let old = [two.first.run(hold).unwrap(), two.second.run(hold).unwrap()];
    two.first.run(|server| read(server, &old[0]));
    two.second.run(|server| read(server, &old[1]));
    assert_eq!(old[0].subscription_count(), 2);
    for _ in 0..2 {
        two.first.run(|server| server.forget_shared_flow("room"));
        two.second.run(|server| server.forget_shared_flow("room"));
    }
    let new = two.first.run(hold).unwrap();
    two.first.run(|server| read(server, &new));
    assert_eq!((new.subscription_count(), old[1].subscription_count()), (1, 2));
}

/// Whoever asks for a room after nobody had it any more gets a new one, and so do the others; also where a
/// loop has not heard yet that the last one is gone.
#[test]
fn a_room_that_ends_and_begins_anew_at_once_is_the_same_on_every_loop() {
    let mut two = Two::new();
    let hold = |server: &mut ServerRef<'_>| -> SharedFlow {
        server.shared_flow("room", FlowOptions::new().replay(20)).unwrap()
    };
    let let_go = |server: &mut ServerRef<'_>| server.forget_shared_flow("room");
    let (here, there) = (two.first.run(hold).unwrap(), two.second.run(hold).unwrap());
    there.emit("old").unwrap();
    let pump = |two: &mut Two| (0..3).for_each(|_| (two.first.pump(), two.second.pump()).0);
    two.second.run(|_| ());
    pump(&mut two);
    assert_eq!((here.replay_cache().len(), there.replay_cache().len()), (1, 1));
    two.second.run(let_go);
    pump(&mut two); // the first one has it still
    two.first.run(let_go);
    let there = two.second.run(hold).unwrap(); // and has not heard of that
    there.emit("new").unwrap();
    two.second.run(|_| ());
    pump(&mut two);
    let here = two.first.run(hold).unwrap();
    let said = |flow: &SharedFlow| {
        let all = flow.replay_cache().into_iter();
        all.map(|it| it.as_message().text().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!((said(&here), said(&there)), (vec!["new".to_owned()], vec!["new".to_owned()]));
}
