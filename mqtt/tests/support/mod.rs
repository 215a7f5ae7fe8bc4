//! A broker in memory for applications in memory: all of them under one virtual time, which the test moves.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "shared by several test crates")]

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::rc::Rc;
use std::time::Duration;

use flowsdk::mqtt_serde::control_packet::{MqttControlPacket, MqttPacket};
use flowsdk::mqtt_serde::mqttv5::Property;
use flowsdk::mqtt_serde::mqttv5::connack::MqttConnAck;
use flowsdk::mqtt_serde::mqttv5::pingresp::MqttPingResp;
use flowsdk::mqtt_serde::mqttv5::puback::MqttPubAck;
use flowsdk::mqtt_serde::mqttv5::publish::MqttPublish;
use flowsdk::mqtt_serde::mqttv5::suback::MqttSubAck;
use flowsdk::mqtt_serde::mqttv5::subscribe::TopicSubscription;
use flowsdk::mqtt_serde::mqttv5::unsuback::MqttUnsubAck;
use flowsdk::mqtt_serde::mqttv5::will::Will;
use flowsdk::mqtt_serde::parser::stream::MqttParser;
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow, Taken};
use wirewheel::message::{MessageBuf, Payload};
use wirewheel::testing::{FarServer, Stream, TestApplication};
use wirewheel::{Application, Limits, WebSockets};
use wirewheel_mqtt::{Change, Link, RunningLink};

/// One box: an application with a link.
pub struct Site {
    pub app: TestApplication,
    pub far: FarServer,
    pub link: RunningLink,
    pub room: SharedFlow<MessageBuf>,
    pub gauges: SharedFlow<MessageBuf>,
    /// What a reader of the room has got, and what was missed before each.
    pub heard: Rc<RefCell<Vec<(MessageBuf, u64)>>>,
    pub changes: Rc<RefCell<Vec<String>>>,
}

pub fn plain(link: Link) -> Link {
    link
}

impl Site {
    pub fn new(change: impl FnOnce(Link) -> Link) -> Self {
        let policy = FlowOptions::new().extra_buffer(64);
        Self::with(policy.on_buffer_overflow(BufferOverflow::DropOldest), change)
    }

    /// A box whose room has these options.
    pub fn with(options: FlowOptions, change: impl FnOnce(Link) -> Link) -> Self {
        Self::within(Limits::new(), options, change)
    }

    /// One whose server has these limits.
    pub fn within(limits: Limits, options: FlowOptions, change: impl FnOnce(Link) -> Link) -> Self {
        let (mut started, mut flows) = (None, None);
        let (heard, changes) = (Rc::<RefCell<Vec<_>>>::default(), Rc::<RefCell<Vec<_>>>::default());
        let (into, changed) = (Rc::clone(&heard), Rc::clone(&changes));
        let app = TestApplication::new(|app: &mut Application| {
            app.install(WebSockets::new().limits(limits));
            let room: SharedFlow<MessageBuf> = app.flow_of(options);
            let latest = FlowOptions::new().extra_buffer(64);
            let gauges: SharedFlow<MessageBuf> =
                app.flow_of(latest.on_buffer_overflow(BufferOverflow::Latest));
            app.read_flow(&room, move |_, batch| {
                for offered in batch {
                    let message = MessageBuf::from(offered.message());
                    into.borrow_mut().push((message, offered.missed()));
                }
                Taken::Yes
            });
            let link = Link::to("mqtt://broker.test")
                .prefix("hall/")
                .share(&room, "room")
                .share_latest(&gauges, "gauges")
                .on_change(move |_, change| {
                    changed.borrow_mut().push(match change {
                        Change::Up => "up".to_owned(),
                        Change::Down(why) => why.clone(),
                    });
                });
            started = Some(change(link).start(app).unwrap());
            flows = Some((room, gauges));
        })
        .unwrap();
        let far = app.far_server("broker.test", 1883);
        let (room, gauges) = flows.unwrap();
        Self { app, far, link: started.unwrap(), room, gauges, heard, changes }
    }

