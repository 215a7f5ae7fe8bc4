//! A descriptor of one's own on the loop: lines of a serial port go to everybody who is connected,
//! and what they send goes to the port. No thread, no polling.
//!
//! Run it with `cargo run --release --example serial -- 127.0.0.1:8080 /dev/ttyUSB0` (set the speed
//! before: `stty -F /dev/ttyUSB0 115200`). Without a port a pseudo-terminal stands in: the program
//! says where its other side is, and `cat` and `echo` there are the device.
//!
//! A port that takes no more slows down whoever sends to it: their sessions are paused, and so their
//! own connections hold them back. A port that is unplugged ends the program with 1012 to everybody and
//! status 1, and whatever supervises it starts it again.
#![allow(clippy::print_stdout, reason = "an example talks to its user")]

use std::cell::RefCell;
use std::error::Error;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use wirewheel::error::ConfigError;
use wirewheel::flow::{BufferOverflow, FlowOptions, SharedFlow};
use wirewheel::watch::{Ready, Watch};
use wirewheel::{
    Application, Call, CloseCode, CloseReason, Handler, HandlerResult, Message, Server, ServerRef,
    Session, SessionId, WebSockets,
};

const MAX_LINE_BYTES: usize = 1 << 10;
/// What may wait for a port that takes nothing, of whoever comes and goes.
const MAX_WAITING_BYTES: usize = 64 << 10;

/// Opens a port that never waits, and takes the bytes as they are.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let flags = i32::try_from(flags).map_err(io::Error::other)?;
    let port = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
    let mut attributes = tcgetattr(&port)?;
    attributes.make_raw();
    tcsetattr(&port, OptionalActions::Now, &attributes)?;
    Ok(port)
}

/// The other side of the stand-in, which is kept open so that the line does not hang up whenever
/// nobody else holds it.
struct Device {
    name: String,
    _held: File,
}

fn stand_in() -> io::Result<(File, Device)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&ours)?;
    unlockpt(&ours)?;
    let name = ptsname(&ours, Vec::new())?;
    let name = name.into_string().map_err(io::Error::other)?;
    let held = open(Path::new(&name))?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((File::from(ours), Device { name, _held: held }))
}

/// What is to be written to the port, and who waits for that.
struct Output {
    port: File,
    waiting: Vec<u8>,
    paused: Vec<SessionId>,
    is_gone: bool,
}

impl Output {
    /// Writes what the port takes; false if it does not take all.
    fn flush(&mut self) -> io::Result<bool> {
        while !self.waiting.is_empty() {
            match self.port.write(&self.waiting) {
                Ok(written) => drop(self.waiting.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Reads what is there and publishes the lines that are whole.
fn read_lines(port: &mut File, begun: &mut Vec<u8>, lines: &SharedFlow) -> io::Result<()> {
    let mut buffer = [0; MAX_LINE_BYTES];
    let count = match port.read(&mut buffer) {
        Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
        Ok(count) => count,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => 0,
        Err(error) => return Err(error),
    };
    for byte in buffer.iter().take(count) {
        if *byte == b'\n' || begun.len() == MAX_LINE_BYTES {
            let line = String::from_utf8_lossy(begun).trim_end().to_owned();
            let _ = lines.emit(&line); // no room: as if the line had not come
            begun.clear();
        }
        if *byte != b'\n' {
            begun.push(*byte);
        }
    }
    Ok(())
}

/// Nothing can be done without the port.
fn port_is_gone(server: &mut ServerRef<'_>, output: &mut Output, error: &io::Error) -> Watch {
    println!("the port is gone: {error}");
    output.is_gone = true;
    server.shutdown_for_restart(Duration::from_secs(1));
    Watch::Stop
}

/// A session: gets every line, writes a line to the port for every message.
struct Terminal {
    lines: SharedFlow,
    output: Rc<RefCell<Output>>,
}

impl Handler for Terminal {
    fn on_connect(&mut self, session: &mut Session<'_>, _call: &Call) -> HandlerResult {
        session.collect(&self.lines)
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let mut output = self.output.borrow_mut();
        let was_waiting = !output.waiting.is_empty();
        if output.waiting.len() > MAX_WAITING_BYTES {
            return session
                .close(CloseReason::new(CloseCode::TRY_AGAIN_LATER, "it takes nothing")?);
        }
        output.waiting.extend_from_slice(message.bytes());
        output.waiting.push(b'\n');
        if output.flush()? {
            return Ok(());
        }
        session.pause(); // at most one message of each session waits
        output.paused.push(session.id());
        if !was_waiting {
            let waited_for = output.port.try_clone()?;
            let output = Rc::clone(&self.output);
            session.server().watch(waited_for, Ready::WRITABLE, move |server, _, _| {
                let mut output = output.borrow_mut();
                match output.flush() {
                    Ok(false) => return Watch::For(Ready::WRITABLE),
                    Ok(true) => {}
                    Err(error) => return port_is_gone(server, &mut output, &error),
                }
                for id in output.paused.drain(..) {
                    let _ = server.resume(id); // one that is gone needs it no more
                }
                Watch::Stop
            });
        }
        Ok(())
    }
}

fn module(
    app: &mut Application,
    port: File,
    output: Rc<RefCell<Output>>,
) -> Result<(), ConfigError> {
    app.install(WebSockets::new().max_frame_size(MAX_LINE_BYTES));
    let options = FlowOptions::new().extra_buffer(256);
    let lines: SharedFlow =
        SharedFlow::with(options.on_buffer_overflow(BufferOverflow::DropOldest))?;
    let (read, mut begun, reading) = (lines.clone(), Vec::new(), Rc::clone(&output));
    app.watch(port, Ready::READABLE, move |server, port, _ready| {
        match read_lines(port, &mut begun, &read) {
            Ok(()) => Watch::For(Ready::READABLE),
            Err(error) => port_is_gone(server, &mut reading.borrow_mut(), &error),
        }
    });
    app.routing(|route| {
        route.web_socket("/", move |_call: &Call| Terminal {
            lines: lines.clone(),
            output: Rc::clone(&output),
        });
    });
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    env_logger::init();
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_else(|| "127.0.0.1:8080".into());
    let port = words.next();
    let opened = match &port {
        Some(path) => open(Path::new(path)).map(|port| (port, None)),
        None => stand_in().map(|(port, device)| (port, Some(device))),
    };
    let (port, device) = opened?;
    let (waiting, paused) = (Vec::new(), Vec::new());
    let output = Output { port: port.try_clone()?, waiting, paused, is_gone: false };
    let output = Rc::new(RefCell::new(output));
    let of_server = Rc::clone(&output);
    let server = Server::bind(address.as_str(), move |app: &mut Application| {
        module(app, port, of_server).expect("constant options that fit");
    })?;
    println!("listening on http://{}", server.local_addr());
    if let Some(device) = &device {
        println!("no port given; {} is the device", device.name);
    }
    let _ = io::stdout().flush();
    server.run()?;
    match output.borrow().is_gone {
        true => Err("the port is gone".into()), // so that whoever supervises it knows
        false => Ok(()),
    }
}
