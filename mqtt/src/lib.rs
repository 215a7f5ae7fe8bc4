//! Flows of [`wirewheel`] that span boxes, over an MQTT 5 broker.
//!
//! A flow is shared under a topic: what is published in it on one box is published in it on all. The broker
//! is whatever speaks MQTT 5, such as the Mosquitto that gateways have anyway; payloads are the messages as
//! they are, so that `mosquitto_pub`, `mosquitto_sub` and any sensor take part. Handlers name no broker.
//!
//! ```no_run
//! use wirewheel::flow::{BufferOverflow, FlowOptions};
//! use wirewheel::{Application, Call, Server, WebSockets, on_connect};
//! use wirewheel_mqtt::{Change, Link};
//!
//! let server = Server::bind("127.0.0.1:8080", |app: &mut Application| {
//!     let behind = FlowOptions::new().extra_buffer(64);
//!     let room = app.flow(behind.on_buffer_overflow(BufferOverflow::DropOldest));
//!     let gauges = app.flow(behind.on_buffer_overflow(BufferOverflow::Latest));
//!     let link = Link::to("mqtt://127.0.0.1:1883")
//!         .client_id("box1")
//!         .prefix("hall/")
//!         .max_waiting(256 << 10)
//!         .share(&room, "room")
//!         .share_latest(&gauges, "gauges")
//!         .on_change(|_server, change| match change {
//!             Change::Up => println!("the broker is there"),
//!             Change::Down(why) => println!("the broker is away: {why}"),
//!         });
//!     link.start(app).expect("topics and URL are as they should be");
//!     app.install(WebSockets::new());
//!     app.routing(move |route| {
//!         route.web_socket("/room", move |_call: &Call| {
//!             let (joined, said) = (room.clone(), room.clone());
//!             on_connect(move |session, _call| session.collect(&joined)).on_message(
//!                 move |session, message| session.emit(&said, message.text().unwrap_or_default()),
//!             )
//!         });
//!     });
//! })?;
//! server.run()?;
//! # Ok::<(), wirewheel::error::ServerError>(())
//! ```
//!
//! # What a shared flow promises
//!
//! * **Order.** The messages of one publisher keep their order. Sessions of the box where something is
//!   published get it first; two publishers on two boxes may be seen in either order.
//! * **At most once.** A message may be lost between boxes, and never comes twice; with QoS 1 fewer are lost.
//!   Within a box all is as it was.
//! * **Every gap is counted.** Each message has a number, in the user property `wirewheel-number`; what does
//!   not come counts in [`Session::missed`](wirewheel::Session::missed) of all who collect the flow, as soon
//!   as a later message of the same publisher comes. So does what the sending box dropped, or skipped. A link
//!   that starts draws a new sequence, which is no gap. Publishers that are no links have no numbers: what is
//!   lost of theirs nobody counts. MQTT orders the messages of one topic alone: a newest value that comes
//!   behind a later number of another key is taken. It was counted then, and is taken off what is missed
//!   next.
//! * **The broker away.** Each box goes on for itself. What is published meanwhile is not sent later; it is
//!   counted on the other boxes when the first message after it comes. Of a flow of newest values the newest
//!   of each key are sent when the broker is back, and which were removed: those said meanwhile at once, and
//!   those said before behind what the broker has kept, unless it has them or another box has said something
//!   newer. So a broker that keeps nothing over a restart has them again; other boxes may get a value twice.
//! * **Slow brokers.** The link is a subscriber of the flow like any other. When
//!   [`max_waiting`](Link::max_waiting) bytes are on their way that the broker has not read, it takes
//!   nothing: then the flow's overflow policy holds. `Suspend` would have one slow box hold up everybody:
//!   share flows that drop.
//! * **Newest values.** A key is a topic below the flow's, which the broker keeps: a box that joins gets the
//!   newest of each. Where several boxes say one, the order of the broker holds for all of them, as long as
//!   they have the same [`at_least_once`](Link::at_least_once): each hears its own values too. Removing a key
//!   removes it everywhere; on a box that was cut off, once it is back and the
//!   broker does not show the key any more. (Where a broker has more than 500 values for a box it may have
//!   dropped some, and nothing is removed for that.) So a broker that lost what it kept loses the values of
//!   boxes that are not there, on all of them.
//! * **Memory.** All that a link holds counts in [`process_bytes`](wirewheel::Limits::process_bytes): what
//!   waits for the broker, in the outbox of its session; one packet that came in part, of at most
//!   [`max_packet`](Link::max_packet), a longer one being refused at its header; 112 bytes for each of up
//!   to 256 publishers of a flow; 96 for each of up to 16,384 keys of a flow of newest values, those of which
//!   something was said last; and the keys of what is to be sent again, or was removed and is on its way. Of
//!   keys beyond those nothing is sent again.
//!
//! # MQTT
//!
//! MQTT 5 alone: older versions have neither user properties nor No Local, without which every message would
//! come back. A broker that knows no newer than 3.1.1 is told of in the log. A message is text if the broker
//! says so (payload format indicator 1), binary if it says the opposite, else text if it is UTF-8.

#![forbid(unsafe_code)]

mod again;
mod connection;
mod flowsdk_codec;
mod keys;
mod link;
mod link_state;
mod numbers;
mod options;
mod packet;
mod publish;
mod running_link;
mod share;
mod subscriptions;
mod topic;
mod window;

pub use options::{Change, Link, LinkError};
pub use running_link::{Counts, RunningLink};
pub use topic::topic_fault;
