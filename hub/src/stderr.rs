//! The log on standard error, which never waits for its reader: what does not go now is counted, and
//! said when something goes again.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Stderr, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::{Errno, ReadWriteFlags, pwritev2, write};
use rustix::net::{SendFlags, send};

/// The longest line; a pipe takes so much as a whole or not at all (pipe(7), PIPE_BUF).
const LINE_MAX: usize = 4096;

/// The log, on standard error or (in tests) elsewhere.
#[derive(Debug)]
pub(crate) struct Log<F = Stderr> {
    out: F,
    way: Way,
    /// Of a line, what did not go when its beginning did.
    rest: Vec<u8>,
    /// Lines that did not go.
    lost: u64,
}

/// How to write without waiting. The descriptor itself is not made non-blocking: it is shared with
/// whoever started this process, and with the programs of /exec.
#[derive(Debug)]
enum Way {
    Socket,
    /// The same pipe or terminal, opened once more without waiting.
    Own(OwnedFd),
    /// A pipe that is not ours to open: it is asked whether it takes a line.
    Asking,
    /// A file takes everything.
    File,
}

impl Log {
    pub(crate) fn new() -> Self {
        let stderr = io::stderr();
        let kind = fstat(&stderr).map(|stat| FileType::from_raw_mode(stat.st_mode));
        let way = match kind {
            Ok(FileType::Socket) => Way::Socket,
            Ok(FileType::Fifo) => open_again(),
            Ok(FileType::CharacterDevice) if stderr.is_terminal() => open_again(),
            _ => Way::File,
        };
        Self { out: stderr, way, rest: Vec::new(), lost: 0 }
    }
}

impl<F: AsFd> Log<F> {
    fn write_now(&self, bytes: &[u8]) -> Result<usize, Errno> {
        let out = self.out.as_fd();
        match &self.way {
            Way::Socket => send(out, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
            Way::Own(descriptor) => write(descriptor, bytes),
            Way::File => write(out, bytes),
            Way::Asking => {
                let mut ready = [PollFd::new(&self.out, PollFlags::OUT)];
                poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
                if !ready[0].revents().contains(PollFlags::OUT) {
                    return Err(Errno::AGAIN);
                }
                // Somebody else may have filled it since; older systems know no better.
                let pieces = [io::IoSlice::new(bytes)];
                match pwritev2(out, &pieces, u64::MAX, ReadWriteFlags::NOWAIT) {
                    Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL | Errno::SPIPE) => {
                        write(out, bytes)
                    }
                    written => written,
                }
            }
        }
    }

    /// Writes a line, or none of it; false if it does not go now.
    fn write_line(&mut self, line: &[u8]) -> bool {
        let mut left = line;
        loop {
            match self.write_now(left) {
                Ok(length) if length < left.len() => left = left.get(length..).unwrap_or_default(),
                Ok(_) => return true,
                Err(Errno::INTR) => {}
                Err(_) if left.len() == line.len() => return false,
                Err(_) => {
                    self.rest = left.to_vec();
                    return true;
                }
            }
        }
    }
}

fn open_again() -> Way {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(flags).unwrap_or(0))
        .open("/proc/self/fd/2");
    opened.map_or(Way::Asking, |file| Way::Own(file.into()))
}

impl<F: AsFd> Write for Log<F> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let rest = std::mem::take(&mut self.rest);
        let mut goes = rest.is_empty() || self.write_line(&rest);
        if !goes {
            self.rest = rest;
        }
        if goes && self.lost > 0 {
            let word =
                format!("wirewheel-hub: {} lines of the log are lost: nobody read it\n", self.lost);
            goes = self.write_line(word.as_bytes());
            if goes {
                self.lost = 0;
            }
        }
        // Behind the rest of another line it would not be read as a line.
        goes = goes && self.rest.is_empty();
        let shown = line.get(..LINE_MAX - 1).map(|cut| [cut, b"\n"].concat());
        if !goes
            || !self.write_line(shown.as_deref().filter(|_| line.len() > LINE_MAX).unwrap_or(line))
        {
            self.lost += 1;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    use rustix::pipe::pipe;

    /// Where neither a socket nor another opening of the pipe helps: `/proc` is not mounted, or the pipe is
    /// somebody else's.
    #[test]
    fn a_pipe_that_is_only_asked_never_blocks_and_counts_what_is_lost() {
        let (reader, writer) = pipe().unwrap();
        let mut reader = File::from(reader);
        let mut log = Log { out: writer, way: Way::Asking, rest: Vec::new(), lost: 0 };
        let line = format!("{}\n", "x".repeat(999));
        for _ in 0..100 {
            log.write_all(line.as_bytes()).unwrap(); // 100 kB into a pipe of 64 KiB
        }
        let lost = log.lost;
        assert!((30..50).contains(&lost), "{lost}");
        let mut taken = vec![0; 60_000];
        reader.read_exact(&mut taken).unwrap();
        log.write_all(b"again\n").unwrap();
        drop(log);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        let said =
            format!("wirewheel-hub: {lost} lines of the log are lost: nobody read it\nagain\n");
        assert!(rest.ends_with(&said), "{rest}");
    }
}
