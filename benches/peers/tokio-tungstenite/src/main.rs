//! tokio-tungstenite as a benchmark server: `bench-tokio-tungstenite PORT [MODE] [4k]`, with `tls CERTIFICATE
//! KEY` over tokio-rustls; as a client `bench-tokio-tungstenite PORT dial CONNECTIONS [4k]`.
//!
//! One thread, replies forwarded from stream to sink, so that messages that arrive together leave
//! together. `4k` sets both buffers to 4 KiB instead of the defaults (128 KiB).

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::{SinkExt, StreamExt, TryStreamExt, future};
use rustls::ServerConfig;
use rustls::crypto::ring::{Ticketer, default_provider};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async_with_config, client_async_with_config};

type Subscribers = Rc<RefCell<Vec<UnboundedSender<Message>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let port: u16 = words.first().ok_or("usage: PORT [echo|broadcast|large] [4k]")?.parse()?;
    let broadcast = words.iter().any(|word| word == "broadcast");
    let mut config = WebSocketConfig::default();
    if words.iter().any(|word| word == "4k") {
        config = config.read_buffer_size(4 << 10).write_buffer_size(4 << 10);
    }
    let tls = match words.as_slice() {
        [_, mode, certificate, key, ..] if mode.starts_with("tls") => {
            Some(acceptor(certificate, key)?)
        }
        _ => None,
    };
    if let [_, mode, connections, ..] = words.as_slice()
        && mode == "dial"
    {
        return dial(port, connections.parse()?, config).await;
    }
    let subscribers = Subscribers::default();
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    tokio::task::LocalSet::new()
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let subscribers = broadcast.then(|| subscribers.clone());
                let tls = tls.clone();
                tokio::task::spawn_local(async move {
                    // A client that hangs up ends its task and nothing else.
                    let _ = match tls {
                        None => serve(stream, config, subscribers).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, config, subscribers).await,
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        })
        .await
}

/// As wirewheel has it: clients resume by one ticket, whose keys are in memory.
fn acceptor(certificate: &str, key: &str) -> Result<TlsAcceptor, Box<dyn std::error::Error>> {
    let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<Vec<_>, _>>()?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    stream: S,
    config: WebSocketConfig,
    subscribers: Option<Subscribers>,
) -> Result<(), Error> {
    let session = accept_async_with_config(stream, Some(config)).await?;
    match subscribers {
        Some(subscribers) => fan_out(session, subscribers).await,
        None => send_back(session).await,
    }
}

/// Dials so often, and sends back what comes, until the other side hangs up.
async fn dial(
    port: u16,
    connections: usize,
    config: WebSocketConfig,
) -> Result<(), Box<dyn std::error::Error>> {
    let sessions = tokio::task::LocalSet::new();
    for _ in 0..connections {
        sessions.spawn_local(async move {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let url = format!("ws://127.0.0.1:{port}/");
            let (session, _) = client_async_with_config(url, stream, Some(config)).await?;
            send_back(session).await
        });
    }
    sessions.await;
    Ok(())
}

async fn send_back<S: AsyncRead + AsyncWrite + Unpin>(
    session: WebSocketStream<S>,
) -> Result<(), Error> {
    let (sink, stream) = session.split();
    stream.try_filter(|message| future::ready(is_data(message))).forward(sink).await
}

fn is_data(message: &Message) -> bool {
    message.is_text() || message.is_binary()
}

/// Sends what arrives to all, by a channel for each.
async fn fan_out<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    session: WebSocketStream<S>,
    subscribers: Subscribers,
) -> Result<(), Error> {
    let (mut sink, mut stream) = session.split();
    let (sender, mut receiver) = unbounded_channel();
    subscribers.borrow_mut().push(sender);
    tokio::task::spawn_local(async move {
        while let Some(message) = receiver.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
    });
    while let Some(message) = stream.try_next().await? {
        if is_data(&message) {
            subscribers.borrow_mut().retain(|each| each.send(message.clone()).is_ok());
        }
    }
    Ok(())
}
