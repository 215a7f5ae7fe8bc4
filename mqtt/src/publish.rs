//! The reader of PUBLISH packets, which are nearly all that comes: one pass over the bytes as they came, of
//! which nothing is copied.

use crate::packet::{Message, NUMBER};
use crate::topic;

/// A packet of QoS 0 or 1, which is whole; the error says what is wrong with it.
pub(crate) fn read_publish(packet: &[u8]) -> Result<Message<'_>, &'static str> {
    let mut fields = Fields(packet);
    let first = fields.byte()?;
    let rest = fields.variable()?;
    if rest != fields.0.len() {
        return Err("a packet is longer or shorter than it says");
    }
    let topic = fields.topic()?;
    let id = match (first >> 1) & 3 {
        // MQTT 5 section 3.3.1.1: "The DUP flag MUST be set to 0 for all QoS 0 messages".
        0 if first & 8 > 0 => return Err("a message of QoS 0 is sent again"),
        0 => None,
        1 => Some(fields.id()?),
        _ => return Err("a message of QoS 2, which was not subscribed to"),
    };
    let properties = fields.variable()?;
    let (is_text, number) = read_properties(Fields(fields.take(properties)?))?;
    Ok(Message { topic, id, retained: first & 1 > 0, is_text, number, payload: fields.0 })
}

/// The format indicator, and the number that a link gives.
fn read_properties(mut fields: Fields<'_>) -> Result<(Option<bool>, Option<&str>), &'static str> {
    let (mut is_text, mut number, mut seen) = (None, None, 0_u64);
    while !fields.0.is_empty() {
        let kind = fields.byte()?;
        match kind {
            FORMAT => is_text = Some(fields.flag()?),
            EXPIRY => _ = fields.take(4)?,
            CONTENT_TYPE => _ = fields.string()?,
            RESPONSE_TOPIC => _ = fields.topic()?,
            CORRELATION => _ = fields.binary()?,
            SUBSCRIPTION => fields.subscription()?,
            USER => {
                let (name, value) = (fields.string()?, fields.string()?);
                number = if name == NUMBER { Some(value) } else { number };
            }
            ALIAS => return Err("an alias of a topic, which was not offered"),
            _ => return Err("a property that messages do not have"),
        }
        // MQTT 5 sections 2.2.2.2 and 3.3.2.3.8: only these may be there more than once.
        let bit = if matches!(kind, USER | SUBSCRIPTION) { 0 } else { 1 << kind };
        if seen & bit > 0 {
            return Err("a property twice");
        }
        seen |= bit;
    }
    Ok((is_text, number))
}

/// MQTT 5 section 2.2.2.2.
const FORMAT: u8 = 0x01;
const EXPIRY: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION: u8 = 0x09;
const SUBSCRIPTION: u8 = 0x0b;
const ALIAS: u8 = 0x23;
const USER: u8 = 0x26;

/// What is left of a packet, as MQTT 5 section 1.5 has its parts.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, left) =
            self.0.split_at_checked(count).ok_or("a part is longer than its packet")?;
        self.0 = left;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        Ok(self.take(1)?.iter().fold(0, |_, byte| *byte))
    }

    fn flag(&mut self) -> Result<bool, &'static str> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err("a flag that is neither 0 nor 1"),
        }
    }

    fn number(&mut self) -> Result<u16, &'static str> {
        Ok(self.take(2)?.iter().fold(0, |number, byte| number << 8 | u16::from(*byte)))
    }

    /// MQTT 5 section 2.2.1: "a non-zero Packet Identifier".
    fn id(&mut self) -> Result<u16, &'static str> {
        match self.number()? {
            0 => Err("an id that is 0"),
            id => Ok(id),
        }
    }

    /// Section 3.3.2.3.8: "It is a Protocol Error if the Subscription Identifier has a value of 0".
    fn subscription(&mut self) -> Result<(), &'static str> {
        if self.variable()? == 0 { Err("a subscription that is 0") } else { Ok(()) }
    }

    /// A number of one to four bytes.
    fn variable(&mut self) -> Result<usize, &'static str> {
        let mut number = 0;
        for place in 0..4 {
            let byte = self.byte()?;
            number |= usize::from(byte & 0x7f) << (7 * place);
            match byte {
                // Section 1.5.5: "The encoded value MUST use the minimum number of bytes necessary".
                0 if place > 0 => return Err("a number is longer than it need be"),
                0..0x80 => return Ok(number),
                _ => {}
            }
        }
        Err("a number without an end")
    }

    fn binary(&mut self) -> Result<&'a [u8], &'static str> {
        let length = self.number()?;
        self.take(length.into())
    }

    fn string(&mut self) -> Result<&'a str, &'static str> {
        let text = std::str::from_utf8(self.binary()?).map_err(|_| "a text that is no UTF-8")?;
        // Section 1.5.4: "MUST NOT include an encoding of the null character U+0000".
        let has_nul = text.bytes().fold(false, |has, byte| has | (byte == 0));
        if has_nul { Err("a text with a NUL") } else { Ok(text) }
    }

    fn topic(&mut self) -> Result<&'a str, &'static str> {
        let text = self.string()?;
        if topic::is_name(text) { Ok(text) } else { Err("a topic that is empty, or a filter") }
    }
}

