//! Server-sent events as bytes (WHATWG HTML, section 9.2): the answer that begins a stream, events, comments,
//! and the ids by which a client says what it has.

use std::io::Write;
use std::time::Duration;

use data_encoding::BASE64;

use crate::words::message::{Message, Payload};

/// The type of an event stream.
pub(crate) const CONTENT_TYPE: &str = "text/event-stream";

/// A comment, which shows that the connection is there. It is no event, and no client tells anybody of it.
pub(crate) const HEARTBEAT: &[u8] = b":\n\n";

/// What a message of a flow is known by, from one connection of a client to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    /// Drawn for each flow when its first stream begins, so that what another process or another flow has
    /// numbered is not taken for this one's.
    pub(crate) epoch: u32,
    /// How many messages of the flow there were up to this one, so that it is the number of the next.
    pub(crate) number: u64,
}

/// An event before it is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'a> {
    pub(crate) id: Option<EventId>,
    /// Without a line break; empty for one that has no name.
    pub(crate) name: &'a str,
    pub(crate) message: Message<'a>,
}

impl EventId {
    /// What no flow has: an epoch is never zero.
    const FOREIGN: Self = Self { epoch: 0, number: 0 };

    /// What a client says in `Last-Event-ID`; `None` if it says nothing, a foreign id if it is no id that
    /// was written here.
    pub(crate) fn of_header(value: Option<&str>) -> Option<Self> {
        let text = value.filter(|text| !text.is_empty())?;
        Some(Self::parse(text).unwrap_or(Self::FOREIGN))
    }

    fn parse(text: &str) -> Option<Self> {
        let (epoch, number) = text.split_once('-')?;
        let is_digits = |part: &str, radix| part.chars().all(|digit| digit.is_digit(radix));
        if epoch.len() != 8 || !is_digits(epoch, 16) || !is_digits(number, 10) {
            return None; // `parse` takes a sign too
        }
        let epoch = u32::from_str_radix(epoch, 16).ok()?;
        Some(Self { epoch, number: number.parse().ok()? })
    }

    /// Writes the line with it.
    pub(crate) fn write(self, out: &mut Vec<u8>) {
        let Self { epoch, number } = self;
        let _ = writeln!(out, "id: {epoch:08x}-{number}"); // to a vector, which does not fail
    }
}

/// Whether an event can have this name: a line break would begin another field.
pub(crate) fn is_event_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['\r', '\n', '\0'])
}

/// Writes an event, its payload in base64 if it is binary.
pub(crate) fn write_event(out: &mut Vec<u8>, event: &Event<'_>) {
    if let Some(id) = event.id {
        id.write(out);
    }
    if !event.name.is_empty() {
        write_field(out, b"event: ", event.name.as_bytes());
    }
    match event.message.payload() {
        Payload::Text(text) => write_data(out, text.as_bytes()),
        Payload::Binary(bytes) => {
            out.extend_from_slice(b"data: ");
            let start = out.len();
            out.resize(start.saturating_add(BASE64.encode_len(bytes.len())), 0);
            BASE64.encode_mut(bytes, out.get_mut(start..).unwrap_or_default());
            out.push(b'\n');
        }
    }
    out.push(b'\n');
}

/// The bytes of an event, without its id and name.
pub(crate) fn data_len(message: &Message<'_>) -> usize {
    const FIELD_BYTES: usize = b"data: \n".len();
    match message.payload() {
        Payload::Text(text) => {
            let breaks = lines(text.as_bytes()).count().saturating_sub(1);
            // A break that was there is written as the end of its field.
            text.len().saturating_add(breaks.saturating_add(1).saturating_mul(FIELD_BYTES))
        }
        Payload::Binary(bytes) => BASE64.encode_len(bytes.len()).saturating_add(FIELD_BYTES),
    }
}

/// Writes what a client waits before it connects again.
pub(crate) fn write_retry(out: &mut Vec<u8>, retry: Duration) {
    let _ = write!(out, "retry: {}\n\n", retry.as_millis());
}

/// Tells a client how many messages of a flow it has missed, if that is known, and where it is from here.
pub(crate) fn write_missed(out: &mut Vec<u8>, at: EventId, missed: Option<u64>) {
    at.write(out);
    let _ = match missed {
        Some(missed) => write!(out, "event: missed\ndata: {missed}\n\n"),
        None => write!(out, "event: missed\ndata: null\n\n"),
    };
}

/// Writes the head of the answer that is an event stream.
///
/// The caller has made sure that none of the texts can end a line.
pub(crate) fn write_head(out: &mut Vec<u8>, headers: &[(String, String)], date: &[u8]) {
    // RFC 9112 section 6.3 item 8: without a length and a transfer coding, the body is all that comes until
    // the connection ends. So HTTP/1.0 and 1.1 get the same bytes, which a flow encodes once.
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
    let mut line = |name: &str, value: &str| {
        for piece in [name, ": ", value, "\r\n"] {
            out.extend_from_slice(piece.as_bytes());
        }
    };
    let sets = |wanted: &str| headers.iter().any(|(name, _)| name.eq_ignore_ascii_case(wanted));
    line("Content-Type", CONTENT_TYPE);
    for (name, value) in HEADERS.into_iter().filter(|(name, _)| !sets(name)) {
        line(name, value);
    }
    line("Connection", "close");
    let is_type = |name: &str| name.eq_ignore_ascii_case("content-type");
    for (name, value) in headers.iter().filter(|(name, _)| !is_type(name)) {
        line(name, value);
    }
    if !sets("date") {
        out.extend_from_slice(date);
    }
    out.extend_from_slice(b"\r\n");
}

