//! The gateway in memory, under virtual time, with a cloud that fails in every way; and over real sockets.

use std::io::Write;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message as Frame, WebSocket};
use wirewheel::flow::FlowKey;
use wirewheel::options::ListenOptions;
use wirewheel::testing::{Ending, FarServer, Received, TestApplication, TestClient};
use wirewheel::{Application, Call, CloseCode, Handle, Server, WebSockets, on_message};

use super::gateway::{COMMAND_TIMEOUT, Config, module, read_serial};

const PATIENCE: Duration = Duration::from_secs(30);
/// The longest that a dialer waits between two attempts.
const LARGEST_DELAY: Duration = Duration::from_secs(61);

fn config(cloud: Option<&str>) -> Config {
    Config { token: "secret".into(), cloud: cloud.map(str::to_owned), serial: None }
}

/// A gateway, and its flow as other threads name it.
fn gateway_of(config: Config) -> (TestApplication, FlowKey<str>) {
    let mut key = None;
    let app = TestApplication::new(|app| key = Some(module(app, config))).unwrap();
    (app, key.unwrap())
}

fn gateway() -> TestApplication {
    gateway_of(config(None)).0
}

/// A gateway, and the server that plays its cloud.
fn gateway_with_cloud() -> (TestApplication, FarServer) {
    let (app, _) = gateway_of(config(Some("ws://cloud.example/gateways/7")));
    let cloud = app.far_server("cloud.example", 80);
    (app, cloud)
}

fn device(app: &TestApplication, name: &str) -> TestClient {
    let upgrade = app.upgrade(&format!("/devices/{name}"));
    upgrade.header("Authorization", "Bearer secret").connect().unwrap().0
}

fn report(device: &mut TestClient, sensor: &str, value: f64) {
    device.send(json!({"type": "reading", "sensor": sensor, "value": value}).to_string());
}

fn reading(device: &str, sensor: &str, value: f64) -> Value {
    json!({"type": "reading", "device": device, "sensor": sensor, "value": value})
}

