//! Names of an archive, checked before they come near the file system.

use std::ffi::CString;

/// Longest path in bytes (PATH_MAX with its NUL).
const LONGEST: usize = 4096;

/// Longest component in bytes (NAME_MAX).
const LONGEST_COMPONENT: usize = 255;

/// The path beneath the root, its components joined by one `/`; empty for the root itself. `.` and doubled
/// or trailing separators are dropped.
pub(super) fn clean(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    if name.is_empty() {
        return Err("an empty name");
    }
    if name.len() > LONGEST {
        return Err("a name over 4096 bytes");
    }
    if name.starts_with(b"/") {
        return Err("an absolute name");
    }
    if name.contains(&0) {
        return Err("a name with a NUL byte");
    }
    let mut clean = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err("a name with `..`"),
            long if long.len() > LONGEST_COMPONENT => {
                return Err("a component of a name over 255 bytes");
            }
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(component);
    }
    Ok(clean)
}

/// The target of a symbolic link. It is never followed by us, so it may be anything that a link can hold.
pub(super) fn target(link: &[u8]) -> Result<CString, &'static str> {
    match link {
        b"" => Err("a symbolic link without target"),
        long if long.len() >= LONGEST => Err("a symbolic link's target over 4095 bytes"),
        _ => CString::new(link).map_err(|_| "a symbolic link's target with a NUL byte"),
    }
}