    pub fn say(&self, message: impl Into<MessageBuf>) {
        let message = message.into();
        self.app.with_server(|_| self.room.emit(&message)).unwrap();
    }

    pub fn set(&self, key: &str, value: &str) {
        self.app.with_server(|_| self.gauges.emit_latest(key, &value.into())).unwrap();
    }

    pub fn remove(&self, key: &str) {
        assert!(self.app.with_server(|_| self.gauges.remove(key)), "{key} has a value");
    }

    pub fn value(&self, key: &str) -> Option<String> {
        self.gauges.get(key).map(|value| text_of(&value))
    }

    /// All keys that have a value.
    pub fn values(&self) -> BTreeMap<String, String> {
        self.gauges.newest().map(|(key, value)| (key.to_string(), text_of(&value))).collect()
    }

    /// What has been heard since this was last asked.
    pub fn heard(&self) -> Vec<String> {
        self.heard.take().iter().map(|(message, _)| text_of(message)).collect()
    }

    /// The same with what was missed in all.
    pub fn heard_and_missed(&self) -> (Vec<String>, u64) {
        let heard = self.heard.take();
        let missed = heard.iter().map(|(_, missed)| missed).sum();
        (heard.iter().map(|(message, _)| text_of(message)).collect(), missed)
    }

    pub fn changes(&self) -> Vec<String> {
        self.changes.take()
    }
}

pub fn text_of(message: &MessageBuf) -> String {
    match message.as_message().payload() {
        Payload::Text(text) => text.to_owned(),
        Payload::Binary(bytes) => format!("{bytes:?}"),
    }
}

/// A broker of MQTT 5, as far as links need one.
#[derive(Default)]
pub struct Broker {
    pub clients: Vec<Client>,
    pub retained: BTreeMap<String, MqttPublish>,
    pub receive_maximum: Option<u16>,
    pub max_packet: Option<u32>,
    /// It accepts nobody.
    pub is_down: bool,
    /// Every message goes out twice, as a broker may with QoS 1.
    pub repeats: bool,
    /// How many messages with QoS 1 a client may have that it has not acknowledged: others wait, and those
    /// with QoS 0 go past them.
    pub in_flight: Option<usize>,
    pub connections: usize,
}

pub struct Client {
    stream: Stream,
    parser: MqttParser,
    unsent: Vec<u8>,
    pub site: usize,
    pub id: String,
    filters: Vec<TopicSubscription>,
    will: Option<Will>,
    next_id: u16,
    in_flight: Option<usize>,
    unacknowledged: usize,
    waiting: VecDeque<(MqttPublish, bool)>,
    /// It has not been heard for a while, by the test's will.
    pub is_stalled: bool,
    pub is_over: bool,
}

impl Broker {
    /// Accepts who has connected, and does what all ask for, until nothing moves.
    pub fn settle(&mut self, sites: &[&Site]) {
        loop {
            let mut moved = false;
            for (number, site) in sites.iter().enumerate() {
                while let Some(connection) = site.far.next_connection() {
                    moved = true;
                    let stream = connection.into_client().into_stream();
                    if self.is_down {
                        continue; // it hangs up
                    }
                    self.connections += 1;
                    let mut client = Client::new(stream, number);
                    client.in_flight = self.in_flight;
                    self.clients.push(client);
                }
            }
            for at in 0..self.clients.len() {
                moved |= self.serve(at);
            }
            let all = std::mem::take(&mut self.clients);
            let (over, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|client| client.is_over);
            self.clients = left;
            for client in over {
                moved = true;
                if let Some(will) = client.will {
                    let message = MqttPublish::new(
                        0,
                        will.will_topic,
                        None,
                        will.will_message,
                        will.will_retain,
                        false,
                    );
                    self.publish(None, message);
                }
            }
            if !moved {
                break;
            }
        }
    }