#[track_caller]
fn next(client: &mut TestClient) -> Value {
    match client.receive() {
        Some(Received::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("no text but {other:?}"),
    }
}

#[test]
fn pages() {
    let app = gateway();
    assert_eq!(app.get("/healthz").text(), "ok");
    assert_eq!(app.get("/").header("content-type"), Some("text/html; charset=utf-8"));
    let _device = device(&app, "bed-1");
    app.advance(Duration::from_millis(1100));
    let text = app.get("/metrics").text().to_owned();
    for line in ["uplink_devices_open 1\n", "uplink_cloud_open 0\n", "wirewheel_sessions_open 1\n"]
    {
        assert!(text.contains(line), "{line} is missing: {text}");
    }
}

#[test]
fn strangers_are_not_devices() {
    let app = gateway();
    for shown in ["", "Bearer secrex", "Bearer secret1", "Basic secret"] {
        let refused = app.upgrade("/devices/bed-1").header("Authorization", shown).connect();
        assert_eq!(refused.unwrap_err().status, 401, "{shown:?}");
    }
    // A token that was forgotten is nobody's.
    let config = Config { token: String::new(), cloud: None, serial: None };
    let open = TestApplication::new(|app: &mut Application| _ = module(app, config)).unwrap();
    assert_eq!(open.upgrade("/devices/bed-1").connect().unwrap_err().status, 401);
}

#[test]
fn a_dashboard_gets_the_newest_first_then_each_change() {
    let app = gateway();
    let mut bed = device(&app, "bed-1");
    for value in [20.0, 20.5, 21.0] {
        report(&mut bed, "air", value);
    }
    report(&mut bed, "soil", 40.0);
    let mut live = app.web_socket("/live");
    assert_eq!(next(&mut live), reading("bed-1", "air", 21.0));
    assert_eq!(next(&mut live), reading("bed-1", "soil", 40.0));
    live.expect_nothing();
    report(&mut bed, "air", 22.0);
    assert_eq!(next(&mut live), reading("bed-1", "air", 22.0));
    live.expect_nothing();
}

#[test]
fn a_slow_dashboard_holds_nobody_up() {
    let app = gateway();
    let mut bed = device(&app, "bed-1");
    let (mut slow, mut quick) = (app.web_socket("/live"), app.web_socket("/live"));
    slow.read_only(0);
    for value in 0..1000 {
        report(&mut bed, "air", value.into());
        assert_eq!(next(&mut quick), reading("bed-1", "air", value.into()));
    }
    assert!(app.stats().bytes_held < 2_000, "{}", app.stats().bytes_held);
    slow.read_on();
    assert_eq!(next(&mut slow), reading("bed-1", "air", 0.0)); // was on its way
    assert_eq!(next(&mut slow), reading("bed-1", "air", 999.0));
    slow.expect_nothing();
    slow.read_only(0);
    report(&mut bed, "air", 1.0);
    app.advance(Duration::from_secs(60));
    assert_eq!(slow.ending(), Some(Ending::Reset));
    assert_eq!(app.stats().timeouts_write, 1);
}

#[test]
fn commands_are_answered_by_who_was_asked_or_in_time_by_the_gateway() {
    let app = gateway();
    let (mut bed, mut other) = (device(&app, "bed-1"), device(&app, "bed-2"));
    let mut live = app.web_socket("/live");
    let error = |id: u64, text: &str| json!({"type": "error", "id": id, "error": text});

    live.send(r#"{"id":7,"to":"bed-1","command":"open-vent","args":{"degrees":30}}"#);
    let asked = json!({"request": 1, "command": "open-vent", "args": {"degrees": 30}});
    assert_eq!(next(&mut bed), asked);
    other.send(r#"{"type":"answer","request":1,"result":"forged"}"#);
    live.expect_nothing();
    bed.send(r#"{"type":"answer","request":1,"result":{"ok":true}}"#);
    assert_eq!(next(&mut live), json!({"type": "answer", "id": 7, "result": {"ok": true}}));
    bed.send(r#"{"type":"answer","request":1,"result":"again"}"#);
    live.expect_nothing();

    live.send(r#"{"id":8,"to":"nowhere","command":"x"}"#);
    assert_eq!(next(&mut live), error(8, "no such device"));
    live.send(r#"{"id":9,"to":"bed-1","command":"sleep"}"#);
    app.advance(COMMAND_TIMEOUT + Duration::from_millis(20));
    assert_eq!(next(&mut live), error(9, "time-out"));
    live.send(r#"{"id":10,"to":"bed-2","command":"die"}"#);
    other.reset();
    assert_eq!(next(&mut live), error(10, "the device left"));
    app.advance(Duration::from_secs(60));
    live.expect_nothing();
}

#[test]
fn no_more_commands_wait_than_there_is_room_for() {
    let app = gateway();
    let (_bed, mut live) = (device(&app, "bed-1"), app.web_socket("/live"));
    for id in 0..=256 {
        live.send(json!({"id": id, "to": "bed-1", "command": "x"}).to_string());
    }
    assert_eq!(next(&mut live), json!({"type": "error", "id": 256, "error": "too many commands"}));
    app.advance(COMMAND_TIMEOUT + Duration::from_millis(20));
    for _ in 0..256 {
        assert_eq!(next(&mut live)["error"], "time-out");
    }
}

#[test]
fn a_device_that_connects_again_takes_the_place_of_its_old_session() {
    let app = gateway();
    let (mut old, mut new) = (device(&app, "bed-1"), device(&app, "bed-1"));
    assert_eq!(old.expect_close(CloseCode::new(4000)), "connected again");
    let mut live = app.web_socket("/live");
    live.send(r#"{"id":1,"to":"bed-1","command":"x"}"#);
    assert_eq!(next(&mut new)["command"], "x");
}

#[test]
fn nonsense_from_a_device_ends_its_session() {
    let app = gateway();
    let mut bed = device(&app, "bed-1");
    bed.send("{}");
    bed.expect_close(CloseCode::NOT_CONSISTENT);
}

#[test]
fn a_stop_says_goodbye_to_all_and_to_the_cloud() {
    let (app, cloud) = gateway_with_cloud();
    let mut uplink = cloud.expect_request().accept();
    let (mut bed, mut live) = (device(&app, "bed-1"), app.web_socket("/live"));
    app.shutdown(Duration::from_secs(5));
    for client in [&mut bed, &mut live, &mut uplink] {
        client.expect_close(CloseCode::GOING_AWAY);
    }
    app.advance(Duration::from_secs(5));
    assert!(app.is_stopped());
}

#[test]
fn readings_of_the_serial_port_are_readings_like_others() {
    let (app, key) = gateway_of(config(None));
    let mut live = app.web_socket("/live");
    let long = b"soil 1 ".repeat(1_000);
    let lines = [&b"soil 41.5\nnoise\n\xff 1\nair warm\n"[..], &long, b"\nair 20\n"].concat();
    read_serial(&lines[..], &app.handle(), key);
    app.advance(Duration::ZERO);
    assert_eq!(next(&mut live), reading("serial", "soil", 41.5));
    assert_eq!(next(&mut live), reading("serial", "air", 20.0));
    live.expect_nothing();
}

#[test]
fn the_cloud_gets_the_newest_of_each_sensor_after_an_outage() {
    let (app, cloud) = gateway_with_cloud();
    let mut bed = device(&app, "bed-1");
    let request = cloud.expect_request();
    assert!(request.head().starts_with("GET /gateways/7 HTTP/1.1\r\n"));
    assert_eq!(request.header("authorization"), Some("Bearer secret"));
    let mut uplink = request.accept();
    report(&mut bed, "air", 20.0);
    assert_eq!(next(&mut uplink), reading("bed-1", "air", 20.0));

    cloud.vanish();
    uplink.reset();
    for value in 0..10_000 {
        report(&mut bed, "air", value.into());
        report(&mut bed, "soil", (value * 2).into());
    }
    app.advance(Duration::from_secs(3_600));
    assert!(app.get("/metrics").text().contains("uplink_cloud_open 0\n"));
    assert!(app.stats().bytes_held < 2_000, "{}", app.stats().bytes_held);

    cloud.listen();
    let mut uplink = cloud.expect_request_within(LARGEST_DELAY).accept();
    assert_eq!(next(&mut uplink), reading("bed-1", "air", 9_999.0));
    assert_eq!(next(&mut uplink), reading("bed-1", "soil", 19_998.0));
    uplink.expect_nothing();
    assert!(app.get("/metrics").text().contains("uplink_cloud_open 1\n"));
}

#[test]
fn no_failure_of_the_cloud_is_the_last() {
    let (app, cloud) = gateway_with_cloud();
    let mut live = app.web_socket("/live");
    let mut bed = device(&app, "bed-1");
    for answer in ["503 Busy", "401 Unauthorized", "404 Not Found", "200 OK", "500 Oops"] {
        let request = cloud.expect_request_within(LARGEST_DELAY);
        request.answer(&format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n"));
        report(&mut bed, "air", 1.0);
        assert_eq!(next(&mut live), reading("bed-1", "air", 1.0));
    }
    cloud.lose_name_server();
    app.advance(Duration::from_secs(86_400));
    cloud.name_is_known(true);
    let mut uplink = cloud.expect_request_within(LARGEST_DELAY).accept();
    assert_eq!(next(&mut uplink), reading("bed-1", "air", 1.0));
}

#[test]
fn the_cloud_commands_as_a_dashboard_does() {
    let (app, cloud) = gateway_with_cloud();
    let mut bed = device(&app, "bed-1");
    let mut uplink = cloud.expect_request().accept();
    uplink.send(r#"{"id":1,"to":"bed-1","command":"water"}"#);
    assert_eq!(next(&mut bed)["command"], "water");
    bed.send(r#"{"type":"answer","request":1,"result":"done"}"#);
    assert_eq!(next(&mut uplink), json!({"type": "answer", "id": 1, "result": "done"}));
    // What is asked just before an outage is answered to nobody.
    uplink.send(r#"{"id":2,"to":"bed-1","command":"stop"}"#);
    assert_eq!(next(&mut bed)["command"], "stop");
    uplink.reset();
    bed.send(r#"{"type":"answer","request":2,"result":"done"}"#);
    cloud.expect_request_within(LARGEST_DELAY).accept().expect_nothing();
}

/// A cloud at an address, and what it hears; it wants the token.
fn cloud_at(address: &str) -> (Handle, Receiver<String>) {
    let (tell, heard) = channel();
    let server = Server::bind_with(
        address,
        &ListenOptions::new().reuse_port(true),
        move |app: &mut Application| {
            app.install(WebSockets::new());
            app.routing(|route| {
                route.web_socket("/gateways/7", move |call: &Call| {
                    assert_eq!(call.header("authorization"), Some("Bearer secret"));
                    let tell = tell.clone();
                    on_message(move |_, message| {
                        Ok(tell.send(message.text().unwrap_or_default().to_owned())?)
                    })
                });
            });
        },
    );
    (server.unwrap().spawn().unwrap(), heard)
}

fn connect(server: &Handle, path: &str) -> WebSocket<TcpStream> {
    let mut request = format!("ws://{}{path}", server.local_addr()).into_client_request().unwrap();
    request.headers_mut().insert("Authorization", "Bearer secret".parse().unwrap());
    let stream = TcpStream::connect(server.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    tungstenite::client(request, stream).unwrap().0
}

fn read(client: &mut WebSocket<TcpStream>) -> Value {
    loop {
        if let Frame::Text(text) = client.read().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}

#[test]
fn devices_dashboards_a_thread_and_a_cloud_that_restarts_over_real_sockets() {
    let (first, heard) = cloud_at("127.0.0.1:0");
    let address = first.local_addr();
    let (mut port, reader) = UnixStream::pair().unwrap();
    let config = Config {
        serial: Some(OwnedFd::from(reader).into()),
        ..config(Some(&format!("ws://{address}/gateways/7")))
    };
    let server = Server::bind("127.0.0.1:0", move |app: &mut Application| {
        module(app, config);
    });
    let server = server.unwrap().spawn().unwrap();
    let (mut bed, mut live) = (connect(&server, "/devices/bed-1"), connect(&server, "/live"));
    let hears = |heard: &Receiver<String>| -> Value {
        serde_json::from_str(&heard.recv_timeout(PATIENCE).unwrap()).unwrap()
    };

    bed.send(Frame::text(r#"{"type":"reading","sensor":"air","value":21.5}"#)).unwrap();
    assert_eq!(read(&mut live), reading("bed-1", "air", 21.5));
    assert_eq!(hears(&heard), reading("bed-1", "air", 21.5));
    port.write_all(b"soil 40.0\n").unwrap();
    assert_eq!(read(&mut live), reading("serial", "soil", 40.0));
    assert_eq!(hears(&heard), reading("serial", "soil", 40.0));
    live.send(Frame::text(r#"{"id":1,"to":"bed-1","command":"open"}"#)).unwrap();
    assert_eq!(read(&mut bed), json!({"request": 1, "command": "open", "args": null}));
    bed.send(Frame::text(r#"{"type":"answer","request":1,"result":"done"}"#)).unwrap();
    assert_eq!(read(&mut live), json!({"type": "answer", "id": 1, "result": "done"}));

    first.shutdown(Duration::ZERO);
    first.join().unwrap();
    for value in 0..100 {
        let text = json!({"type": "reading", "sensor": "air", "value": value}).to_string();
        bed.send(Frame::text(text)).unwrap();
        assert_eq!(read(&mut live)["value"], f64::from(value));
    }
    let (second, heard) = cloud_at(&address.to_string());
    let newest = [hears(&heard), hears(&heard)];
    assert!(newest.contains(&reading("bed-1", "air", 99.0)), "{newest:?}");
    assert!(newest.contains(&reading("serial", "soil", 40.0)), "{newest:?}");

    server.shutdown(Duration::from_secs(5));
    for client in [&mut bed, &mut live] {
        assert!(client.read().unwrap().is_close());
        let _ = client.flush();
    }
    drop((bed, live));
    let drained = server.join().unwrap();
    assert_eq!((drained.clean, drained.cut), (3, 0), "device, dashboard, cloud");
    second.shutdown(Duration::ZERO);
}
