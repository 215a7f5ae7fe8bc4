//! Files as the bodies of answers: opening, content types, reading piece by piece.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::rc::Rc;

/// What is sent of a long body at once.
pub(crate) const PIECE_BYTES: usize = 32 << 10;

/// An open file, of which as much is sent as it held when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct FileBody {
    file: Rc<File>,
    length: u64,
}

impl PartialEq for FileBody {
    fn eq(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.file, &other.file) && self.length == other.length
    }
}

impl Eq for FileBody {}

impl FileBody {
    /// Opens a regular file; anything else is not found.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Opening a pipe waits for its writer unless it is told not to.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Self::of(file)
    }

    /// Takes an open regular file.
    pub(crate) fn of(file: File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(ErrorKind::NotFound.into());
        }
        Ok(Self { file: Rc::new(file), length: metadata.len() })
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
            match self.file.read_at(room, offset) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) if wanted > 0 => break Err(ErrorKind::UnexpectedEof.into()),
                result => break result,
            }
        };
        out.truncate(begin + result.as_ref().map_or(0, |read| *read));
        result
    }
}

/// The content type by the ending of a file's name.
pub(crate) fn content_type(name: &Path) -> &'static str {
    let ending = name.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    match ending.to_ascii_lowercase().as_str() {
        "html" | "htm" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "txt" | "log" => "text/plain; charset=utf-8",
        "md" => "text/markdown; charset=utf-8",
        "csv" => "text/csv; charset=utf-8",
        "json" | "map" => "application/json",
        "webmanifest" => "application/manifest+json",
        "xml" => "application/xml",
        "wasm" => "application/wasm",
        "pdf" => "application/pdf",
        "zip" => "application/zip",
        "gz" => "application/gzip",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/x-icon",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "mp3" => "audio/mpeg",
        "ogg" => "audio/ogg",
        "wav" => "audio/wav",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        _ => "application/octet-stream",
    }
}
