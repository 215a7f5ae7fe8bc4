//! Publishing from another thread: one that waits for something that the loop cannot wait for (here
//! lines on the standard input) tells everybody who is connected.
//!
//! Run it with `cargo run --release --example broadcast_from_thread`, connect a client or two, and
//! type lines. What is sent over is the message and the name of a flow; the flow itself, the
//! sessions and everything else stay on the loop's thread, and need no lock.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::error::Error;
use std::io::{self, BufRead, Write};
use std::thread;

use wirewheel::error::HandleError;
use wirewheel::flow::{BufferOverflow, FlowKey, FlowOptions, SharedFlow};
use wirewheel::{Application, Call, Handle, Server, WebSockets, on_connect};

fn module(app: &mut Application, news: SharedFlow) {
    app.install(WebSockets::new());
    app.routing(|route| {
        route.web_socket("/", move |_call: &Call| {
            let news = news.clone();
            on_connect(move |session, _call| session.collect(&news))
        });
    });
}

/// Reads lines until there are no more, or nobody to tell them.
fn publish_lines(server: &Handle, news: FlowKey<str>) {
    // Not `lines`, which fails at one that is not UTF-8.
    for line in io::stdin().lock().split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches('\r');
        match server.emit(news, line) {
            Ok(()) => {}
            // Nothing waits in `emit`. Another program might wait here, or keep the line.
            Err(HandleError::Full) => println!("dropped: {line}"),
            Err(_) => return,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let server = Server::bind(address.as_str(), |app: &mut Application| {
        let options = FlowOptions::new().replay(1).on_buffer_overflow(BufferOverflow::DropOldest);
        let news = app.flow(options.extra_buffer(63));
        let (handle, key) = (app.handle(), app.flow_key(&news));
        // It is left to itself: when the loop ends, the process ends, whatever the thread waits for.
        let publisher = thread::Builder::new().name("lines".into());
        if let Err(error) = publisher.spawn(move || publish_lines(&handle, key)) {
            println!("no thread for the lines: {error}");
        }
        module(app, news);
    })?;
    println!("listening on http://{}", server.local_addr());
    let _ = io::stdout().flush();
    server.run()?;
    Ok(())
}
