//! Messages as values (Ktor's page on serialization): `/customer/1` sends a customer as JSON and says
//! good-bye, `/customer` takes customers, prints them and answers how many there are.
//!
//! Run it with `cargo run --release --example json --features json`. What is no customer
//! ends the session with 1007, a binary message with 1003.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::io::Write;

use serde::{Deserialize, Serialize};
use wirewheel::json::JsonConverter;
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Handler, HandlerResult, Message, Server, Session,
    WebSockets, on_connect,
};

#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Customer {
    id: u64,
    first_name: String,
    last_name: String,
}

/// Takes customers.
struct Register {
    customers: u64,
}

impl Handler for Register {
    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let customer: Customer = session.deserialize(&message)?;
        println!("a customer is received by the server: {customer:?}");
        self.customers += 1;
        session.send_serialized(&self.customers)
    }
}

fn module(app: &mut Application) {
    app.install(WebSockets::new().content_converter(JsonConverter));
    app.routing(|route| {
        route.web_socket("/customer/1", |_call: &Call| {
            on_connect(|session, _call| {
                let jane = Customer { id: 1, first_name: "Jane".into(), last_name: "Smith".into() };
                session.send_serialized(&jane)?;
                session.close(CloseReason::new(CloseCode::NORMAL, "")?)
            })
        });
        route.web_socket("/customer", |_call: &Call| Register { customers: 0 });
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Server::bind(address.as_str(), module)?;
    println!("listening on http://{}", server.local_addr());
    let _ = std::io::stdout().flush();
    server.run()
}
