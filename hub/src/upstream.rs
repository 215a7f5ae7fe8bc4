//! The hub that topics are joined to: where it is, what it is shown, and the link of each topic.

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use log::Level;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use wirewheel::client::{ConnectOptions, Dialer, Reconnect};
use wirewheel::{Application, Call, CloseCode, CloseInfo, ClosedBy, ServerRef};

use crate::config::Config;
use crate::links::{Link, PROTOCOL, VERSION_BYTES};
use crate::sparing::Sparing;
use crate::tokens::tokens_in;
use crate::topics::Topic;
use crate::upstream_place::UpstreamPlace;

/// How long a link that this hub has refused is left alone.
const REFUSED: Duration = Duration::from_secs(30);

/// How each topic is linked.
#[derive(Debug)]
pub(crate) struct Upstream {
    place: UpstreamPlace,
    options: ConnectOptions,
}

impl Upstream {
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let place = config.upstream.clone()?;
        let options = ConnectOptions::new()
            .protocol(PROTOCOL)
            .ping_period(config.ping_period)
            .timeout(config.timeout)
            .on_lost(after_end)
            .max_frame_size(config.max_message.saturating_add(VERSION_BYTES));
        let options = match place.token_file.clone() {
            Some(path) => options.header_with("Authorization", token_reader(path)),
            None => options,
        };
        #[cfg(feature = "tls")]
        let options = match place.ca.clone() {
            Some(path) => options.roots(wirewheel::tls::Roots::pem(path)),
            None => options,
        };
        Some(Self { place, options })
    }

    /// The topic of a name there.
    fn url(&self, topic: &str) -> String {
        let (url, topic) = (&self.place.url, utf8_percent_encode(topic, NON_ALPHANUMERIC));
        let is_socket_alone = url.strip_prefix("ws+unix:").is_some_and(|it| !it.contains(':'));
        let colon = if is_socket_alone { ":" } else { "" };
        format!("{url}{colon}/topic/{topic}")
    }

    /// Has a mistake in the URL told when the hub starts. Nothing is dialled.
    pub(crate) fn check(&self, app: &mut Application) {
        let url = self.url("name");
        app.connect(&url, self.options.clone(), |_: &Call| wirewheel::on_message(|_, _| Ok(())))
            .stop();
    }

    /// Joins a topic to the one of its name there.
    pub(crate) fn join(&self, server: &mut ServerRef<'_>, topic: &Rc<Topic>) -> Option<Dialer> {
        let url = self.url(topic.name());
        let linked = Rc::clone(topic);
        let dialer =
            server.connect(&url, self.options.clone(), move |_: &Call| Link(Rc::clone(&linked)));
        dialer.inspect_err(|mistake| log::error!("--upstream: {mistake}")).ok()
    }
}

/// A link that this hub has refused is no better at once: it waits as long as one that the other has refused.
fn after_end(close: &CloseInfo, next: Duration) -> Reconnect {
    let is_refused =
        close.closed_by() == ClosedBy::Local && close.code() == CloseCode::VIOLATED_POLICY;
    // `next`, which is drawn, spreads those who come back.
    if is_refused {
        Reconnect::After(REFUSED.saturating_add(next.min(REFUSED)))
    } else {
        Reconnect::Retry
    }
}

/// What reads the token anew for each attempt. A file that is just being replaced may be unreadable: what
/// it said before is shown then.
fn token_reader(path: PathBuf) -> impl Fn() -> String + 'static {
    let (last, mistakes) = (RefCell::new(String::new()), Sparing::new(1));
    move || {
        match tokens_in(&path) {
            Ok(tokens) => *last.borrow_mut() = tokens.into_iter().next().unwrap_or_default(),
            Err(mistake) => {
                mistakes.say(Level::Error, &format!("--upstream-token-file: {mistake}"))
            }
        }
        format!("Bearer {}", last.borrow())
    }
}
