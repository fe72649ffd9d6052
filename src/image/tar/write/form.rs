//! The parts of a tar stream that are computed: PAX records, fields, maps of holes.

use std::os::fd::BorrowedFd;

use rustix::fs::Stat;
use rustix::io::Errno;

use crate::fault::{Context, Fault};
use crate::tree::copy::next_data;

pub(super) const BLOCK: usize = 512;

pub(super) type Records = Vec<(Vec<u8>, Vec<u8>)>;

pub(super) fn unwritten(error: std::io::Error) -> Fault {
    let fault = Err::<(), _>(error).context("write", "the tar stream").expect_err("it is one");
    // Where it goes is not the store, so that no gc makes room there.
    Fault { hint: None, ..fault }
}

/// Fills a field of a header; false if the value has to stand elsewhere, and is cut here.
pub(super) fn fill(field: &mut [u8], value: &[u8]) -> bool {
    let most = value.len().min(field.len());
    field[..most].copy_from_slice(&value[..most]);
    value.len() <= field.len() && value.is_ascii()
}

pub(super) fn time(seconds: i64, nanos: i64) -> Vec<u8> {
    let text = match (seconds < 0, nanos) {
        (true, 1..) => format!("-{}.{:09}", -(seconds + 1), 1_000_000_000 - nanos),
        _ => format!("{seconds}.{nanos:09}"),
    };
    text.into_bytes()
}

/// The stretches of data of a file with holes, by start and end; none if it has no holes to speak of.
pub(super) fn stretches(
    file: BorrowedFd<'_>,
    stat: &Stat,
    size: u64,
) -> Result<Option<Vec<(u64, u64)>>, Errno> {
    const MOST: usize = 4096;
    if u64::try_from(stat.st_blocks).unwrap_or(0) * 512 >= size || size < BLOCK as u64 {
        return Ok(None);
    }
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some((start, end)) = next_data(file, at, size)? {
        found.push((start, end));
        at = end;
        if found.len() > MOST {
            return Ok(None);
        }
    }
    Ok((found != [(0, size)]).then_some(found))
}

/// The map of GNU sparse 1.0: numbers in lines, filled up to a block.
pub(super) fn sparse_map(stretches: &[(u64, u64)]) -> Vec<u8> {
    let mut map = format!("{}\n", stretches.len()).into_bytes();
    for (start, end) in stretches {
        map.extend_from_slice(format!("{start}\n{}\n", end - start).as_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

/// The body of a PAX header.
pub(super) fn records(records: &Records) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        // Blank, `=` and line end; the length counts its own digits, too.
        let rest = key.len() + value.len() + 3;
        let mut len = rest + 1;
        while len != rest + len.to_string().len() {
            len = rest + len.to_string().len();
        }
        body.extend_from_slice(len.to_string().as_bytes());
        for part in [b" ".as_slice(), key, b"=", value, b"\n"] {
            body.extend_from_slice(part);
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_itself() {
        let text = |value: usize| records(&vec![(b"k".to_vec(), vec![b'v'; value])]);
        assert_eq!(text(1), b"6 k=v\n");
        assert_eq!(text(4), b"9 k=vvvv\n");
        assert_eq!(text(5), b"11 k=vvvvv\n");
        for size in [90, 91, 92, 93, 94, 990, 991, 992, 993] {
            let record = text(size);
            let told: usize =
                std::str::from_utf8(&record).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(told, record.len());
        }
    }

    #[test]
    fn times_before_1970_have_a_fraction_towards_zero() {
        assert_eq!(time(5, 7), b"5.000000007");
        assert_eq!(time(-1, 500_000_000), b"-0.500000000");
        assert_eq!(time(-2, 250_000_000), b"-1.750000000");
        assert_eq!(time(-3, 0), b"-3.000000000");
    }
}
