//! The payload of a Close frame (RFC 6455 section 5.5.1).

use crate::words::close::{CloseCode, CloseReason};
use crate::words::error::ProtocolError;

use crate::protocol::frame::{OpCode, write_frame};
use crate::protocol::text::checked_text;

/// Reads it: `None` if it is empty, which is legal and means 1005.
pub(crate) fn read_close(payload: &[u8]) -> Result<Option<(CloseCode, &str)>, ProtocolError> {
    match payload {
        [] => Ok(None),
        [high, low, text @ ..] => {
            let code = CloseCode::new(u16::from_be_bytes([*high, *low]));
            if !code.may_be_sent() {
                return Err(ProtocolError::BadClosePayload);
            }
            // RFC 6455 section 5.5.1: the text "MUST be" UTF-8; section 8.1 says how that fails.
            let text = checked_text(text)?;
            Ok(Some((code, text)))
        }
        [_] => Err(ProtocolError::BadClosePayload),
    }
}

/// Writes a whole Close frame to the end of `out`; an empty one for `None`.
pub(crate) fn write_close(out: &mut Vec<u8>, reason: Option<&CloseReason>, mask: Option<[u8; 4]>) {
    let mut payload = Vec::new();
    if let Some(reason) = reason {
        payload.extend_from_slice(&u16::from(reason.code()).to_be_bytes());
        payload.extend_from_slice(reason.text().as_bytes());
    }
    write_frame(out, true, OpCode::Close, &payload, mask);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_stand_in_a_close() {
        use ProtocolError as E;
        assert_eq!(read_close(b""), Ok(None));
        assert_eq!(read_close(b"\x03"), Err(E::BadClosePayload));
        assert_eq!(read_close(b"\x03\xe8"), Ok(Some((CloseCode::NORMAL, ""))));
        assert_eq!(read_close(b"\x03\xed"), Err(E::BadClosePayload));
        assert_eq!(read_close(b"\x03\xe8\xff"), Err(E::InvalidUtf8));
    }

    #[test]
    fn a_close_is_written_with_code_and_text() {
        let mut out = Vec::new();
        let reason = CloseReason::new(CloseCode::TRY_AGAIN_LATER, "test").unwrap();
        write_close(&mut out, Some(&reason), None);
        write_close(&mut out, None, None);
        assert_eq!(out, b"\x88\x06\x03\xf5test\x88\x00");
    }
}
