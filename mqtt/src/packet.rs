//! The packets of MQTT 5 as a link sends and receives them, and the trait behind which they are made of
//! bytes.

/// The packets that a link sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outgoing<'a> {
    Connect {
        client_id: &'a str,
        user: Option<&'a str>,
        password: Option<&'a [u8]>,
        keep_alive_seconds: u16,
        /// Published, and kept, where this client is lost: nothing, in this topic.
        will_topic: Option<&'a str>,
        /// That is published with QoS 1.
        at_least_once: bool,
        max_packet_bytes: u32,
    },
    Subscribe {
        id: u16,
        filters: &'a [Filter],
    },
    Unsubscribe {
        id: u16,
        filter: &'a str,
    },
    Publish(Publish<'a>),
    /// Of a message that came with that id.
    Acknowledge(u16),
    Ping,
    Disconnect,
}

/// One topic filter of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) topic: String,
    pub(crate) at_least_once: bool,
    /// What the broker keeps of it is wanted too.
    pub(crate) retained: bool,
}

/// A message on its way to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a str,
    /// With an id it is acknowledged.
    pub(crate) id: Option<u16>,
    pub(crate) retain: bool,
    pub(crate) is_text: bool,
    /// Its number, as [`NUMBER`] has it.
    pub(crate) number: Option<&'a str>,
    pub(crate) payload: &'a [u8],
}

/// The user property in which a message has its number.
pub(crate) const NUMBER: &str = "wirewheel-number";

/// The packets that a broker sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    /// It takes this client.
    Connected {
        /// How many acknowledgements may be awaited.
        receive_maximum: u16,
        keep_alive_seconds: Option<u16>,
        max_packet_bytes: usize,
        max_at_least_once: bool,
        retains: bool,
    },
    Subscribed {
        id: u16,
        /// Whether each filter was taken.
        granted: Vec<bool>,
    },
    Unsubscribed,
    Message(Message<'a>),
    Acknowledged {
        id: u16,
        is_taken: bool,
    },
    Pong,
    /// It refuses this client, or ends the connection: why, as MQTT 5 numbers and words it.
    Refused(u8, String),
}

/// A message that the broker brings, in the bytes that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a str,
    pub(crate) id: Option<u16>,
    /// It was kept, and comes since its topic was subscribed to.
    pub(crate) retained: bool,
    /// What its format indicator says.
    pub(crate) is_text: Option<bool>,
    pub(crate) number: Option<&'a str>,
    pub(crate) payload: &'a [u8],
}

impl<'a> Message<'a> {
    /// As text or binary.
    pub(crate) fn as_message(&self) -> wirewheel::Message<'a> {
        match std::str::from_utf8(self.payload) {
            Ok(text) if self.is_text != Some(false) => text.into(),
            _ => self.payload.into(),
        }
    }
}

/// What makes packets of bytes, and bytes of packets. It keeps nothing.
pub(crate) trait Codec {
    /// Adds a packet to `out`; the error says what of it cannot be sent.
    fn encode(&self, packet: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<(), String>;

    /// The packet at the beginning of `bytes`, which is whole.
    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Incoming<'a>, String>;
}

/// How long the packet is that begins there, with its header; `None` if that has not come.
pub(crate) fn packet_bytes(bytes: &[u8]) -> Result<Option<usize>, String> {
    // MQTT 5 section 1.5.5: seven bits a byte, the lowest first, at most four bytes.
    let mut length: usize = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(Some(length + place + 2));
        }
    }
    match bytes.len() {
        0..5 => Ok(None),
        _ => Err("a length without an end: this is no MQTT".into()),
    }
}

/// Whether a packet brings a message.
pub(crate) fn is_publish(packet: &[u8]) -> bool {
    packet.first().is_some_and(|first| first >> 4 == 3)
}

/// Whether this is how a broker refuses that knows nothing newer than MQTT 3.1.1: a CONNACK without
/// properties, which MQTT 5 has not.
pub(crate) fn is_older_refusal(bytes: &[u8]) -> bool {
    matches!(bytes, [0x20, 2, _, 1..=5])
}
