//! What a broker may send, whatever it is: for the fuzzer and for random tests.
#![allow(unreachable_pub, reason = "shared by several crates")]

use std::io::Write;
use std::time::Duration;

use wirewheel::Application;
use wirewheel::flow::{BufferOverflow, FlowOptions};
use wirewheel::testing::TestApplication;
use wirewheel_mqtt::Link;

const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];
const SUBACK: &[u8] = &[0x90, 5, 0, 1, 0, 0, 0];

/// Has a link hear these bytes, of which the first says how far the broker has come before and in which
/// pieces the rest comes. The box goes on whatever they are.
pub fn hear(data: &[u8]) {
    let Some((first, bytes)) = data.split_first() else { return };
    let mut flow = None;
    let app = TestApplication::new(|app: &mut Application| {
        let options = FlowOptions::new().extra_buffer(8);
        let room = app.flow(options.on_buffer_overflow(BufferOverflow::DropOldest));
        let gauges = app.flow(options.on_buffer_overflow(BufferOverflow::Latest));
        let link = Link::to("mqtt://broker.test").max_packet(4 << 10).at_least_once(first & 4 > 0);
        let link = link.share(&room, "a").share_latest(&gauges, "b");
        link.start(app).expect("it has a broker and topics");
        flow = Some(room);
    })
    .expect("it is in order");
    let far = app.far_server("broker.test", 1883);
    let connection = far.expect_connection_within(Duration::from_secs(5));
    let mut stream = connection.into_client().into_stream();
    for before in [CONNACK, SUBACK].into_iter().take(usize::from(first & 3)) {
        let _ = stream.write_all(before);
    }
    let room = flow.expect("the module has run");
    for piece in bytes.chunks(usize::from(first >> 3) * 8 + 1) {
        let _ = stream.write_all(piece);
        app.with_server(|_| room.emit("said here")).expect("there is room");
    }
    app.advance(Duration::from_secs(30));
    assert!(app.stats().bytes_held < 100 << 10, "{}", app.stats().bytes_held);
    drop(stream);
    far.expect_connection_within(Duration::from_secs(120));
}
