//! The codec on the packets of the crate `flowsdk`.

use flowsdk::mqtt_serde::control_packet::{MqttControlPacket, MqttPacket};
use flowsdk::mqtt_serde::mqttv5::Property;
use flowsdk::mqtt_serde::mqttv5::connack::MqttConnAck;
use flowsdk::mqtt_serde::mqttv5::connect::MqttConnect;
use flowsdk::mqtt_serde::mqttv5::disconnect::MqttDisconnect;
use flowsdk::mqtt_serde::mqttv5::pingreq::MqttPingReq;
use flowsdk::mqtt_serde::mqttv5::pingresp::MqttPingResp;
use flowsdk::mqtt_serde::mqttv5::puback::MqttPubAck;
use flowsdk::mqtt_serde::mqttv5::publish::MqttPublish;
use flowsdk::mqtt_serde::mqttv5::suback::MqttSubAck;
use flowsdk::mqtt_serde::mqttv5::subscribe::{MqttSubscribe, TopicSubscription};
use flowsdk::mqtt_serde::mqttv5::unsuback::MqttUnsubAck;
use flowsdk::mqtt_serde::mqttv5::unsubscribe::MqttUnsubscribe;
use flowsdk::mqtt_serde::mqttv5::will::Will;
use flowsdk::mqtt_serde::parser::ParseOk;

use crate::packet::{
    Codec, Filter, Incoming, NUMBER, Outgoing, Publish, is_older_refusal, is_publish,
};
use crate::publish::read_publish;

pub(crate) struct FlowSdk;

/// Acknowledgements that a broker may await of us.
const RECEIVE_MAXIMUM: u16 = 1024;

impl Codec for FlowSdk {
    fn encode(&self, packet: &Outgoing<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        let encoded = match packet {
            Outgoing::Connect { .. } => connect(packet).encode_to_buffer(out),
            Outgoing::Subscribe { id, filters } => {
                let filters = filters.iter().map(subscription).collect();
                MqttSubscribe::new(*id, filters, Vec::new()).encode_to_buffer(out)
            }
            Outgoing::Unsubscribe { id, filter } => {
                MqttUnsubscribe::new(*id, vec![(*filter).to_owned()], Vec::new())
                    .encode_to_buffer(out)
            }
            Outgoing::Publish(message) => publish(message).encode_to_buffer(out),
            Outgoing::Acknowledge(id) => MqttPubAck::new_success(*id).encode_to_buffer(out),
            Outgoing::Ping => MqttPingReq::new().encode_to_buffer(out),
            Outgoing::Disconnect => MqttDisconnect::new_normal().encode_to_buffer(out),
        };
        encoded.map_err(|error| error.to_string())
    }

    fn decode<'a>(&self, bytes: &'a [u8]) -> Result<Incoming<'a>, String> {
        if is_publish(bytes) {
            return Ok(Incoming::Message(read_publish(bytes)?));
        }
        if let [0x40, behind @ ..] = bytes {
            return acknowledged(behind);
        }
        if is_older_refusal(bytes) {
            return Ok(Incoming::Refused(0x84, "it speaks MQTT 3.1.1 and not 5".into()));
        }
        // Of the others, which no broker sends, the readers would be in each program.
        let read = match bytes.first().map_or(0, |first| first >> 4) {
            2 => MqttConnAck::from_bytes(bytes),
            9 => MqttSubAck::from_bytes(bytes),
            11 => MqttUnsubAck::from_bytes(bytes),
            13 => MqttPingResp::from_bytes(bytes),
            14 => MqttDisconnect::from_bytes(bytes),
            other => return Err(format!("a packet of type {other} is not for a client")),
        };
        match read {
            Ok(ParseOk::Packet(packet, length)) if length == bytes.len() => incoming(packet),
            Ok(_) => Err("a packet is longer or shorter than it says".into()),
            Err(error) => Err(error.to_string()),
        }
    }
}

