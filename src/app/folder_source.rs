//! Where the files of a folder come from, as the folder sees it.

use std::fmt;

use rustix::io::Errno;

use crate::app::file_body::FileBody;

/// A folder, before a request comes.
pub(super) trait Source: fmt::Debug {
    /// The folder as it is now: everything that one request looks for is looked for in the same.
    fn open(&self) -> Result<Box<dyn Opened + '_>, Errno>;
}

/// A folder during one request.
pub(super) trait Opened {
    /// What is at the end of a path. Nothing outside the folder is, whatever the names are.
    fn entry(&self, names: &[&str]) -> Result<Entry, Errno>;
}

/// What a path names.
pub(super) enum Entry {
    File(Content),
    Folder,
}

/// A file.
pub(super) enum Content {
    OnDisk(FileBody),
    Embedded { bytes: &'static [u8], etag: String },
}

impl Content {
    /// Whether it was written before the other: what was compressed before its original was changed has an
    /// older version in it.
    pub(super) fn is_older_than(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::OnDisk(ours), Self::OnDisk(theirs)) => ours.is_older_than(theirs),
            _ => false,
        }
    }
}
