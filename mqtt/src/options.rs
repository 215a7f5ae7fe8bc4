//! The options of a link, and what it shares from the start.

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use wirewheel::client::{ConnectOptions, Reconnect};
use wirewheel::flow::SharedFlow;
use wirewheel::options::OutboxOverflow;
use wirewheel::{Application, ServerRef};

use crate::connection::Connection;
use crate::link::Inner;
use crate::running_link::RunningLink;
use crate::share::{Shared, Wanted};
use crate::topic;

/// A link to a broker, before it [starts](Self::start).
///
/// ```
/// use std::time::Duration;
/// use wirewheel::Application;
/// use wirewheel::client::ConnectOptions;
/// use wirewheel::flow::{BufferOverflow, FlowOptions};
/// use wirewheel_mqtt::{Link, LinkError};
/// fn module(app: &mut Application) -> Result<(), LinkError> {
///     let news = FlowOptions::new().replay(20).on_buffer_overflow(BufferOverflow::DropOldest);
///     let news = app.flow(news);
///     let link = Link::to("mqtt://broker.example:1883")
///         .client_id("box1")
///         .prefix("hall/")
///         .user("box1")
///         .password("secret")
///         .keep_alive(Duration::from_secs(10))
///         .max_waiting(256 << 10)
///         .max_packet(256 << 10)
///         .at_least_once(true)
///         .presence("boxes")
///         .connect_options(ConnectOptions::new().connect_timeout(Duration::from_secs(5)))
///         .share(&news, "news")
///         .on_change(|_server, change| println!("{change:?}"))
///         .start(app)?;
///     println!("{}: {:?}", link.is_up(), link.counts());
///     Ok(())
/// }
/// ```
#[must_use = "start it"]
pub struct Link {
    pub(crate) url: String,
    client_id: String,
    pub(crate) prefix: String,
    pub(crate) max_waiting: usize,
    pub(crate) max_packet: usize,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    pub(crate) keep_alive: Duration,
    pub(crate) at_least_once: bool,
    presence: Option<String>,
    connect: ConnectOptions,
    pub(crate) shares: Vec<Wanted>,
    pub(crate) on_change: Option<Box<ChangeHook>>,
}

type ChangeHook = dyn Fn(&mut ServerRef<'_>, &Change);

/// What has become of a link.
///
/// ```
/// use wirewheel_mqtt::Change;
/// fn line(change: &Change) -> String {
///     match change {
///         Change::Up => "shared".to_owned(),
///         Change::Down(why) => format!("on its own: {why}"),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The broker has taken this box and its subscriptions, but for those that the log has as refused:
    /// messages go to and fro.
    Up,
    /// It has not any longer, and why, in words. Another attempt follows.
    Down(String),
}

/// A mistake in the options of a link, in words.
///
/// ```
/// use wirewheel::Application;
/// use wirewheel_mqtt::{Link, LinkError};
/// fn module(app: &mut Application) {
///     let mistake: LinkError = Link::to("http://broker").start(app).unwrap_err();
///     assert!(mistake.to_string().contains("mqtt://"));
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError(pub(crate) String);

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LinkError {}

impl fmt::Debug for Link {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

/// MQTT 5 section 3.1.2.10: the keep-alive is a number of seconds of two bytes.
const KEEP_ALIVE: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3_600);
/// What a link may be told to hold.
const BYTES: std::ops::RangeInclusive<usize> = 1 << 10..=64 << 20;

