//! The gateway itself: what devices, dashboards and the cloud say, and what becomes of it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use wirewheel::auth::is_same_secret;
use wirewheel::client::{ConnectOptions, Dialer, DialerState};
use wirewheel::error::HandleError;
use wirewheel::flow::{BufferOverflow, FlowKey, FlowOptions, SharedFlow};
use wirewheel::json::JsonConverter;
use wirewheel::{
    Accept, Application, Call, CloseCode, CloseInfo, CloseReason, Handle, Handler, HandlerResult,
    Message, Response, ServerRef, Session, SessionId, Stats, TimerId, WebSockets,
};

const MAX_SENSORS: usize = 256;
const MAX_PENDING: usize = 256;
/// The most bytes of a line of the serial port.
const MAX_LINE: u64 = 256;
pub(crate) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// What the gateway is told.
pub(crate) struct Config {
    /// What devices show, and what the gateway shows the cloud.
    pub(crate) token: String,
    /// The URL of the cloud, if there is one.
    pub(crate) cloud: Option<String>,
    /// Lines such as `soil 41.5`.
    pub(crate) serial: Option<File>,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FromDevice {
    Reading { sensor: String, value: f64 },
    Answer { request: u64, result: Value },
}

#[derive(Deserialize)]
struct Command {
    id: u64,
    to: String,
    command: String,
    #[serde(default)]
    args: Value,
}

/// A command that a device has not answered yet.
struct Pending {
    dashboard: SessionId,
    id: u64,
    device: SessionId,
    timer: TimerId,
}

/// All that the sessions share; the loop is one thread.
#[derive(Default)]
struct Gateway {
    readings: SharedFlow,
    devices: RefCell<HashMap<String, SessionId>>,
    pending: RefCell<HashMap<u64, Pending>>,
    readings_total: Cell<u64>,
    requests_total: Cell<u64>,
    timeouts_total: Cell<u64>,
}

fn count(counter: &Cell<u64>) -> u64 {
    counter.set(counter.get() + 1);
    counter.get()
}

/// The key of a reading, and what is said of it.
fn reading(device: &str, sensor: &str, value: f64) -> (String, String) {
    let json = json!({"type": "reading", "device": device, "sensor": sensor, "value": value});
    (format!("{device}/{sensor}"), json.to_string())
}

/// A dashboard that is gone needs no answer.
fn answer(server: &mut ServerRef<'_>, dashboard: SessionId, answer: &Value) {
    let _ = server.send_to(dashboard, answer.to_string());
}

fn error(id: u64, text: &str) -> Value {
    json!({"type": "error", "id": id, "error": text})
}

impl Gateway {
    /// Only the device that was asked may answer.
    fn answer(&self, server: &mut ServerRef<'_>, device: SessionId, request: u64, result: &Value) {
        let mut pending = self.pending.borrow_mut();
        if pending.get(&request).is_none_or(|asked| asked.device != device) {
            return; // too late, or forged
        }
        if let Some(asked) = pending.remove(&request) {
            server.cancel_timer(asked.timer);
            let json = json!({"type": "answer", "id": asked.id, "result": result});
            answer(server, asked.dashboard, &json);
        }
    }

    fn device_left(&self, server: &mut ServerRef<'_>, name: &str, device: SessionId) {
        let mut devices = self.devices.borrow_mut();
        if devices.get(name) == Some(&device) {
            devices.remove(name);
        }
        self.pending.borrow_mut().retain(|_, asked| {
            if asked.device == device {
                server.cancel_timer(asked.timer);
                answer(server, asked.dashboard, &error(asked.id, "the device left"));
            }
            asked.device != device
        });
    }

    fn metrics(&self, stats: &Stats, cloud: Option<&Dialer>) -> String {
        let mut text = stats.prometheus();
        let is_open = cloud.is_some_and(|cloud| cloud.state() == DialerState::Open);
        for (name, kind, value) in [
            ("readings_total", "counter", self.readings_total.get()),
            ("commands_total", "counter", self.requests_total.get()),
            ("command_timeouts_total", "counter", self.timeouts_total.get()),
            ("devices_open", "gauge", self.devices.borrow().len() as u64),
            ("cloud_open", "gauge", u64::from(is_open)),
        ] {
            let _ = writeln!(text, "# TYPE uplink_{name} {kind}\nuplink_{name} {value}");
        }
        text
    }
}

struct Device {
    gateway: Rc<Gateway>,
    name: String,
}

impl Handler for Device {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        let mut devices = self.gateway.devices.borrow_mut();
        if let Some(before) = devices.insert(self.name.clone(), session.id()) {
            let reason = CloseReason::new(CloseCode::new(4000), "connected again")?;
            let _ = session.server().close(before, reason); // it may be gone already
        }
        Ok(())
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let me = session.id();
        match session.deserialize::<FromDevice>(&message)? {
            FromDevice::Reading { sensor, value } => {
                count(&self.gateway.readings_total);
                let (key, json) = reading(&self.name, &sensor, value);
                // Without room for it, as if it had not come: the next one will do.
                let _ = self.gateway.readings.emit_latest(&key, json.as_str());
            }
            FromDevice::Answer { request, result } => {
                self.gateway.answer(&mut session.server(), me, request, &result);
            }
        }
        Ok(())
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        let me = session.id();
        self.gateway.device_left(&mut session.server(), &self.name, me);
    }
}

