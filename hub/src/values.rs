//! The values of options: numbers, sizes, times, words; and what to give instead of a wrong one.

use std::time::Duration;

use wirewheel::options::ProxyHeader;

use crate::config::Overflow;
use crate::exec::LongLine;

pub(crate) fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "give a whole number".into())
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    number(text).ok().filter(|number| *number > 0).ok_or_else(|| "give a number above 0".into())
}

pub(crate) fn bytes(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.to_ascii_lowercase() {
        text if text.ends_with('k') => (text.trim_end_matches('k').to_owned(), 10),
        text if text.ends_with('m') => (text.trim_end_matches('m').to_owned(), 20),
        text => (text, 0),
    };
    let number = digits.parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
    number.filter(|number| *number > 0).ok_or_else(|| "give bytes, such as 100, 64k or 16m".into())
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wish = || "give a time, such as 500ms, 15s, 2m or 1h".to_owned();
    let unit_at = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let number: u64 = digits.parse().map_err(|_| wish())?;
    let factor: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if number == 0 => 1,
        _ => return Err(wish()),
    };
    number.checked_mul(factor).map(Duration::from_millis).ok_or_else(wish)
}

pub(crate) fn above_zero(text: &str) -> Result<Duration, String> {
    let none = || "give a time above 0; --ping-period 0 sends no pings".to_owned();
    Some(duration(text)?).filter(|time| !time.is_zero()).ok_or_else(none)
}

pub(crate) fn overflow(text: &str) -> Result<Overflow, String> {
    Ok(match text {
        "suspend" => Overflow::Suspend,
        "drop-oldest" => Overflow::DropOldest,
        "drop-latest" => Overflow::DropLatest,
        "latest" => Overflow::Latest,
        "close" => Overflow::Close,
        _ => return Err("give suspend, drop-oldest, drop-latest, latest or close".into()),
    })
}

pub(crate) fn long_line(text: &str) -> Result<LongLine, String> {
    Ok(match text {
        "split" => LongLine::Split,
        "cut" => LongLine::Cut,
        "close" => LongLine::Close,
        _ => return Err("give split, cut or close".into()),
    })
}

pub(crate) fn proxy_header(text: &str) -> Result<ProxyHeader, String> {
    Ok(match text {
        "x-forwarded-for" => ProxyHeader::XForwardedFor,
        "forwarded" => ProxyHeader::Forwarded,
        "proxy-protocol" => ProxyHeader::ProxyProtocol,
        _ => return Err("give x-forwarded-for, forwarded or proxy-protocol".into()),
    })
}

/// A mode of a socket, as chmod(1) takes it.
pub(crate) fn mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "give a mode in octal, such as 660".into())
}

/// Whether a switch of the environment is on.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "" | "0" | "no" | "false" | "off" | "n" | "f" | "disabled" => Ok(false),
        "1" | "yes" | "true" | "on" | "y" | "t" | "enabled" => Ok(true),
        _ => Err("give 1 or 0, yes or no, true or false, on or off".into()),
    }
}

/// The path of a page: one that a request can have as it stands, since nothing else would ever be asked
/// for.
pub(crate) fn page(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,;=:@".contains(&byte);
    let mut segments = text.strip_prefix('/').unwrap_or("").split('/');
    let good = segments
        .all(|segment| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_plain));
    if good { Ok(text.to_owned()) } else { Err("give a path from /, such as /metrics".into()) }
}
