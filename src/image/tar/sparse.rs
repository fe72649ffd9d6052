//! Maps of sparse files: which stretches of a file the archive holds.
//!
//! GNU tar has written four forms: type `S` with the map in the header (and more blocks after it), and PAX
//! keys `GNU.sparse.*` in the versions 0.0 (repeated offset and numbytes), 0.1 (one list) and 1.0 (a text
//! before the data).

use super::pax::{Records, number};

/// A stretch of data: offset in the file and length, in bytes.
pub(super) type Stretch = (u64, u64);

/// More stretches than this are no honest file.
pub(super) const MOST: usize = 1 << 20;

/// What the PAX records say about a sparse file.
#[derive(Debug, Default)]
pub(super) struct Described {
    /// The true name, where the header has a made-up one.
    pub(super) name: Option<Vec<u8>>,
    /// The size of the file with its holes.
    pub(super) size: Option<u64>,
    /// The stretches, if the header holds them.
    pub(super) map: Option<Vec<Stretch>>,
    /// The stretches stand before the data.
    pub(super) map_in_data: bool,
}

/// Reads the `GNU.sparse.*` records.
pub(super) fn described(records: &Records) -> Result<Described, &'static str> {
    const BROKEN: &str = "a malformed sparse map";
    let mut found = Described::default();
    let mut numbers: Vec<u64> = Vec::new();
    let (mut old, mut major) = (false, 0);
    for (key, value) in records {
        let Some(key) = key.strip_prefix(b"GNU.sparse.") else { continue };
        match key {
            b"name" => found.name = Some(value.clone()),
            b"size" | b"realsize" => found.size = Some(number(value).ok_or(BROKEN)?),
            b"major" => major = number(value).ok_or(BROKEN)?,
            b"offset" | b"numbytes" => {
                old = true;
                numbers.push(number(value).ok_or(BROKEN)?);
            }
            b"map" => {
                old = true;
                for text in value.split(|byte| *byte == b',').filter(|text| !text.is_empty()) {
                    numbers.push(number(text).ok_or(BROKEN)?);
                }
            }
            _ => {}
        }
    }
    found.map_in_data = major == 1;
    if major > 1 {
        return Err("a sparse map of an unknown version");
    }
    if old && !found.map_in_data {
        found.map = Some(pairs(&numbers)?);
    }
    if (found.map.is_some() || found.map_in_data) && found.size.is_none() {
        return Err(BROKEN);
    }
    Ok(found)
}

/// Offsets and lengths in turn.
pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Stretch>, &'static str> {
    if !numbers.len().is_multiple_of(2) || numbers.len() / 2 > MOST {
        return Err("a malformed sparse map");
    }
    Ok(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
}

/// Whether the stretches are in order, do not overlap, lie within the file and are all of the stored data.
pub(super) fn check(map: &[Stretch], size: u64, stored: u64) -> Result<(), &'static str> {
    let (mut end, mut sum) = (0_u64, 0_u64);
    for (offset, len) in map {
        if *offset < end {
            return Err("a sparse map out of order");
        }
        end = offset.checked_add(*len).ok_or("a sparse map beyond all sizes")?;
        sum += len;
    }
    if end > size || sum != stored {
        return Err("a sparse map that does not fit the sizes");
    }
    Ok(())
}