/// Somebody who watches and commands: a page that has connected, or the cloud, which was dialled.
struct Dashboard(Rc<Gateway>);

impl Dashboard {
    /// Sends a command on; what the device answers, or that it does not, goes to who asked.
    fn command(&self, session: &mut Session<'_>, command: &Command) -> Result<(), &'static str> {
        let (gateway, dashboard, id) = (Rc::clone(&self.0), session.id(), command.id);
        let device = *gateway.devices.borrow().get(&command.to).ok_or("no such device")?;
        if gateway.pending.borrow().len() >= MAX_PENDING {
            return Err("too many commands");
        }
        let request = count(&gateway.requests_total);
        let json = json!({"request": request, "command": command.command, "args": command.args});
        let mut server = session.server();
        server.send_to(device, json.to_string()).map_err(|_| "the device is gone")?;
        let expire = move |server: &mut ServerRef<'_>| {
            if let Some(late) = gateway.pending.borrow_mut().remove(&request) {
                count(&gateway.timeouts_total);
                answer(server, late.dashboard, &error(late.id, "time-out"));
            }
        };
        let timer = server.after(COMMAND_TIMEOUT, expire).map_err(|_| "no timer")?;
        self.0.pending.borrow_mut().insert(request, Pending { dashboard, id, device, timer });
        Ok(())
    }
}

impl Handler for Dashboard {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.collect(&self.0.readings)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let command = session.deserialize::<Command>(&message)?;
        let done = self.command(session, &command);
        done.or_else(|text| session.send_serialized(&error(command.id, text)))
    }
}

/// Lets in who shows the token, in a time that does not tell how much of it was right.
fn admit(call: &Call, token: &str) -> Result<Accept, Response> {
    if call.bearer_token().is_some_and(|shown| is_same_secret(shown, token)) {
        return Ok(Accept::new());
    }
    Err(Response::text("a token, please\n").status(401).header("WWW-Authenticate", "Bearer"))
}

/// Publishes lines as they come, until the port or the server is gone.
pub(crate) fn read_serial(port: impl Read, server: &Handle, readings: FlowKey<str>) {
    let (mut port, mut line, mut is_start) = (BufReader::new(port), Vec::new(), true);
    loop {
        line.clear();
        let mut piece = port.by_ref().take(MAX_LINE);
        let Ok(1..) = piece.read_until(b'\n', &mut line) else { return };
        // A longer line comes in pieces, and none of them counts.
        let is_whole = is_start && (line.len() as u64) < MAX_LINE;
        is_start = line.ends_with(b"\n");
        let text = std::str::from_utf8(&line).unwrap_or_default();
        let Some((sensor, value)) = text.split_once(' ').filter(|_| is_whole) else { continue };
        let Ok(value) = value.trim().parse() else { continue };
        let (key, json) = reading("serial", sensor, value);
        match server.emit_latest(readings, &key, json.as_str()) {
            Ok(()) | Err(HandleError::Full) => {} // the loop is behind: this reading is left out
            Err(_) => return,
        }
    }
}

/// Sets the gateway up; the flow of its readings, as other threads name it.
pub(crate) fn module(app: &mut Application, config: Config) -> FlowKey<str> {
    app.install(WebSockets::new().content_converter(JsonConverter).max_frame_size(4 << 10));
    let options = FlowOptions::new().replay(MAX_SENSORS).on_buffer_overflow(BufferOverflow::Latest);
    let readings: SharedFlow = app.flow(options);
    let key = app.flow_key(&readings);
    if let Some(port) = config.serial {
        let (server, serial) = (app.handle(), thread::Builder::new().name("serial".into()));
        if let Err(error) = serial.spawn(move || read_serial(port, &server, key)) {
            println!("the serial port is not read: {error}");
        }
    }
    let gateway = Rc::new(Gateway { readings, ..Gateway::default() });
    let cloud = config.cloud.as_ref().map(|url| {
        let options = ConnectOptions::new()
            .header("Authorization", format!("Bearer {}", config.token))
            .content_converter(JsonConverter);
        let gateway = Rc::clone(&gateway);
        app.connect(url, options, move |_call: &Call| Dashboard(Rc::clone(&gateway)))
    });
    let stats = Rc::new(RefCell::new(Stats::default()));
    let newest = Rc::clone(&stats);
    app.every(Duration::from_secs(1), move |server| *newest.borrow_mut() = server.stats());
    let token = config.token;
    app.routing(|route| {
        route.get("/", |_call| Response::html(include_str!("page.html")));
        route.get("/healthz", |_call| "ok");
        let of_metrics = Rc::clone(&gateway);
        route.get("/metrics", move |_call| {
            Response::text(of_metrics.metrics(&stats.borrow(), cloud.as_ref()))
        });
        let of_dashboards = Rc::clone(&gateway);
        route.web_socket("/live", move |_call: &Call| Dashboard(Rc::clone(&of_dashboards)));
        let device = move |call: &Call| Device {
            gateway: Rc::clone(&gateway),
            name: call.parameter("name").unwrap_or_default().into_owned(),
        };
        route.web_socket("/devices/{name}", device).on_upgrade(move |call| admit(call, &token));
    });
    key
}
