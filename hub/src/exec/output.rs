//! What programs say, on its way to their peers.

use log::Level;
use wirewheel::{CloseCode, CloseReason};

use super::events::Source;
use super::lines::{Line, Oddity};
use super::process::{CHUNK_BYTES, Output, Process};
use super::{Processes, find};
use crate::sparing::now;

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
        if !process.peer_gone && process.lines.would_suspend() {
            // The peer has to read first, then `drained` goes on; or the flush had its budget spent on
            // others, of which nothing tells.
            process.stalled = true;
            process.look_soon(now());
            if let Some(stdout) = process.stdout() {
                self.events.remove(stdout);
            }
            return;
        }
        let mut chunk = [0; CHUNK_BYTES];
        match process.read_output(&mut chunk) {
            Output::Bytes(bytes) => {
                process.rest = process.rest.saturating_sub(bytes.len() as u64);
                if !process.peer_gone {
                    self.pass_on(process, bytes);
                }
            }
            Output::NotNow => process.rest = 0,
            Output::End => {
                process.rest = 0;
                if let Some(stdout) = process.stdout() {
                    self.events.remove(stdout);
                }
                self.pass_on_rest(process);
                process.close_output();
            }
        }
        if process.rest == 0 {
            self.conclude(process);
        }
    }

    /// Passes whole lines on to the peer.
    fn pass_on(&self, process: &mut Process, output: &[u8]) {
        let mut cutter = std::mem::take(&mut process.cutter);
        let mut odd = [false; 2];
        let going = cutter.push(
            output,
            &self.options.lines,
            &mut |line| self.send(process, &line),
            &mut |oddity| odd[oddity as usize] = true,
        );
        process.cutter = cutter;
        self.note(process, odd);
        if !going {
            let code = CloseCode::TOO_BIG;
            process.close = CloseReason::new(code, "a line is too long").ok();
            process.peer_gone = true;
            process.look_at = Some(now());
        }
    }

    pub(super) fn pass_on_rest(&self, process: &mut Process) {
        if process.peer_gone {
            return;
        }
        let mut cutter = std::mem::take(&mut process.cutter);
        let mut odd = [false; 2];
        cutter.rest(&self.options.lines, &mut |line| self.send(process, &line), &mut |oddity| {
            odd[oddity as usize] = true;
        });
        self.note(process, odd);
    }

    fn send(&self, process: &Process, line: &Line) {
        if let Err(error) = process.lines.emit(line) {
            let session = process.session;
            self.odd.say(Level::Warn, &format_args!("{session}: a line is lost: {error}"));
        }
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
