//! Sessions that are dialled, against servers of other makes and through proxies. `.ci/interop` starts those,
//! and says in the environment where: `WIREWHEEL_PEER` is the URL of a server that echoes (`tungstenite`: one
//! that this test starts itself), `WIREWHEEL_PEER_PROXY` a proxy to go through, `WIREWHEEL_PEER_ROOTS` the
//! file of whom to trust, `WIREWHEEL_PEER_DEFLATE` says that the server agrees on compression.

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use support::PATIENCE;
use wirewheel::client::{ConnectError, ConnectOptions, Reconnect};
use wirewheel::message::MessageBuf;
use wirewheel::{
    Application, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message, Server,
    Session,
};

/// Sends each message once the echo of the one before has come, and closes behind the last.
struct Conversation {
    messages: Vec<MessageBuf>,
    next: usize,
    tell: Sender<String>,
}

impl Conversation {
    /// Lengths at which the header changes, in both kinds, some of them in fragments.
    fn new(tell: Sender<String>) -> Self {
        let lengths = [0, 1, 125, 126, 65_535, 65_536, 300_000].into_iter().chain(2_000..2_030);
        let text =
            |length: usize| "message 5, m\u{e9}ssage 6, ".chars().cycle().take(length).collect();
        let both = |length| {
            let text: String = text(length);
            [MessageBuf::from(text.as_bytes()), MessageBuf::from(text)]
        };
        Self { messages: lengths.flat_map(both).collect(), next: 0, tell }
    }

    fn say(&self, session: &mut Session<'_>) -> HandlerResult {
        let Some(message) = self.messages.get(self.next) else {
            return session.close(CloseReason::new(CloseCode::NORMAL, "all said")?);
        };
        session.ping(b"between")?;
        match message.as_message().text() {
            Some(text) if self.next % 3 == 0 => {
                let pieces: Vec<String> = text
                    .chars()
                    .collect::<Vec<char>>()
                    .chunks(700)
                    .map(String::from_iter)
                    .collect();
                for piece in &pieces {
                    session.send_fragment(piece.as_str(), false)?;
                }
                session.send_fragment("", true)
            }
            _ => session.send(message),
        }
    }
}

impl Handler for Conversation {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        let agreed = session.extensions().map(str::to_owned).collect::<Vec<String>>().join(" ");
        self.tell.send(format!("open {agreed}")).unwrap();
        self.say(session)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        if MessageBuf::from(message) != self.messages[self.next] {
            return Err(format!("message {} came back as another", self.next).into());
        }
        self.next += 1;
        self.say(session)
    }

    fn on_close(&mut self, _: &mut Session<'_>, close: &CloseInfo) {
        let how = if close.is_clean() { "clean" } else { "unclean" };
        let text = format!("close {} {how} behind {} echoes", close.code(), self.next);
        self.tell.send(text).unwrap();
    }
}

/// tungstenite's server, one connection after the other.
fn tungstenite_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/", listener.local_addr().unwrap());
    let serve = move || {
        for stream in listener.incoming() {
            let mut socket = tungstenite::accept(stream.unwrap()).unwrap();
            while let Ok(message) = socket.read() {
                if message.is_text() || message.is_binary() {
                    socket.send(message).unwrap();
                }
            }
        }
    };
    thread::Builder::new().spawn(serve).unwrap();
    url
}

/// One conversation; what was agreed on, and how many echoes there were.
fn converse(
    url: &str,
    options: impl FnOnce() -> ConnectOptions + Send + 'static,
) -> (String, usize) {
    let (tell, told) = channel();
    let url = url.to_owned();
    let server = Server::without_listener(move |app: &mut Application| {
        let failing = tell.clone();
        let options = options().max_frame_size(1 << 20).on_lost(|_, _| Reconnect::Stop).on_failure(
            move |error: &ConnectError, _| {
                failing.send(error.to_string()).unwrap();
                Reconnect::Stop
            },
        );
        let options = match std::env::var("WIREWHEEL_PEER_PROXY") {
            Ok(proxy) => options.proxy(proxy),
            Err(_) => options,
        };
        #[cfg(feature = "tls")]
        let options = match std::env::var_os("WIREWHEEL_PEER_ROOTS") {
            Some(roots) => {
                options.roots(wirewheel::tls::Roots::pem(std::path::PathBuf::from(roots)))
            }
            None => options,
        };
        app.connect(&url, options, move |_call: &Call| Conversation::new(tell.clone()));
    });
    let handle = server.spawn().unwrap();
    let next = || told.recv_timeout(6 * PATIENCE).unwrap();
    let opened = next();
    let agreed = opened.strip_prefix("open ").unwrap_or_else(|| panic!("{opened}")).to_owned();
    let closed = next();
    let echoes =
        closed.strip_prefix("close 1000 clean behind ").unwrap_or_else(|| panic!("{closed}"));
    let echoes = echoes.split(' ').next().unwrap().parse().unwrap();
    handle.shutdown(Duration::ZERO);
    (agreed, echoes)
}

#[test]
#[ignore = "needs a server of another make: .ci/interop"]
fn a_server_of_another_make_gives_back_what_it_is_sent() {
    let peer = std::env::var("WIREWHEEL_PEER").expect("the URL of a server that echoes");
    let url = if peer == "tungstenite" { tungstenite_server() } else { peer };
    let (agreed, mut echoes) = converse(&url, ConnectOptions::new);
    assert_eq!(agreed, "");
    #[cfg(feature = "deflate")]
    if std::env::var_os("WIREWHEEL_PEER_DEFLATE").is_some() {
        use wirewheel::extension::Deflate;
        let offers: [fn() -> Deflate; 3] = [
            Deflate::new,
            || Deflate::new().server_context_takeover(true).client_context_takeover(true),
            || Deflate::new().server_max_window_bits(10).client_max_window_bits(10),
        ];
        for offer in offers {
            let (agreed, more) = converse(&url, move || {
                ConnectOptions::new().extension(offer().compress_if_bigger_than(0))
            });
            assert_eq!(agreed, "permessage-deflate");
            echoes += more;
        }
    }
    writeln!(std::io::stdout(), "{echoes} echoes").unwrap();
}