fn connect(packet: &Outgoing<'_>) -> MqttConnect {
    let Outgoing::Connect {
        client_id,
        user,
        password,
        keep_alive_seconds,
        will_topic,
        at_least_once,
        max_packet_bytes,
    } = *packet
    else {
        return MqttConnect::new(String::new(), None, None, None, 0, true, Vec::new());
    };
    // MQTT 5 section 3.2.2.3.4: a broker refuses a Will of a QoS that it does not know.
    let qos = u8::from(at_least_once);
    let will = will_topic.map(|topic| Will::new(topic.to_owned(), Vec::new(), qos, true));
    // A session of before is not gone on with: what was lost is counted, and nothing is sent twice.
    let properties = vec![
        Property::ReceiveMaximum(RECEIVE_MAXIMUM),
        Property::MaximumPacketSize(max_packet_bytes),
    ];
    MqttConnect::new(
        client_id.to_owned(),
        user.map(str::to_owned),
        password.map(<[u8]>::to_vec),
        will,
        keep_alive_seconds,
        true,
        properties,
    )
}

fn subscription(filter: &Filter) -> TopicSubscription {
    // MQTT 5 section 3.8.3.1: No Local, so that nothing comes back, but of newest values: of two boxes that
    // say one, all are to see the last one last, as the broker does. The retain flag is on what was kept
    // alone.
    let (no_local, handling) = if filter.retained { (false, 0) } else { (true, 2) };
    TopicSubscription::new(
        filter.topic.clone(),
        u8::from(filter.at_least_once),
        no_local,
        false,
        handling,
    )
}

fn publish(message: &Publish<'_>) -> MqttPublish {
    let mut properties = vec![Property::PayloadFormatIndicator(u8::from(message.is_text))];
    if let Some(number) = message.number {
        properties.push(Property::UserProperty(NUMBER.into(), number.into()));
    }
    MqttPublish::new_with_prop(
        u8::from(message.id.is_some()),
        message.topic.to_owned(),
        message.id,
        message.payload.to_vec(),
        message.retain,
        false,
        properties,
    )
}

fn incoming(packet: MqttPacket) -> Result<Incoming<'static>, String> {
    Ok(match packet {
        MqttPacket::ConnAck5(answer) if answer.reason_code >= 0x80 => {
            Incoming::Refused(answer.reason_code, reason(answer.properties.unwrap_or_default()))
        }
        MqttPacket::ConnAck5(answer) => connected(answer),
        MqttPacket::SubAck5(answer) => Incoming::Subscribed {
            id: answer.packet_id,
            granted: answer.reason_codes.iter().map(|code| *code < 0x80).collect(),
        },
        MqttPacket::UnsubAck5(_) => Incoming::Unsubscribed,
        MqttPacket::PingResp5(_) => Incoming::Pong,
        MqttPacket::Disconnect5(end) => Incoming::Refused(end.reason_code, reason(end.properties)),
        _ => return Err("a packet is none that it says it is".into()),
    })
}

fn connected(answer: MqttConnAck) -> Incoming<'static> {
    let (mut receive_maximum, mut keep_alive_seconds) = (u16::MAX, None);
    let (mut max_packet_bytes, mut max_at_least_once, mut retains) = (usize::MAX, true, true);
    for property in answer.properties.unwrap_or_default() {
        match property {
            Property::ReceiveMaximum(most) => receive_maximum = most,
            Property::ServerKeepAlive(seconds) => keep_alive_seconds = Some(seconds),
            Property::MaximumPacketSize(bytes) => {
                max_packet_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            }
            Property::MaximumQoS(most) => max_at_least_once = most > 0,
            Property::RetainAvailable(is) => retains = is > 0,
            _ => {}
        }
    }
    Incoming::Connected {
        receive_maximum,
        keep_alive_seconds,
        max_packet_bytes,
        max_at_least_once,
        retains,
    }
}

/// A PUBACK (MQTT 5 section 3.4), behind its first byte. Any reason may be in it: flowsdk takes those of the
/// standard alone, and mosquitto has another for a message that is too large.
fn acknowledged(bytes: &[u8]) -> Result<Incoming<'static>, String> {
    let length_bytes = 1 + bytes.iter().take_while(|byte| **byte & 0x80 > 0).count();
    match bytes.get(length_bytes..).unwrap_or_default() {
        [high, low, behind @ ..] => Ok(Incoming::Acknowledged {
            id: u16::from_be_bytes([*high, *low]),
            is_taken: behind.first().is_none_or(|reason| *reason < 0x80),
        }),
        _ => Err("an acknowledgement of nothing".into()),
    }
}

/// What the broker says in words, where it does.
fn reason(properties: Vec<Property>) -> String {
    let words = properties.into_iter().find_map(|property| match property {
        Property::ReasonString(words) => Some(words),
        _ => None,
    });
    words.unwrap_or_default()
}