/// What every answer on the route of an event stream says: neither a cache nor a buffer may keep events.
pub(crate) const HEADERS: [(&str, &str); 2] =
    [("Cache-Control", "no-store"), ("X-Accel-Buffering", "no")];

/// Each line is a field of its own, which a client puts together again with line feeds.
fn write_data(out: &mut Vec<u8>, text: &[u8]) {
    for line in lines(text) {
        write_field(out, b"data: ", line);
    }
}

fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// The lines of a text, which end with CR, LF or both; behind the last break there is one more, perhaps
/// empty.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.iter().position(|byte| matches!(byte, b'\r' | b'\n'));
        let Some(end) = end else { return rest.take() };
        let (line, behind) = text.split_at(end);
        rest = behind.strip_prefix(b"\r\n").or_else(|| behind.get(1..));
        Some(line)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(id: Option<EventId>, name: &str, message: Message<'_>) -> String {
        let mut out = Vec::new();
        write_event(&mut out, &Event { id, name, message });
        String::from_utf8(out).unwrap()
    }

    /// What a client makes of the data of an event (WHATWG HTML, section 9.2.6), for texts without CR.
    fn data_of(event: &str) -> String {
        let lines: Vec<&str> =
            event.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        lines.join("\n")
    }

    #[test]
    fn an_event_has_its_fields_in_lines() {
        let id = Some(EventId { epoch: 0xab, number: 7 });
        let event = written(id, "tick", "hello".into());
        assert_eq!(event, "id: 000000ab-7\nevent: tick\ndata: hello\n\n");
        assert_eq!(written(None, "", "".into()), "data: \n\n");
        assert_eq!(written(None, "", " a: b".into()), "data:  a: b\n\n");
        assert_eq!(written(None, "", (&b"\xff\n\x00"[..]).into()), "data: /woA\n\n");
    }

    #[test]
    fn lines_end_with_cr_lf_or_both() {
        for (text, lines) in [
            ("a\nb", "a|b"),
            ("a\rb", "a|b"),
            ("a\r\nb", "a|b"),
            ("a\n\rb", "a||b"),
            ("\r\n", "|"),
            ("a\n", "a|"),
            ("a\r\r\n\nb", "a|||b"),
            ("\u{2028}\u{85}\u{b}", "\u{2028}\u{85}\u{b}"),
        ] {
            let event = written(None, "", text.into());
            assert_eq!(data_of(&event), lines.replace('|', "\n"), "{text:?}");
            assert_eq!(event.matches("\n\n").count(), 1, "{text:?}");
            assert!(event.ends_with("\n\n") && !event.contains('\r'), "{text:?}");
        }
    }

    #[test]
    fn an_event_is_as_long_as_was_said() {
        for text in ["", "a", "\n", "a\nb\n", "\r\n\r\n\n\r", "\n\n\n\n"] {
            let message = Message::from(text);
            let breaks = text.matches("\r\n").count(); // each is two bytes, of which none is written
            let len = written(None, "", message).len() - 1;
            assert!((len..=len + 2 * text.len()).contains(&data_len(&message)), "{text:?}");
            assert!(data_len(&message) >= len + breaks, "{text:?}");
        }
        for bytes in [&[][..], &[1], &[1, 2], &[1, 2, 3], &[0; 100]] {
            let message = Message::from(bytes);
            assert_eq!(data_len(&message), written(None, "", message).len() - 1);
        }
    }

    #[test]
    fn an_id_is_read_as_it_was_written() {
        for (epoch, number) in [(1, 0), (u32::MAX, u64::MAX), (0x1234_abcd, 42)] {
            let id = EventId { epoch, number };
            let mut line = Vec::new();
            id.write(&mut line);
            let line = String::from_utf8(line).unwrap();
            let value = line.strip_prefix("id: ").unwrap().trim_end();
            assert_eq!(EventId::of_header(Some(value)), Some(id));
        }
    }

    #[test]
    fn what_is_no_id_of_ours_is_foreign() {
        assert_eq!((EventId::of_header(None), EventId::of_header(Some(""))), (None, None));
        for value in [
            "7",
            "-",
            "0000000a-",
            "0000000a-+1",
            "+000000a-1",
            "0000000a-1-1",
            "000000a-1",
            "0000000g-1",
            "0000000a-18446744073709551616",
            "0000000a- 1",
            "\u{e9}000000a-1",
        ] {
            assert_eq!(EventId::of_header(Some(value)), Some(EventId::FOREIGN), "{value:?}");
        }
    }

    #[test]
    fn a_name_is_one_line() {
        assert!(is_event_name("tick") && is_event_name("a b: c"));
        for name in ["", "a\nb", "a\r", "\0"] {
            assert!(!is_event_name(name), "{name:?}");
        }
    }
}
