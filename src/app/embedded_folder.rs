//! A folder that is part of the program: a table of paths and bytes.

use std::collections::BTreeMap;
use std::ops::Bound;

use rustix::io::Errno;

use crate::words::mix::mixed;

use crate::app::folder_source::{Content, Entry, Opened, Source};

/// The files, by their paths without a slash before them.
#[derive(Debug)]
pub(super) struct EmbeddedFolder(BTreeMap<&'static str, Asset>);

/// A file of it.
#[derive(Debug)]
struct Asset {
    bytes: &'static [u8],
    etag: Box<str>,
}

impl EmbeddedFolder {
    pub(super) fn new(files: &[(&'static str, &'static [u8])]) -> Result<Self, String> {
        let mut table = BTreeMap::new();
        for &(path, bytes) in files {
            let name = path.strip_prefix('/').unwrap_or(path);
            if name.split('/').any(|piece| matches!(piece, "" | "." | "..")) {
                return Err(format!("embedded file {path:?}: write it as \"folder/name.html\""));
            }
            if table.insert(name, Asset { bytes, etag: etag(bytes) }).is_some() {
                return Err(format!("embedded file {path:?} is there twice"));
            }
        }
        Ok(Self(table))
    }
}

impl Source for EmbeddedFolder {
    fn open(&self) -> Result<Box<dyn Opened + '_>, Errno> {
        Ok(Box::new(self))
    }
}

impl Opened for &EmbeddedFolder {
    fn entry(&self, names: &[&str]) -> Result<Entry, Errno> {
        let path = names.join("/");
        if let Some(Asset { bytes, etag }) = self.0.get(path.as_str()) {
            return Ok(Entry::File(Content::Embedded { bytes, etag: etag.to_string() }));
        }
        let folder = if path.is_empty() { path } else { path + "/" };
        let from = (Bound::Included(folder.as_str()), Bound::Unbounded);
        let mut behind = self.0.range::<str, _>(from).map(|(name, _)| name);
        match behind.next() {
            Some(name) if name.starts_with(&folder) => Ok(Entry::Folder),
            _ => Err(Errno::NOENT),
        }
    }
}

/// It follows from the bytes: what changes them is a new program, whose files have no other age.
fn etag(bytes: &[u8]) -> Box<str> {
    let words = bytes
        .chunks(8)
        .map(|chunk| chunk.iter().rev().fold(0_u64, |word, byte| (word << 8) | u64::from(*byte)));
    let key = words.fold(bytes.len() as u64, mixed);
    format!("\"{:x}-{key:x}\"", bytes.len()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(folder: &EmbeddedFolder, names: &[&str]) -> Result<&'static str, Errno> {
        Ok(match folder.open().unwrap().entry(names)? {
            Entry::Folder => "folder",
            Entry::File(Content::Embedded { bytes, .. }) => std::str::from_utf8(bytes).unwrap(),
            Entry::File(Content::OnDisk(_)) => "on disk",
        })
    }

    #[test]
    fn a_table_is_a_tree() {
        let files: &[(&str, &[u8])] =
            &[("index.html", b"start"), ("/docs/a.txt", b"a"), ("docs/b/c.txt", b"c")];
        let folder = EmbeddedFolder::new(files).unwrap();
        for (names, expected) in [
            (&[][..], Ok("folder")),
            (&["index.html"], Ok("start")),
            (&["docs"], Ok("folder")),
            (&["docs", "b"], Ok("folder")),
            (&["docs", "a.txt"], Ok("a")),
            (&["doc"], Err(Errno::NOENT)),
            (&["docs", "a.txt", "x"], Err(Errno::NOENT)),
            (&["z"], Err(Errno::NOENT)),
        ] {
            assert_eq!(entry(&folder, names), expected, "{names:?}");
        }
    }

    #[test]
    fn paths_that_nobody_could_ask_for_are_mistakes() {
        for path in ["", "/", "a//b", "../a", "a/./b", "a/"] {
            assert!(EmbeddedFolder::new(&[(path, b"")]).is_err(), "{path:?}");
        }
        let twice = EmbeddedFolder::new(&[("a", b""), ("/a", b"")]).unwrap_err();
        assert!(twice.contains("twice"), "{twice}");
    }

    #[test]
    fn a_tag_follows_from_the_bytes() {
        let tags: Vec<_> = [&b""[..], b"\0", b"a", b"a\0", b"12345678", b"123456789", b"123456798"]
            .map(etag)
            .into();
        for (index, tag) in tags.iter().enumerate() {
            assert!(!tags[..index].contains(tag), "{tag}");
        }
        assert_eq!(etag(b"a"), etag(b"a"));
    }
}
