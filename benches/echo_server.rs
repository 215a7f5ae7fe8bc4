//! The server of the benchmarks: an echo in a process of its own, which says where it listens; beside it an
//! event stream of nothing.

use std::error::Error;

use wirewheel::{Application, Call, Listen, Server, WebSockets, on_connect, on_message};

pub(crate) fn serve_echo(place: Listen, options: WebSockets) -> Result<(), Box<dyn Error>> {
    let server = Server::bind(place, |app: &mut Application| {
        app.install(options);
        app.routing(|route| {
            route.web_socket("/", |_: &Call| on_message(|session, message| session.send(message)));
            route.event_stream("/events", |_: &Call| on_connect(|_, _| Ok(())));
        });
    })?;
    println!("{}", server.local_addr());
    server.run()?;
    Ok(())
}
