//! A site beside a WebSocket: pages in the program or from a folder, a lamp that everybody switches, and
//! figures that the pages of another origin may read.
//!
//! Run it with `cargo run --release --example site`, open <http://127.0.0.1:8080/> in two windows, and try
//! - `curl -i http://127.0.0.1:8080/app.js`, then again with `-H 'If-None-Match: ...'` of that `ETag`
//! - `curl http://127.0.0.1:8080/app.js -r 0-30`
//! - `curl -i http://127.0.0.1:8080/api/lamp -H 'Origin: https://dashboard.example'`
//! - `cargo run --release --example site -- 127.0.0.1:8080 /srv/www`, which serves a folder of yours instead
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::pages::{Cors, Folder};
use wirewheel::{Application, Call, Handler, Response, Server, WebSockets, on_connect};

/// What the program has in itself, so that it is one file to copy.
const PAGES: &[(&str, &[u8])] =
    &[("index.html", include_bytes!("site/index.html")), ("app.js", include_bytes!("site/app.js"))];

/// On or off, and everybody who wants to know.
#[derive(Clone)]
struct Lamp {
    is_on: Rc<Cell<bool>>,
    changes: SharedFlow,
}

impl Lamp {
    fn state(&self) -> &'static str {
        if self.is_on.get() { "on" } else { "off" }
    }

    fn switcher(&self) -> impl Handler + use<> {
        let (seen, lamp) = (self.changes.clone(), self.clone());
        on_connect(move |session, _call| session.collect(&seen)).on_message(move |_, _| {
            lamp.is_on.set(!lamp.is_on.get());
            lamp.changes.emit(lamp.state())?;
            Ok(())
        })
    }
}

fn module(app: &mut Application, folder: Folder) {
    // Who lags misses a state and gets the newest: nobody's click fails.
    let newest = FlowOptions::new().replay(1).on_buffer_overflow(BufferOverflow::DropOldest);
    let changes = app.flow(newest);
    let lamp = Lamp { is_on: Rc::default(), changes };
    let _ = lamp.changes.emit(lamp.state()); // what a newcomer sees first
    app.install(
        WebSockets::new().allowed_origins(["https://dashboard.example", "http://localhost:*"]),
    );
    app.routing(|route| {
        // What is in the page itself, and nothing from elsewhere.
        route.default_header(
            "Content-Security-Policy",
            "default-src 'self'; style-src 'unsafe-inline'",
        );
        route.status_page(404, |_call| Response::html("<h1>There is nothing here.</h1>"));
        let switched = lamp.clone();
        route.web_socket("/ws", move |_call: &Call| switched.switcher());
        route.route("/api", |route| {
            route.cors(Cors::new().headers(["Authorization"]).max_age(Duration::from_secs(600)));
            route.get("/lamp", move |call: &Call| {
                let state = lamp.state();
                Response::json(format!("{{\"lamp\":\"{state}\"}}"))
                    .header("ETag", format!("\"{state}\""))
                    .conditional(call)
            });
        });
        route.folder("/", folder);
    });
}

fn main() -> wirewheel::Result<()> {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let folder = arguments.next();
    let server = Server::bind(address.as_str(), move |app: &mut Application| {
        module(app, folder.map_or_else(|| Folder::embedded(PAGES), Folder::new));
    })?;
    println!("listening on http://{}", server.local_addr());
    let _ = std::io::stdout().flush();
    server.run()
}
