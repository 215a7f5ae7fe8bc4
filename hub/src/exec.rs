//! Owns processes: one for each session at /exec, whose lines are the messages.

use std::cell::RefCell;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command as Spawner, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use log::{debug, info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{ioctl_fionbio, read, write};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use wirewheel::{
    Accept, Call, CloseCode, CloseInfo, CloseReason, Handler, HandlerResult, Message, Ready,
    Response, ServerRef, Session, SessionId, SharedFlow, ToMessage, Watch,
};

use crate::config::Command;

/// What is read of a process's output at once; the lines of it are the most that wait for a peer.
const CHUNK_BYTES: usize = 8 << 10;
/// How long a process has between being told to end (SIGTERM) and being ended (SIGKILL).
const TERM_TO_KILL: Duration = Duration::from_secs(5);
/// How long a process that has closed its output may take to end by itself.
const END_TO_TERM: Duration = Duration::from_secs(1);
/// The first pause before a process is looked after again; it doubles up to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_millis(5);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// What is started for each session, and what runs.
#[derive(Debug)]
pub(crate) struct Processes {
    command: Command,
    max: usize,
    /// The longest line; a longer one is sent in pieces.
    max_line: usize,
    running: RefCell<Vec<Rc<Process>>>,
}

/// A process and its pipes.
#[derive(Debug)]
struct Process {
    child: RefCell<Child>,
    /// It leads a group of its own, to which signals go.
    group: Pid,
    state: RefCell<State>,
    session: SessionId,
    /// Its lines on their way to the peer: at most a chunk of them.
    lines: SharedFlow<Line>,
}

#[derive(Debug, Default)]
struct State {
    stdin: Option<Pipe>,
    stdout: Option<Pipe>,
    /// Of messages, what its input did not take yet.
    input: Vec<u8>,
    /// The end of its output so far, without a line end.
    partial: Vec<u8>,
    /// Its output is not read, because the peer does not read.
    stalled: bool,
    /// It has ended; the peer has not taken all of its lines.
    close: Option<CloseReason>,
    /// It is to end; nothing is passed on any more.
    ending: bool,
}

/// An end of a pipe. The loop and the state share it: watching can end while the pipe stays open.
#[derive(Clone, Debug)]
struct Pipe(Rc<OwnedFd>);

impl Pipe {
    fn new(descriptor: impl Into<OwnedFd>) -> io::Result<Self> {
        let descriptor = descriptor.into();
        ioctl_fionbio(&descriptor, true)?;
        Ok(Self(Rc::new(descriptor)))
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A line of output: text if it is UTF-8.
struct Line(Vec<u8>);

impl ToMessage for Line {
    fn to_message(&self, take: &mut dyn FnMut(Message<'_>)) {
        match std::str::from_utf8(&self.0) {
            Ok(text) => take(text.into()),
            Err(_) => take((&self.0).into()),
        }
    }
}

impl Processes {
    pub(crate) fn new(command: Command, max: usize, max_line: usize) -> Self {
        Self { command, max, max_line, running: RefCell::default() }
    }

    /// Whether one more may be started.
    pub(crate) fn admit(&self) -> Result<Accept, Response> {
        if self.running.borrow().len() < self.max {
            return Ok(Accept::new());
        }
        warn!("--max-children {} reached: a client gets 503", self.max);
        Err(Response::text("503 Service Unavailable: too many processes\n").status(503))
    }

    pub(crate) fn handler(self: &Rc<Self>) -> Attached {
        Attached { processes: Rc::clone(self), process: None }
    }

    /// Ends what still runs, when the loop has ended: a moment to obey SIGTERM, then SIGKILL.
    pub(crate) fn finish(&self) {
        for process in self.running.borrow_mut().drain(..) {
            process.signal(Signal::TERM);
            process.wait_for(Duration::from_secs(1));
            process.signal(Signal::KILL);
            let _ = process.child.borrow_mut().wait();
        }
    }

    fn start(&self, session: &Session<'_>, call: &Call) -> io::Result<Rc<Process>> {
        let mut spawner = Spawner::new(&self.command.program);
        spawner.args(&self.command.arguments).env_clear().envs(environment(session, call));
        spawner.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = spawner.spawn()?;
        let stdin = child.stdin.take().map(Pipe::new).transpose()?;
        let stdout = child.stdout.take().map(Pipe::new).transpose()?;
        info!("{}: process {} started", session.id(), child.id());
        let process = Rc::new(Process {
            group: Pid::from_child(&child),
            child: RefCell::new(child),
            state: RefCell::new(State { stdin, stdout, ..State::default() }),
            session: session.id(),
            lines: SharedFlow::new(),
        });
        self.running.borrow_mut().push(Rc::clone(&process));
        Ok(process)
    }

    /// Takes the output of a process as it comes.
    fn watch_output(self: &Rc<Self>, server: &mut ServerRef<'_>, process: &Rc<Process>) {
        let Some(stdout) = process.state.borrow().stdout.clone() else { return };
        let (processes, process) = (Rc::clone(self), Rc::clone(process));
        server.watch(stdout, Ready::READABLE, move |server, stdout, _| {
            processes.read_output(server, &process, stdout)
        });
    }

    fn read_output(
        self: &Rc<Self>,
        server: &mut ServerRef<'_>,
        process: &Rc<Process>,
        stdout: &Pipe,
    ) -> Watch {
        if process.state.borrow().ending {
            return Watch::Stop;
        }
        if process.lines.would_suspend() {
            // The lines before were offered to the peer since; on_drain goes on when it has read.
            process.state.borrow_mut().stalled = true;
            return Watch::Stop;
        }
        let mut chunk = [0; CHUNK_BYTES];
        match read(stdout, &mut chunk) {
            Ok(0) => {
                process.pass_on_rest();
                process.state.borrow_mut().stdout = None;
                self.look_again(server, process, Stage::Ended, Duration::ZERO);
                Watch::Stop
            }
            Ok(length) => {
                process.pass_on(chunk.get(..length).unwrap_or_default(), self.max_line);
                Watch::For(Ready::READABLE)
            }
            Err(error) if is_not_now(error) => Watch::For(Ready::READABLE),
            Err(error) => {
                warn!("{}: reading the process: {error}", process.session);
                self.end(server, process);
                Watch::Stop
            }
        }
    }

    /// Has a process end: no more input, SIGTERM, and in the end SIGKILL.
    fn end(self: &Rc<Self>, server: &mut ServerRef<'_>, process: &Rc<Process>) {
        {
            let mut state = process.state.borrow_mut();
            if std::mem::replace(&mut state.ending, true) {
                return;
            }
            (state.stdin, state.stdout, state.input) = (None, None, Vec::new());
        }
        process.signal(Signal::TERM);
        self.look_after(server, process, Stage::Told, LOOK_MIN);
    }

    /// Looks whether a process is over, until it is.
    fn look_after(
        self: &Rc<Self>,
        server: &mut ServerRef<'_>,
        process: &Rc<Process>,
        stage: Stage,
        waited: Duration,
    ) {
        match process.child.borrow_mut().try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => return self.reaped(server, process, Some(status)),
            Err(_) => return self.reaped(server, process, None),
        }
        let (stage, waited) = match stage {
            Stage::Ended if waited >= END_TO_TERM => {
                process.signal(Signal::TERM);
                (Stage::Told, LOOK_MIN)
            }
            Stage::Told if waited >= TERM_TO_KILL => {
                warn!("{}: the process ignores SIGTERM: SIGKILL", process.session);
                process.signal(Signal::KILL);
                (Stage::Killed, LOOK_MIN)
            }
            stage => (stage, waited),
        };
        self.look_again(server, process, stage, waited);
    }

    fn look_again(
        self: &Rc<Self>,
        server: &mut ServerRef<'_>,
        process: &Rc<Process>,
        stage: Stage,
        waited: Duration,
    ) {
        let pause = waited.clamp(LOOK_MIN, LOOK_MAX);
        let (processes, again) = (Rc::clone(self), Rc::clone(process));
        let next = server.after(pause, move |server| {
            processes.look_after(server, &again, stage, waited + pause);
        });
        if let Err(error) = next {
            warn!("{}: {error}", process.session);
        }
    }

    fn reaped(
        &self,
        server: &mut ServerRef<'_>,
        process: &Rc<Process>,
        status: Option<ExitStatus>,
    ) {
        let shown = status.map_or_else(|| "is gone".to_owned(), |status| status.to_string());
        info!("{}: process {}: {shown}", process.session, process.group.as_raw_nonzero());
        self.running.borrow_mut().retain(|other| !Rc::ptr_eq(other, process));
        let (code, text) = match status.is_some_and(|status| status.success()) {
            true => (CloseCode::NORMAL, ""),
            false => (CloseCode::INTERNAL_ERROR, "the process failed"),
        };
        let Ok(reason) = CloseReason::new(code, text) else { return };
        if process.lines.would_suspend() {
            process.state.borrow_mut().close = Some(reason); // behind the last lines, by on_drain
        } else {
            // Fails where the session is over, and then there is nobody to tell.
            let _ = server.close(process.session, reason);
        }
    }
}

/// How far the end of a process has come.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// It has closed its output.
    Ended,
    /// SIGTERM was sent.
    Told,
    /// SIGKILL was sent.
    Killed,
}

impl Process {
    fn signal(&self, signal: Signal) {
        // Nobody of the group may be left.
        if let Err(error) = kill_process_group(self.group, signal) {
            debug!("{}: {signal:?}: {error}", self.session);
        }
    }

    /// Waits at most that long for its end. Where the kernel cannot say when, not at all.
    fn wait_for(&self, time: Duration) {
        let Ok(descriptor) = pidfd_open(self.group, PidfdFlags::empty()) else { return };
        let timeout = Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(1), tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout));
    }

    /// Passes whole lines on to the peer.
    fn pass_on(&self, output: &[u8], max_line: usize) {
        let mut state = self.state.borrow_mut();
        for piece in output.split_inclusive(|byte| *byte == b'\n') {
            let (text, whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            state.partial.extend_from_slice(text);
            while state.partial.len() > max_line {
                let rest = state.partial.split_off(max_line);
                self.send(std::mem::replace(&mut state.partial, rest));
            }
            if whole {
                let line = std::mem::take(&mut state.partial);
                self.send(line);
            }
        }
    }

    /// The last line may be without its end.
    fn pass_on_rest(&self) {
        let rest = std::mem::take(&mut self.state.borrow_mut().partial);
        if !rest.is_empty() {
            self.send(rest);
        }
    }

    fn send(&self, line: Vec<u8>) {
        if let Err(error) = self.lines.emit(&Line(line)) {
            warn!("{}: a line is lost: {error}", self.session);
        }
    }

    /// Writes what the process takes; false if some is left.
    fn write_input(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let State { stdin, input, .. } = &mut *state;
        while let Some(pipe) = stdin.as_ref().filter(|_| !input.is_empty()) {
            match write(pipe, input) {
                Ok(length) => drop(input.drain(..length)),
                Err(error) if is_not_now(error) => return false,
                Err(_) => *stdin = None, // it wants no more; its output may go on
            }
        }
        input.clear();
        true
    }
}

fn is_not_now(error: rustix::io::Errno) -> bool {
    matches!(io::Error::from(error).kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The environment of a process: nothing of the hub's own but the path, and what CGI (RFC 3875
/// section 4.1) calls the peer's data. Of the headers only these: one named `Proxy` must not become
/// `HTTP_PROXY`, and tokens are the hub's.
fn environment(session: &Session<'_>, call: &Call) -> Vec<(&'static str, String)> {
    let peer = session.client_addr();
    let mut variables = vec![
        ("PATH", std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into())),
        ("GATEWAY_INTERFACE", "CGI/1.1".into()),
        ("SERVER_SOFTWARE", concat!("wirewheel-hub/", env!("CARGO_PKG_VERSION")).into()),
        ("SERVER_PROTOCOL", "HTTP/1.1".into()),
        ("SERVER_PORT", call.local_addr().port().to_string()),
        ("REQUEST_METHOD", "GET".into()),
        ("REQUEST_URI", call.uri().into()),
        ("PATH_INFO", call.path().strip_prefix("/exec").unwrap_or_default().into()),
        ("QUERY_STRING", call.query().into()),
        ("REMOTE_ADDR", peer.ip().to_string()),
        ("REMOTE_PORT", peer.port().to_string()),
    ];
    let headers = [
        ("HTTP_HOST", "host"),
        ("HTTP_ORIGIN", "origin"),
        ("HTTP_USER_AGENT", "user-agent"),
        ("HTTP_COOKIE", "cookie"),
    ];
    for (variable, header) in headers {
        if let Some(value) = call.header(header) {
            variables.push((variable, value.into()));
        }
    }
    variables
}

/// A session with its process.
#[derive(Debug)]
pub(crate) struct Attached {
    processes: Rc<Processes>,
    process: Option<Rc<Process>>,
}

impl Handler for Attached {
    fn on_connect(&mut self, session: &mut Session<'_>, call: &Call) -> HandlerResult {
        let process = self.processes.start(session, call)?;
        session.collect(&process.lines)?;
        self.processes.watch_output(&mut session.server(), &process);
        self.process = Some(process);
        Ok(())
    }

    fn on_message(&mut self, session: &mut Session<'_>, message: Message<'_>) -> HandlerResult {
        let Some(process) = &self.process else { return Ok(()) };
        {
            let mut state = process.state.borrow_mut();
            state.input.extend_from_slice(message.bytes());
            state.input.push(b'\n');
        }
        if process.write_input() || session.is_paused() {
            return Ok(());
        }
        // It does not read: neither is the peer read, until it does.
        session.pause();
        let Some(stdin) = process.state.borrow().stdin.clone() else { return Ok(()) };
        let process = Rc::clone(process);
        session.server().watch(stdin, Ready::WRITABLE, move |server, _, _| {
            if !process.write_input() {
                return Watch::For(Ready::WRITABLE);
            }
            // Fails where the session is over.
            let _ = server.resume(process.session);
            Watch::Stop
        });
        Ok(())
    }

    fn on_drain(&mut self, session: &mut Session<'_>) -> HandlerResult {
        let Some(process) = &self.process else { return Ok(()) };
        let (stalled, close) = {
            let mut state = process.state.borrow_mut();
            (std::mem::take(&mut state.stalled), state.close.take())
        };
        if let Some(reason) = close {
            return session.close(reason);
        }
        if stalled {
            self.processes.watch_output(&mut session.server(), process);
        }
        Ok(())
    }

    fn on_close(&mut self, session: &mut Session<'_>, _close: &CloseInfo) {
        if let Some(process) = &self.process {
            self.processes.end(&mut session.server(), process);
        }
    }
}
