//! PAX extended headers (POSIX.1-2017, pax, "Extended Header"): records `LEN KEY=VALUE\n`.
//!
//! They are parsed by length, not by line: a value may hold any byte, and binary attributes do.

use rustix::fs::Timespec;

/// The records of one header, in their order. A key may come several times (GNU sparse maps 0.0).
pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// All records of an extended header, or what is wrong with it.
pub(super) fn parse(mut data: &[u8]) -> Result<Records, &'static str> {
    const BROKEN: &str = "a malformed extended header";
    let mut records = Vec::new();
    while !data.is_empty() {
        let space = data.iter().position(|byte| *byte == b' ').ok_or(BROKEN)?;
        let len = number(&data[..space]).and_then(|len| usize::try_from(len).ok()).ok_or(BROKEN)?;
        if len <= space + 1 || len > data.len() || data[len - 1] != b'\n' {
            return Err(BROKEN);
        }
        let record = &data[space + 1..len - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(BROKEN)?;
        records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
        data = &data[len..];
    }
    Ok(records)
}

/// A decimal number without sign.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds since 1970 with a fraction, perhaps negative: `1700000000.123456789`, `-1.5`.
pub(super) fn time(text: &[u8]) -> Option<Timespec> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let whole = i64::try_from(number(parts.next()?)?).ok()?;
    let mut fraction = parts.next().unwrap_or_default().to_vec();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    fraction.resize(9, b'0');
    let nanos = i64::try_from(number(&fraction)?).ok()?;
    Some(match (negative, nanos) {
        (false, _) => Timespec { tv_sec: whole, tv_nsec: nanos },
        (true, 0) => Timespec { tv_sec: -whole, tv_nsec: 0 },
        (true, _) => Timespec { tv_sec: -whole - 1, tv_nsec: 1_000_000_000 - nanos },
    })
}
