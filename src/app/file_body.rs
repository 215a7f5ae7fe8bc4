//! Files as the bodies of answers: opening, what tells their versions apart, reading piece by piece.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use crate::protocol::date::is_of_a_set_clock;
use crate::words::mix::mixed;

/// What is sent of a long body at once.
pub(crate) const PIECE_BYTES: usize = 32 << 10;

/// A change that is younger may be followed by another that nothing tells from it: the system's own times of
/// files move on by up to 10 ms, dates in HTTP by a second.
const SETTLED_SECS: u64 = 2;

/// Files of builders that write no times have one of these instead: 0, 1, 1980, 1985.
const YEAR_2000_SECS: u64 = 946_684_800;

/// An open file, or a part of one. As much is sent as it held when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct FileBody {
    open: Rc<OpenFile>,
    first: u64,
    length: u64,
}

#[derive(Debug)]
struct OpenFile {
    file: File,
    /// When it was last written to.
    modified: Duration,
    /// When anything about it was last changed.
    changed: Duration,
}

impl PartialEq for FileBody {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.open, &other.open)
            && (self.first, self.length) == (other.first, other.length)
    }
}

impl Eq for FileBody {}

/// A time before 1970 is none, as far as is to be decided here.
fn time(secs: i64, nanos: i64) -> Duration {
    let nanos = u32::try_from(nanos).unwrap_or_default();
    Duration::new(u64::try_from(secs).unwrap_or_default(), nanos.min(999_999_999))
}

impl FileBody {
    /// Opens a regular file; anything else is not found.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Opening a pipe waits for its writer unless it is told not to.
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(path)?;
        Self::of(file)
    }

    /// Takes an open regular file.
    pub(crate) fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Self::of_regular(file, &metadata).ok_or_else(|| ErrorKind::NotFound.into())
    }

    /// The same where it is known already what it is; `None` if it is no regular file.
    pub(crate) fn of_regular(file: File, metadata: &Metadata) -> Option<Self> {
        let (modified, changed) = (
            time(metadata.mtime(), metadata.mtime_nsec()),
            time(metadata.ctime(), metadata.ctime_nsec()),
        );
        let open = Rc::new(OpenFile { file, modified, changed });
        let body = Self { open, first: 0, length: metadata.len() };
        metadata.is_file().then_some(body)
    }

    /// A part, which lies within it.
    pub(crate) fn part(self, first: u64, length: u64) -> Self {
        Self { first: self.first.saturating_add(first), length, ..self }
    }

    /// An entity tag, with its quotes; `None` where the times of files say nothing, since there was no clock
    /// or somebody gave them all the same one. The time of the last change counts, which nobody can set: what
    /// is unpacked often has the age of its sources, whatever is new in it. It is weak where a further change
    /// could leave it as it is (RFC 9110 section 8.8.1).
    pub(crate) fn etag(&self, now: Option<Duration>, suffix: &str) -> Option<String> {
        let OpenFile { modified, changed, .. } = *self.open;
        if !is_of_a_set_clock(changed) {
            return None;
        }
        let nanos = [modified.subsec_nanos(), changed.subsec_nanos()].map(u64::from);
        let words = [modified.as_secs(), nanos[0], changed.as_secs(), nanos[1]];
        let key = words.into_iter().fold(self.length, mixed);
        let weak = if is_settled(changed, now) { "" } else { "W/" };
        Some(format!("{weak}\"{:x}-{key:x}{suffix}\"", self.length))
    }

    /// When it was written; `None` where that cannot be: of a file "in the future" no date may be sent (RFC
    /// 9110 section 8.8.2.1).
    pub(crate) fn modified(&self, now: Option<Duration>) -> Option<Duration> {
        let secs = self.open.modified.as_secs();
        let is_past = now.is_none_or(|now| secs <= now.as_secs());
        (secs >= YEAR_2000_SECS && is_past).then(|| Duration::from_secs(secs))
    }

    /// Whether its date tells its versions apart.
    pub(crate) fn date_is_strong(&self, now: Option<Duration>) -> bool {
        is_settled(self.open.modified.max(self.open.changed), now)
    }

    /// Whether it was written before another was.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        self.open.modified < other.open.modified
    }

    /// All of it at once, for one that is short.
    pub(crate) fn read(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut read = 0;
        while read < self.length {
            read += self.read_piece(read, &mut bytes)? as u64;
        }
        Ok(bytes)
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Puts the next piece, which begins at `offset`, behind what is in `out`, and says how long it
    /// is. A file that has become shorter than it was is an error; of one that has grown, the rest
    /// is left.
    pub(crate) fn read_piece(&self, offset: u64, out: &mut Vec<u8>) -> io::Result<usize> {
        let begin = out.len();
        let wanted = usize::try_from((self.length - offset).min(PIECE_BYTES as u64)).unwrap_or(0);
        out.resize(begin + wanted, 0);
        let result = loop {
            let room = out.get_mut(begin..).unwrap_or_default();
            match self.open.file.read_at(room, self.first.saturating_add(offset)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) if wanted > 0 => break Err(ErrorKind::UnexpectedEof.into()),
                result => break result,
            }
        };
        out.truncate(begin + result.as_ref().map_or(0, |read| *read));
        result
    }
}

/// Whether nothing more can happen within the time that a date or a time of a file stands for.
fn is_settled(changed: Duration, now: Option<Duration>) -> bool {
    let settled = changed.saturating_add(Duration::from_secs(SETTLED_SECS));
    now.is_none_or(|now| now >= settled || !is_of_a_set_clock(now))
}
