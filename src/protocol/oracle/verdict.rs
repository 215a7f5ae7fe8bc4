//! The verdict of a reader on a stream of bytes, and the pieces that the bytes come in.

/// What arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

/// What a stream of bytes amounts to: what arrived, then possibly a fault by its close code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) seen: Vec<Seen>,
    pub(crate) fault: Option<u16>,
}

impl Verdict {
    pub(super) fn is_over(&self) -> bool {
        self.fault.is_some() || matches!(self.seen.last(), Some(Seen::Close(_)))
    }
}

/// `bytes` in pieces; cuts count modulo the length.
pub(crate) fn pieces<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).filter(|p| !p.is_empty()).collect()
}

/// A message in fragments with a ping between them, continued in different ways: streams with limits of 125
/// bytes a frame and 5 a message, and what they amount to.
#[cfg(test)]
pub(super) fn fragmented() -> [(Vec<u8>, Verdict); 6] {
    let start = b"\x01\x02\xce\xba\x89\x01!\x00\x01\xcf";
    let seen = vec![Seen::Ping(b"!".into())];
    let text = [seen.clone(), vec![Seen::Text("κό".into())]].concat();
    [
        (&b"\x80\x01\x8c"[..], text, None),
        (b"\x80\x01x", seen.clone(), Some(1007)),
        (b"\x80\x00", seen.clone(), Some(1007)),
        (b"\x00\x03\x8c\0\0", seen.clone(), Some(1009)),
        (b"\x01\x00", seen.clone(), Some(1002)),
        (b"\xc0\x00", seen, Some(1002)),
    ]
    .map(|(rest, seen, fault)| ([start, rest].concat(), Verdict { seen, fault }))
}
