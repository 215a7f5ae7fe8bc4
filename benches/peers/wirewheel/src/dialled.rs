//! The client role: `bench-wirewheel PORT dial CONNECTIONS` dials, and echoes. It dials
//! `bench-wirewheel PORT feed CONNECTIONS DEPTH SIZE TOTAL`, which sends so many messages to each, waits for
//! all echoes, sends again, and ends when so many have come back.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use wirewheel::client::ConnectOptions;
use wirewheel::message::MessageBuf;
use wirewheel::{
    Application, Call, Handler, HandlerResult, Limits, Message, Server, ServerRef, Session,
    SessionId, WebSockets,
};

use crate::{Echo, SLOW};

pub(crate) fn dial(port: u16, connections: usize) -> Result<(), Box<dyn Error>> {
    Server::without_listener(move |app: &mut Application| {
        app.install(WebSockets::new().limits(Limits::new().slow_callback(SLOW)));
        for _ in 0..connections {
            app.connect(&format!("ws://127.0.0.1:{port}/"), ConnectOptions::new(), |_: &Call| Echo);
        }
    })
    .run()?;
    Ok(())
}

/// What is sent to whom, and how much of it is still to come back.
struct Feed {
    connections: usize,
    depth: usize,
    message: MessageBuf,
    sessions: RefCell<Vec<SessionId>>,
    awaited: Cell<usize>,
    left: Cell<usize>,
}

impl Feed {
    fn send(&self, server: &mut ServerRef<'_>) {
        let burst = self.connections * self.depth;
        let Some(left) = self.left.get().checked_sub(burst) else {
            return server.shutdown(Duration::ZERO);
        };
        self.left.set(left);
        self.awaited.set(burst);
        for id in &*self.sessions.borrow() {
            for _ in 0..self.depth {
                server.send_to(*id, &self.message).expect("nobody leaves");
            }
        }
    }
}

struct Fed(Rc<Feed>);

impl Handler for Fed {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        self.0.sessions.borrow_mut().push(session.id());
        if self.0.sessions.borrow().len() == self.0.connections {
            self.0.send(&mut session.server());
        }
        Ok(())
    }

    fn on_message(&mut self, session: &mut Session<'_>, _message: Message<'_>) -> HandlerResult {
        self.0.awaited.set(self.0.awaited.get() - 1);
        if self.0.awaited.get() == 0 {
            self.0.send(&mut session.server());
        }
        Ok(())
    }
}

pub(crate) fn feed(port: u16, numbers: &[usize]) -> Result<(), Box<dyn Error>> {
    let &[connections, depth, size, total] = numbers else {
        return Err("CONNECTIONS DEPTH SIZE TOTAL".into());
    };
    Server::bind(format!("127.0.0.1:{port}"), move |app: &mut Application| {
        let feed = Rc::new(Feed {
            connections,
            depth,
            message: vec![b'x'; size].into(),
            sessions: RefCell::default(),
            awaited: Cell::default(),
            left: Cell::new(total),
        });
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/", move |_: &Call| Fed(Rc::clone(&feed)));
        });
    })?
    .run()?;
    Ok(())
}
