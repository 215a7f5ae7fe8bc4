//! What programs say, on its way to their peers.

use log::Level;
use wirewheel::error::SendError;
use wirewheel::{CloseCode, CloseReason};

use super::events::Source;
use super::lines::{Line, Oddity, TooLong};
use super::process::{CHUNK_BYTES, Output, Process};
use super::{Processes, find};
use crate::sparing::now;

/// So many lines of a chunk are messages at once, and wait for a peer that does not read: each takes far more
/// than its bytes. The rest of the chunk is kept as it was read.
const LINES_AT_ONCE: usize = 256;

impl Processes {
    pub(super) fn watch_output(&self, process: &Process) {
        let Some(stdout) = process.stdout() else { return };
        if let Err(error) = self.events.add(stdout, Source::Output(process.number)) {
            log::warn!("{}: the output of its program cannot be watched: {error}", process.session);
        }
    }

    pub(super) fn read_on(&self, number: u64) {
        let mut running = self.running.borrow_mut();
        let Some(process) = find(&mut running, number) else { return };
        if !process.peer_gone && (process.stalled || process.lines.would_suspend()) {
            // The peer has to read first, then `drained` goes on; or the flush had its budget spent on
            // others, of which nothing tells.
            return self.stall(process);
        }
        let mut chunk = [0; CHUNK_BYTES];
        match process.read_output(&mut chunk) {
            Output::Bytes(bytes) => {
                process.rest = process.rest.saturating_sub(bytes.len() as u64);
                self.pass_on(process, bytes);
            }
            Output::NotNow => process.rest = 0,
            Output::End => {
                process.rest = 0;
                if let Some(stdout) = process.stdout() {
                    self.events.remove(stdout);
                }
                process.cutter.end();
                self.pass_on(process, &[]);
                process.close_output();
            }
        }
        if process.rest == 0 {
            self.conclude(process);
        }
    }

    /// Reads no more of a program until its peer has read, or there is memory again.
    fn stall(&self, process: &mut Process) {
        process.stalled = true;
        process.look_soon(now());
        if let Some(stdout) = process.stdout() {
            self.events.remove(stdout);
        }
    }

    /// Goes on with a program that was stalled: what was kept comes first.
    pub(super) fn go_on(&self, process: &mut Process) {
        if let Some((line, output)) = process.kept.take() {
            if !self.send(process, &line) {
                process.kept = Some((line, output));
                return process.look_later(now());
            }
            self.pass_on(process, &output);
            if process.kept.is_some() {
                return;
            }
        }
        process.stalled = false;
        self.watch_output(process);
        if process.rest == 0 {
            self.conclude(process);
        }
    }

    /// Passes whole lines on to the peer. What there is no room for is kept, and the program waits.
    pub(super) fn pass_on(&self, process: &mut Process, mut output: &[u8]) {
        if process.peer_gone {
            return;
        }
        let mut cutter = std::mem::take(&mut process.cutter);
        let mut odd = [false; 2];
        let mut note = |oddity| odd[oddity as usize] = true;
        let mut room = 0..LINES_AT_ONCE;
        let going = loop {
            let line = match cutter.next(&mut output, &self.options.lines, &mut note) {
                Ok(Some(line)) => line,
                Ok(None) => break true,
                Err(TooLong) => break false,
            };
            if room.next().is_none() || !self.send(process, &line) {
                process.kept = Some((line, output.to_vec()));
                self.stall(process);
                // Most peers have taken the others when the turn is over.
                process.look_at = Some(now());
                break true;
            }
        };
        process.cutter = cutter;
        self.note(process, odd);
        if !going {
            let code = CloseCode::TOO_BIG;
            process.close = CloseReason::new(code, "a line is too long").ok();
            process.peer_gone = true;
            process.look_at = Some(now());
        }
    }

    /// Sends a line to the peer; false if there is no memory for it.
    fn send(&self, process: &Process, line: &Line) -> bool {
        let Err(error) = process.lines.emit(line) else { return true };
        let is_full = matches!(error, SendError::Full { .. });
        let what = if is_full { "a line waits" } else { "a line is lost" };
        self.odd.say(Level::Warn, &format_args!("{}: {what}: {error}", process.session));
        !is_full
    }

    /// Says what is odd about a program's lines, once for each program.
    fn note(&self, process: &mut Process, odd: [bool; 2]) {
        let texts = [
            (Oddity::TooLong, "a line is longer than --max-line"),
            (Oddity::NotUtf8, "a line is not UTF-8 (--binary-lines would send it as it is)"),
        ];
        for (oddity, text) in texts {
            let place = oddity as usize;
            if odd[place] && !std::mem::replace(&mut process.said[place], true) {
                let (session, pid) = (process.session, process.pid);
                self.odd.say(Level::Warn, &format_args!("{session}: process {pid}: {text}"));
            }
        }
    }
}
