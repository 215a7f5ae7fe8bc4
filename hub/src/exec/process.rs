//! A program that runs: its pipes, its group, and how far its end has come.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Command as Spawner, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use log::debug;
use rustix::io::{Errno, ioctl_fionbio, ioctl_fionread, read, write};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use wirewheel::flow::SharedFlow;
use wirewheel::{CloseReason, SessionId};

use super::lines::{Cutter, Line};
use crate::config::Command;

/// What is read of a program's output at once.
pub(super) const CHUNK_BYTES: usize = 8 << 10;

/// The first pause before it is looked after; it doubles up to [`LOOK_MAX`].
const LOOK_MIN: Duration = Duration::from_millis(1);
const LOOK_MAX: Duration = Duration::from_millis(500);

/// A program and its pipes.
#[derive(Debug)]
pub(super) struct Process {
    /// By which it is known to its session and to its pipes' events.
    pub(super) number: u64,
    /// It leads a group of its own, to which signals go.
    pub(super) pid: Pid,
    pub(super) session: SessionId,
    /// Its lines on their way to the peer.
    pub(super) lines: SharedFlow<Line>,
    /// A line that there was no room for, and what was read behind it.
    pub(super) kept: Option<(Line, Vec<u8>)>,
    pub(super) stage: Stage,
    /// When the next stage of its end is due.
    pub(super) due: Option<Instant>,
    /// When it is looked after, because nothing tells what is waited for.
    pub(super) look_at: Option<Instant>,
    pub(super) pause: Duration,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    /// Messages, of which it took the beginning: moving the rest up for each bite would make one long
    /// message dear.
    input: Vec<u8>,
    taken: usize,
    pub(super) cutter: Cutter,
    /// Its output is not read, because the peer does not read or memory is short.
    pub(super) stalled: bool,
    /// Nothing is passed on any more: the peer is gone, or told how it ended.
    pub(super) peer_gone: bool,
    /// It has ended like this.
    pub(super) exit: Option<ExitStatus>,
    /// Of its output, what was there when it had ended and is not read yet.
    pub(super) rest: u64,
    /// What the peer is told when it has taken the last line.
    pub(super) close: Option<CloseReason>,
    /// It was said already that lines are too long, and that they are not UTF-8.
    pub(super) said: [bool; 2],
}

/// How far the end of a program has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Runs,
    /// Nothing more is written than what is there already; then its input ends.
    NoInput,
    /// SIGTERM was sent to its group.
    Told,
    /// SIGKILL was sent to its group.
    Killed,
}

/// What became of writing to a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    All,
    /// The pipe is full.
    Some,
}

/// What became of reading a program's output.
pub(super) enum Output<'a> {
    Bytes(&'a [u8]),
    NotNow,
    End,
}

impl Process {
    pub(super) fn start(
        number: u64,
        command: &Command,
        environment: Vec<(OsString, OsString)>,
        session: SessionId,
        lines: SharedFlow<Line>,
    ) -> io::Result<Self> {
        let mut spawner = Spawner::new(&command.program);
        spawner.args(&command.arguments).env_clear().envs(environment);
        spawner.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut child = spawner.spawn()?;
        let pid = Pid::from_child(&child);
        let stdin = child.stdin.take().map(OwnedFd::from);
        let stdout = child.stdout.take().map(OwnedFd::from);
        // Never fails for a pipe; waiting for one would hold everybody.
        for pipe in stdin.iter().chain(&stdout) {
            ioctl_fionbio(pipe, true)?;
        }
        Ok(Self {
            number,
            pid,
            session,
            lines,
            kept: None,
            stage: Stage::Runs,
            due: None,
            look_at: None,
            pause: LOOK_MIN,
            stdin,
            stdout,
            input: Vec::new(),
            taken: 0,
            cutter: Cutter::default(),
            stalled: false,
            peer_gone: false,
            exit: None,
            rest: 0,
            close: None,
            said: [false; 2],
        })
    }

    pub(super) fn stdin(&self) -> Option<&OwnedFd> {
        self.stdin.as_ref()
    }

    pub(super) fn stdout(&self) -> Option<&OwnedFd> {
        self.stdout.as_ref()
    }

    /// Takes a message, as a line. What does not want input any more gets none.
    pub(super) fn take_message(&mut self, bytes: &[u8]) {
        if self.stdin.is_some() && self.stage == Stage::Runs {
            self.input.extend_from_slice(bytes);
            self.input.push(b'\n');
        }
    }

    /// Writes what the program takes. Its input ends behind the last of it, if it is to end.
    pub(super) fn write_input(&mut self) -> Written {
        while let Some((pipe, left)) = self
            .stdin
            .as_ref()
            .zip(self.input.get(self.taken..))
            .filter(|(_, left)| !left.is_empty())
        {
            match write(pipe, left) {
                Ok(length) => self.taken += length,
                Err(Errno::INTR) => {}
                Err(error) if is_not_now(error) => return Written::Some,
                Err(_) => self.stdin = None, // it wants no more; its output may go on
            }
        }
        (self.input, self.taken) = (Vec::new(), 0);
        if self.stage != Stage::Runs {
            self.stdin = None;
        }
        Written::All
    }

    pub(super) fn read_output<'a>(&self, chunk: &'a mut [u8; CHUNK_BYTES]) -> Output<'a> {
        let Some(stdout) = &self.stdout else { return Output::End };
        match read(stdout, &mut *chunk) {
            Ok(0) => Output::End,
            Ok(length) => Output::Bytes(chunk.get(..length).unwrap_or_default()),
            Err(error) if is_not_now(error) => Output::NotNow,
            Err(error) => {
                debug!("{}: reading the program: {error}", self.session);
                Output::End
            }
        }
    }

    /// How much of its output can be read at once.
    pub(super) fn output_waiting(&self) -> u64 {
        self.stdout.as_ref().and_then(|stdout| ioctl_fionread(stdout).ok()).unwrap_or(0)
    }

    /// Reads no more of it. Descendants that hold the other end learn it when they write.
    pub(super) fn close_output(&mut self) {
        self.stdout = None;
    }

    /// Lets both pipes go.
    pub(super) fn close_pipes(&mut self) {
        (self.stdin, self.stdout) = (None, None);
        (self.input, self.taken) = (Vec::new(), 0);
    }

    pub(super) fn signal(&self, signal: Signal) {
        // Nobody of the group may be left.
        if let Err(error) = kill_process_group(self.pid, signal) {
            debug!("{}: {signal:?}: {error}", self.session);
        }
    }

    /// Whether somebody is left of its group. Asked only for a short time after it was reaped, before
    /// the system can have come round to its number again.
    pub(super) fn has_group(&self) -> bool {
        !matches!(test_kill_process_group(self.pid), Err(Errno::SRCH))
    }

    /// Looks again after the shortest pause.
    pub(super) fn look_soon(&mut self, now: Instant) {
        self.pause = LOOK_MIN;
        self.look_later(now);
    }

    /// Looks again after a pause, which grows.
    pub(super) fn look_later(&mut self, now: Instant) {
        self.look_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LOOK_MAX);
    }

    /// When something is to be done about it, if nothing happens before.
    pub(super) fn next(&self) -> Option<Instant> {
        self.due.into_iter().chain(self.look_at).min()
    }
}

fn is_not_now(error: Errno) -> bool {
    matches!(io::Error::from(error).kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
