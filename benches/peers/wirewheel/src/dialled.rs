//! The client role: `bench-wirewheel PORT dial CONNECTIONS` dials, and sends back what comes.

use std::error::Error;

use wirewheel::client::ConnectOptions;
use wirewheel::{Application, Call, Limits, Server, WebSockets};

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