impl Link {
    /// A link to the broker at `mqtt://host`, `mqtt://host:port`, `mqtts://host` (feature `tls`), or
    /// `mqtt+unix:/run/broker.sock`. The port is 1883 or 8883 where none is named.
    pub fn to(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            client_id: "wirewheel".into(),
            prefix: String::new(),
            max_waiting: 256 << 10,
            max_packet: 256 << 10,
            user: None,
            password: None,
            keep_alive: Duration::from_secs(10),
            at_least_once: false,
            presence: None,
            connect: ConnectOptions::new(),
            shares: Vec::new(),
            on_change: None,
        }
    }

    /// What the broker calls this box. Behind it come eight digits that are drawn at the start: two clients
    /// of one name would end each other again and again. Default `wirewheel`.
    pub fn client_id(mut self, name: impl Into<String>) -> Self {
        self.client_id = name.into();
        self
    }

    /// What all topics begin with, such as `hall/`: two applications on one broker need two. Default:
    /// nothing.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The user name for the broker.
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.user = Some(name.into());
        self
    }

    /// The password for the broker. Without TLS everybody on the way can read it.
    pub fn password(mut self, password: impl Into<Vec<u8>>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// After so long without an answer the broker is asked whether it is there, and after as long again given
    /// up. 1 s to an hour, in whole seconds; default 10 s. A broker may ask for less.
    pub fn keep_alive(mut self, time: Duration) -> Self {
        self.keep_alive = time;
        self
    }

    /// The most bytes that may be on their way and that the broker has not read, about; beyond them the
    /// flows' policies hold. 1 KiB to 64 MiB, default 256 KiB.
    pub fn max_waiting(mut self, bytes: usize) -> Self {
        self.max_waiting = bytes;
        self
    }

    /// The largest packet that the broker may send, with its topic and properties. A larger one ends the
    /// connection. 1 KiB to 64 MiB, default 256 KiB.
    pub fn max_packet(mut self, bytes: usize) -> Self {
        self.max_packet = bytes;
        self
    }

    /// Sends and subscribes with QoS 1: the broker acknowledges each message, and sends again what it sees
    /// lost. What is sent twice is dropped by its number. After a loss of the connection nothing is sent
    /// again, as without it, but for [newest values](Self::share_latest). Default false: QoS 0.
    pub fn at_least_once(mut self, yes: bool) -> Self {
        self.at_least_once = yes;
        self
    }

    /// Has the broker keep `up` in the topic `name/client-id` below the prefix, as long as this box is
    /// connected: it removes that itself when the box is lost (a Will). Share a flow of newest values under
    /// `name` to see who is there.
    pub fn presence(mut self, name: impl Into<String>) -> Self {
        self.presence = Some(name.into());
        self
    }

    /// How the broker is dialled: time-out, proxy, and for `mqtts://` its authorities and a certificate to be
    /// shown.
    pub fn connect_options(mut self, options: ConnectOptions) -> Self {
        self.connect = options;
        self
    }

    /// Shares a flow under a topic. Of a flow of newest values use [`share_latest`](Self::share_latest).
    pub fn share<T: ?Sized + 'static>(mut self, flow: &SharedFlow<T>, topic: &str) -> Self {
        self.shares.push(Wanted::new(flow, topic, false));
        self
    }

    /// Shares a flow of newest values: each key is a topic below this one, which the broker keeps; the empty
    /// key is the topic itself. A key that cannot be the name of a topic
    /// ([`topic_fault`](crate::topic_fault)) is not shared, and counts as dropped. What this box has said
    /// last of a key is sent again to a broker that is back, and once there is room where there was none.
    ///
    /// ```
    /// use wirewheel::flow::SharedFlow;
    /// use wirewheel_mqtt::Link;
    /// fn share(link: Link, gauges: &SharedFlow) -> Link {
    ///     link.share_latest(gauges, "gauges") // the key `cellar` is in `gauges/cellar`
    /// }
    /// ```
    pub fn share_latest<T: ?Sized + 'static>(mut self, flow: &SharedFlow<T>, topic: &str) -> Self {
        self.shares.push(Wanted::new(flow, topic, true));
        self
    }

    /// Calls `hook` when the link goes up, and when it goes down.
    pub fn on_change(mut self, hook: impl Fn(&mut ServerRef<'_>, &Change) + 'static) -> Self {
        self.on_change = Some(Box::new(hook));
        self
    }

    /// Starts it with the application: the broker is dialled, and dialled again, until the server stops. Of
    /// several loops one has the link: start it within [`once`](Application::once).
    ///
    /// # Errors
    /// A mistake in the options. One in the URL's host or in [`connect_options`](Self::connect_options) is
    /// returned when the server starts.
    pub fn start(self, app: &mut Application) -> Result<RunningLink, LinkError> {
        self.check()?;
        let url = dialled_url(&self.url)?;
        let options = self.options_of_dialler();
        let inner = Rc::new(Inner::new(self));
        inner.share_from_start(app)?;
        let lost = Rc::clone(&inner);
        let options = options.on_lost(move |_close, next| match lost.wait_after_refusal() {
            Some(wait) => Reconnect::After(wait.saturating_add(next)),
            None => Reconnect::After(next),
        });
        let connected = Rc::clone(&inner);
        app.connect_bytes(&url, options, move || Connection::new(Rc::clone(&connected)));
        let stopping = Rc::clone(&inner);
        app.on_shutdown(move |server| stopping.say_goodbye(server));
        Ok(RunningLink::new(inner))
    }

    /// Whether the options can be meant, without starting anything.
    ///
    /// ```
    /// use wirewheel_mqtt::Link;
    /// assert!(Link::to("mqtt://broker.example").check().is_ok());
    /// assert!(Link::to("mqtt://broker.example").prefix("$SYS/").check().is_err());
    /// ```
    ///
    /// # Errors
    /// The first mistake.
    pub fn check(&self) -> Result<(), LinkError> {
        dialled_url(&self.url)?;
        let wrong = |what: String| Err(LinkError(what));
        if !KEEP_ALIVE.contains(&self.keep_alive) {
            return wrong(format!(
                "keep_alive is {:?}: it must be 1 s to an hour",
                self.keep_alive
            ));
        }
        for (name, bytes) in [("max_waiting", self.max_waiting), ("max_packet", self.max_packet)] {
            if !BYTES.contains(&bytes) {
                return wrong(format!("{name} is {bytes}: it must be 1 KiB to 64 MiB"));
            }
        }
        let named = [("client_id", Some(&self.client_id)), ("presence", self.presence.as_ref())];
        for (what, name) in named {
            if let Some(fault) = name.and_then(|name| topic::topic_fault(name)) {
                return wrong(format!("{what}: {fault}"));
            }
        }
        match topic::topic_fault(&format!("{}x", self.prefix)) {
            Some(fault) => wrong(format!("prefix {:?}: {fault}", self.prefix)),
            None => Ok(()),
        }
    }

    /// What is in every broker's way is soon over, and a link is to be back soon after it.
    fn options_of_dialler(&self) -> ConnectOptions {
        let room = self.max_waiting.saturating_add(self.max_packet).saturating_mul(2);
        self.connect
            .clone()
            .backoff(Duration::from_millis(250), Duration::from_secs(2))
            .outbox_bytes(room)
            .outbox_messages(1 << 20)
            .on_outbox_full(OutboxOverflow::Close)
    }

    /// The name with what makes it the only one.
    pub(crate) fn drawn_client_id(&self) -> String {
        format!("{}-{:08x}", self.client_id, RandomState::new().build_hasher().finish() >> 32)
    }

    /// Where the presence of the client of that name is.
    pub(crate) fn presence_topic(&self, client_id: &str) -> Option<String> {
        let name = self.presence.as_ref()?;
        Some(format!("{}{name}/{client_id}", self.prefix))
    }

    /// A topic below the prefix.
    pub(crate) fn topic_of(prefix: &str, wanted: &Wanted) -> Result<String, LinkError> {
        let topic = format!("{prefix}{}", wanted.topic);
        match topic::topic_fault(&topic) {
            Some(fault) => Err(LinkError(format!("topic {topic:?}: {fault}"))),
            None => Ok(topic),
        }
    }
}