#[cfg(test)]
mod tests {
    use flowsdk::mqtt_serde::control_packet::{MqttControlPacket, MqttPacket};
    use flowsdk::mqtt_serde::mqttv5::Property;
    use flowsdk::mqtt_serde::mqttv5::publish::MqttPublish;
    use flowsdk::mqtt_serde::parser::ParseOk;
    use proptest::prelude::*;

    use super::*;

    /// The same as `flowsdk` reads it; `None` for what is refused. It is asked of packets alone that are as
    /// long as they say: where the fields go beyond that, it subtracts with overflow.
    fn reference(packet: &[u8]) -> Option<MqttPublish> {
        let mut rest = Fields(packet);
        rest.byte().ok()?;
        rest.variable().ok().filter(|length| *length == rest.0.len())?;
        let Ok(ParseOk::Packet(MqttPacket::Publish5(message), length)) =
            MqttPacket::from_bytes_v5(packet)
        else {
            return None;
        };
        // Neither was asked for.
        let has_alias = message.properties.iter().any(|it| matches!(it, Property::TopicAlias(_)));
        (message.qos < 2 && !has_alias && length == packet.len()).then_some(message)
    }

    fn compare(packet: &[u8]) {
        match (read_publish(packet), reference(packet)) {
            (Err(_), None) => {}
            (Ok(ours), Some(theirs)) => {
                let number = theirs.properties.iter().rev().find_map(|property| match property {
                    Property::UserProperty(name, value) if name == NUMBER => Some(value.as_str()),
                    _ => None,
                });
                let is_text = theirs.properties.iter().find_map(|property| match property {
                    Property::PayloadFormatIndicator(format) => Some(*format == 1),
                    _ => None,
                });
                let expected = Message {
                    topic: &theirs.topic_name,
                    id: theirs.packet_id,
                    retained: theirs.retain,
                    is_text,
                    number,
                    payload: &theirs.payload,
                };
                assert_eq!(ours, expected, "{packet:x?}");
            }
            (ours, theirs) => panic!("{packet:x?}: {ours:?}, and {theirs:?}"),
        }
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(NUMBER.to_owned()), "[a-z+#/\u{e9}]{0,8}"]
    }

    fn property() -> impl Strategy<Value = Property> {
        prop_oneof![
            (0u8..3).prop_map(Property::PayloadFormatIndicator),
            any::<u32>().prop_map(Property::MessageExpiryInterval),
            text().prop_map(Property::ContentType),
            text().prop_map(Property::ResponseTopic),
            proptest::collection::vec(any::<u8>(), 0..6).prop_map(Property::CorrelationData),
            (0u32..400).prop_map(Property::SubscriptionIdentifier),
            (0u16..3).prop_map(Property::TopicAlias),
            (0u16..3).prop_map(Property::ReceiveMaximum),
            (text(), text()).prop_map(|(name, value)| Property::UserProperty(name, value)),
        ]
    }

    /// The bytes of a packet, whether such a one may be sent or not.
    fn packet(
        (qos, retain, dup, id): (u8, bool, bool, u16),
        topic: &str,
        properties: Vec<Property>,
        payload: &[u8],
    ) -> Vec<u8> {
        let head = qos << 1 | u8::from(retain) | u8::from(dup) << 3 | 0x30;
        let mut encoded = Vec::new();
        for property in properties {
            // One by one, since those that may not be there twice are refused.
            let one = MqttPublish::new_with_prop(
                0,
                "t".into(),
                None,
                Vec::new(),
                false,
                false,
                vec![property],
            );
            let mut bytes = Vec::new();
            if one.encode_to_buffer(&mut bytes).is_ok() {
                encoded.extend_from_slice(&bytes[6..]); // behind header, topic and length
            }
        }
        let mut body = (u16::try_from(topic.len()).unwrap()).to_be_bytes().to_vec();
        body.extend_from_slice(topic.as_bytes());
        body.extend(if qos > 0 { id.to_be_bytes().to_vec() } else { Vec::new() });
        body.extend(variable(encoded.len()));
        body.extend(encoded);
        body.extend_from_slice(payload);
        [vec![head], variable(body.len()), body].concat()
    }

    fn variable(mut number: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let low = u8::try_from(number % 128).unwrap();
            number /= 128;
            bytes.push(if number > 0 { low | 0x80 } else { low });
            if number == 0 {
                return bytes;
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Packets with any properties, whole and with some bytes changed, are read as the reference reads
        /// them, or refused as it does.
        #[test]
        fn what_is_read_is_what_the_reference_reads(
            flags in (0u8..4, any::<bool>(), any::<bool>(), 0u16..3),
            topic in text(),
            properties in proptest::collection::vec(property(), 0..5),
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            cut in 0usize..3,
        ) {
            let mut packet = packet(flags, &topic, properties, &payload);
            compare(&packet);
            packet.truncate(packet.len() - cut);
            for (at, byte) in changes {
                let at = 1 + at.index(packet.len() - 1); // it stays a PUBLISH
                packet[at] = byte;
            }
            compare(&packet);
        }
    }

    #[test]
    fn what_a_packet_may_not_have_is_refused() {
        for packet in [
            &[][..],
            &[0x30],
            &[0x30, 0],
            &[0x30, 0x80],
            &[0x30, 3, 0, 0, 0],                   // no topic
            &[0x30, 5, 0, 2, b'a', 0, 0],          // one with a NUL
            &[0x38, 4, 0, 1, b'a', 0],             // sent again without an id
            &[0x32, 6, 0, 1, b'a', 0, 0, 0],       // the id 0
            &[0x30, 7, 0, 1, b'a', 3, 0x23, 0, 1], // an alias
            &[0x30, 8, 0, 1, b'a', 4, 1, 1, 1, 1], // a format twice
            &[0x30, 6, 0, 1, b'a', 2, 1, 2],       // one that is neither
            &[0x30, 5, 0, 1, b'a', 0x80, 0],       // a length of two bytes, of which one is nothing
            &[0x30, 6, 0, 1, b'a', 2, 0x0b, 0],    // the subscription 0
            &[0x30, 0, 0, 1, b'a', 0],             // longer than it says
            &[0x30, 9, 0, 1, b'a', 0],             // shorter
        ] {
            assert!(read_publish(packet).is_err(), "{packet:x?}");
            if !packet.is_empty() {
                compare(packet);
            }
        }
    }
}