    /// Moves the time of all in small steps.
    pub fn advance(&mut self, sites: &[&Site], time: Duration) {
        let step = Duration::from_millis(50);
        let mut left = time;
        loop {
            self.settle(sites);
            if left.is_zero() {
                return;
            }
            sites.iter().for_each(|site| site.app.advance(step.min(left)));
            left = left.saturating_sub(step);
        }
    }

    /// All are connected.
    #[track_caller]
    pub fn connect_all(&mut self, sites: &[&Site]) {
        for _ in 0..100 {
            self.advance(sites, Duration::from_millis(100));
            if sites.iter().all(|site| site.link.is_up()) {
                return;
            }
        }
        panic!("not all are up");
    }

    /// It is killed: what was on its way to it is lost, and what it kept stays.
    pub fn kill(&mut self) {
        self.is_down = true;
        self.clients.clear();
    }

    /// What a client that is no link publishes.
    pub fn publish_as_foreigner(&mut self, topic: &str, payload: &[u8], retain: bool) {
        let message = MqttPublish::new(0, topic.to_owned(), None, payload.to_vec(), retain, false);
        self.publish(None, message);
    }

    fn serve(&mut self, at: usize) -> bool {
        let client = &mut self.clients[at];
        if client.is_stalled || client.is_over {
            return false;
        }
        client.flush();
        let mut moved = client.read();
        loop {
            let packet = match self.clients[at].parser.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(error) => panic!("a link sends what is no packet: {error}"),
            };
            moved = true;
            self.take(at, packet);
        }
        self.clients[at].flush();
        moved
    }

    fn take(&mut self, at: usize, packet: MqttPacket) {
        match packet {
            MqttPacket::Connect5(connect) => {
                let mut properties = Vec::new();
                properties.extend(self.receive_maximum.map(Property::ReceiveMaximum));
                properties.extend(self.max_packet.map(Property::MaximumPacketSize));
                // Another connection of that client is over, and nothing of it is read any more.
                let others = self.clients.iter_mut().filter(|it| it.id == connect.client_id);
                others.for_each(|other| other.is_over = true);
                let client = &mut self.clients[at];
                (client.id, client.will) = (connect.client_id, connect.will);
                client.send(&MqttConnAck::new(false, 0, Some(properties)));
            }
            MqttPacket::Subscribe5(subscribe) => {
                let codes = subscribe.subscriptions.iter().map(|filter| filter.qos).collect();
                self.clients[at].send(&MqttSubAck::new(subscribe.packet_id, codes, Vec::new()));
                for filter in subscribe.subscriptions {
                    let kept = self.retained.values().filter(|message| {
                        filter.retain_handling == 0
                            && matches(&filter.topic_filter, &message.topic_name)
                    });
                    let kept: Vec<MqttPublish> = kept.cloned().collect();
                    let client = &mut self.clients[at];
                    let is_local = |message: &MqttPublish| {
                        filter.no_local && owner_of(message) == Some(client.id.clone())
                    };
                    let kept: Vec<_> = kept.into_iter().filter(|it| !is_local(it)).collect();
                    for mut message in kept {
                        strip(&mut message);
                        client.deliver(message, filter.qos, true, false);
                    }
                    client.filters.push(filter);
                }
            }
            MqttPacket::Unsubscribe5(unsubscribe) => {
                let client = &mut self.clients[at];
                client.filters.retain(|it| !unsubscribe.topic_filters.contains(&it.topic_filter));
                client.send(&MqttUnsubAck::new(unsubscribe.packet_id, vec![0], Vec::new()));
            }
            MqttPacket::Publish5(message) => {
                if let Some(id) = message.packet_id {
                    self.clients[at].send(&MqttPubAck::new_success(id));
                }
                self.publish(Some(at), message);
            }
            MqttPacket::PubAck5(_) => self.clients[at].acknowledged(),
            MqttPacket::PingReq5(_) => self.clients[at].send(&MqttPingResp::new()),
            MqttPacket::Disconnect5(_) => {
                (self.clients[at].is_over, self.clients[at].will) = (true, None);
            }
            other => panic!("a link sends {other:?}"),
        }
    }

    fn publish(&mut self, from: Option<usize>, message: MqttPublish) {
        if message.retain {
            let mut kept = message.clone();
            if let Some(from) = from {
                // Who has published it does not get it back.
                let owner = Property::ContentType(self.clients[from].id.clone());
                kept.properties.push(owner);
            }
            match message.payload.is_empty() {
                true => drop(self.retained.remove(&message.topic_name)),
                false => drop(self.retained.insert(message.topic_name.clone(), kept)),
            }
        }
        for (at, client) in self.clients.iter_mut().enumerate() {
            let filter = client.filters.iter().find(|filter| {
                matches(&filter.topic_filter, &message.topic_name)
                    && !(filter.no_local && from == Some(at))
            });
            if let Some(qos) = filter.map(|filter| filter.qos) {
                client.deliver(message.clone(), qos.min(message.qos), false, self.repeats);
            }
        }
    }
}