/// The broker's place as `connect_bytes` has it.
fn dialled_url(url: &str) -> Result<String, LinkError> {
    let hint = "write mqtt://host:port, mqtts://host:port or mqtt+unix:/run/broker.sock";
    let with_port = |scheme: &str, place: &str, port: u16| {
        let place = place.trim_end_matches('/');
        let host_end = place.rfind(']').map_or(0, |end| end + 1);
        let has_port = place.get(host_end..).is_some_and(|rest| rest.contains(':'));
        if has_port { format!("{scheme}://{place}") } else { format!("{scheme}://{place}:{port}") }
    };
    match url.split_once(':') {
        Some(("mqtt+unix", path)) => Ok(format!("unix:{path}")),
        Some((scheme @ ("mqtt" | "mqtts"), rest)) => match rest.strip_prefix("//") {
            Some(place) if place.contains('@') => Err(LinkError(
                "name and password are given by Link::user and Link::password".into(),
            )),
            Some(place) if scheme == "mqtt" => Ok(with_port("tcp", place, 1883)),
            Some(place) => Ok(with_port("tls", place, 8883)),
            None => Err(LinkError(hint.into())),
        },
        _ => Err(LinkError(format!("that is no URL of a broker: {hint}"))),
    }
}

/// Shares that are wanted of any flow.
impl Wanted {
    pub(crate) fn new<T: ?Sized + 'static>(
        flow: &SharedFlow<T>,
        topic: &str,
        is_latest: bool,
    ) -> Self {
        let flow: Rc<dyn Shared> = Rc::new(flow.clone());
        Self { flow, topic: topic.to_owned(), is_latest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_dialled_where_their_url_says() {
        for (url, dialled) in [
            ("mqtt://broker", "tcp://broker:1883"),
            ("mqtt://broker:1/", "tcp://broker:1"),
            ("mqtts://[::1]", "tls://[::1]:8883"),
            ("mqtts://[::1]:7", "tls://[::1]:7"),
            ("mqtt+unix:/run/x", "unix:/run/x"),
        ] {
            assert_eq!(dialled_url(url).as_deref(), Ok(dialled));
        }
        for url in ["broker", "http://broker", "mqtt:broker", "mqtt://name:secret@broker"] {
            let mistake = dialled_url(url).unwrap_err().to_string();
            assert!(!mistake.contains("secret") && !mistake.is_empty(), "{mistake}");
        }
    }
}
