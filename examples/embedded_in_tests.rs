//! A server inside the tests of something else. Two ways, and when to take which:
//! - in memory and under virtual time, to test handlers of your own: nothing waits, an hour is a call;
//! - as a real server on a free port, to test a client of your own against a server that does what
//!   you say, also what a good one never does.
//!
//! Run the tests with `cargo test --example embedded_in_tests`, or the same checks as a program with
//! `cargo run --example embedded_in_tests`. In a crate of your own the first way needs
//! `wirewheel = { version = "0.2", features = ["testing"] }` under `[dev-dependencies]`.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::sync::mpsc::channel;
use std::time::Duration;

use tungstenite::Message as ClientMessage;
use wirewheel::testing::TestApplication;
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Server, WebSockets, on_connect, on_message,
};

/// A client under test: asks a thermometer and takes the answer that is a number. `None` if the
/// thermometer hangs up or cannot be reached.
fn ask_temperature(url: &str) -> Option<f32> {
    let (mut socket, _) = tungstenite::connect(url).ok()?;
    socket.send("temperature?".into()).ok()?;
    loop {
        match socket.read() {
            Ok(ClientMessage::Text(text)) => match text.parse() {
                Ok(degrees) => return Some(degrees),
                Err(_) => continue, // a remark
            },
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

/// Handlers under test: a thermometer that sends its value, and says so if nobody asks it.
fn thermometer(app: &mut Application) {
    app.install(WebSockets::new().idle_timeout(Duration::from_secs(3600)));
    app.routing(|route| {
        route.web_socket("/", |_call: &Call| {
            on_message(|session, _question| session.send("21.5"))
                .on_connect(|session, _call| {
                    session.set_timer(Duration::from_secs(600))?;
                    Ok(())
                })
                .on_timer(|session, _timer| session.send("ask me"))
        });
    });
}

#[cfg_attr(test, test)]
fn handlers_in_memory() -> wirewheel::Result<()> {
    let app = TestApplication::new(thermometer)?;
    let mut client = app.web_socket("/");
    client.send("temperature?");
    client.expect_text("21.5");
    app.advance(Duration::from_secs(599)); // no time passes but this
    client.expect_nothing();
    app.advance(Duration::from_secs(1));
    client.expect_text("ask me");
    // A network that breaks is a call too; the server notices and forgets the session.
    client.reset();
    assert_eq!(app.stats().sessions_open, 0);
    Ok(())
}

#[cfg_attr(test, test)]
fn a_client_against_a_real_server() -> wirewheel::Result<()> {
    let (tell, asked) = channel();
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        app.install(WebSockets::new());
        app.routing(|route| {
            route.web_socket("/chatty", move |_call: &Call| {
                let tell = tell.clone();
                on_message(move |session, message| {
                    let _ = tell.send(message.text().unwrap_or_default().to_owned());
                    session.ping(b"still there?")?;
                    session.send("just a moment")?;
                    session.send("-3.25")
                })
            });
            route.web_socket("/overloaded", |_call: &Call| {
                on_connect(|session, _call| {
                    session.close(CloseReason::new(CloseCode::TRY_AGAIN_LATER, "busy")?)
                })
            });
            route.web_socket("/broken", |_call: &Call| {
                on_message(|session, _message| {
                    session.abort(); // as if the cable had been pulled
                    Ok(())
                })
            });
        });
    })?
    .spawn()?;
    let url = |path| format!("ws://{}{path}", server.local_addr());
    assert_eq!(ask_temperature(&url("/chatty")), Some(-3.25));
    assert_eq!(asked.recv().as_deref(), Ok("temperature?"));
    assert_eq!(ask_temperature(&url("/overloaded")), None);
    assert_eq!(ask_temperature(&url("/broken")), None);
    assert_eq!(ask_temperature(&url("/nowhere")), None);

    // Whatever is still open is closed; `join` says how, and hands on what went wrong on the loop.
    server.shutdown(Duration::from_secs(1));
    server.join()?;
    assert_eq!(ask_temperature(&url("/chatty")), None);
    Ok(())
}

fn main() -> wirewheel::Result<()> {
    handlers_in_memory()?;
    println!("in memory: passed");
    a_client_against_a_real_server()?;
    println!("real server: passed");
    Ok(())
}