fn owner_of(message: &MqttPublish) -> Option<String> {
    message.properties.iter().find_map(|property| match property {
        Property::ContentType(owner) => Some(owner.clone()),
        _ => None,
    })
}

fn strip(message: &mut MqttPublish) {
    message.properties.retain(|property| !matches!(property, Property::ContentType(_)));
}

fn matches(filter: &str, topic: &str) -> bool {
    match filter.strip_suffix("/#") {
        Some(above) => {
            topic == above || topic.strip_prefix(above).is_some_and(|it| it.starts_with('/'))
        }
        None => filter == topic,
    }
}

impl Client {
    fn new(stream: Stream, site: usize) -> Self {
        Self {
            stream,
            parser: MqttParser::new(1024, 5),
            unsent: Vec::new(),
            site,
            id: String::new(),
            filters: Vec::new(),
            will: None,
            next_id: 0,
            in_flight: None,
            unacknowledged: 0,
            waiting: VecDeque::new(),
            is_stalled: false,
            is_over: false,
        }
    }

    fn read(&mut self) -> bool {
        let (mut buffer, mut moved) = ([0; 4096], false);
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.is_over = true;
                    return moved;
                }
                Ok(length) => self.parser.feed(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return moved,
                Err(_) => {
                    self.is_over = true;
                    return moved;
                }
            }
            moved = true;
        }
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(length) => drop(self.unsent.drain(..length)),
                Err(_) => return,
            }
        }
    }

    fn deliver(&mut self, message: MqttPublish, qos: u8, retain: bool, twice: bool) {
        let message = MqttPublish { qos, retain, dup: false, ..message };
        if qos == 0 {
            return self.send(&message);
        }
        self.waiting.push_back((message, twice));
        self.send_waiting();
    }

    fn send_waiting(&mut self) {
        while self.in_flight.is_none_or(|most| self.unacknowledged < most) {
            let Some((mut message, twice)) = self.waiting.pop_front() else { return };
            self.next_id = self.next_id.checked_add(1).unwrap_or(1);
            message.packet_id = Some(self.next_id);
            for dup in [false, true].into_iter().take(1 + usize::from(twice)) {
                message.dup = dup;
                self.unacknowledged += 1;
                self.send(&message);
            }
        }
    }

    fn acknowledged(&mut self) {
        self.unacknowledged -= 1;
        self.send_waiting();
    }

    pub fn send(&mut self, packet: &impl MqttControlPacket) {
        let mut bytes = Vec::new();
        packet.encode_to_buffer(&mut bytes).unwrap();
        self.send_bytes(&bytes);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        if !self.is_stalled {
            self.flush();
        }
    }
}
