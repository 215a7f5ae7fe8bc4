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
