//! The dynamic loader that an ELF file names (elf(5), PT_INTERP).
//!
//! execve(2) maps the loader and starts it, whatever file that is, as it does with the interpreter of a script.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

/// How many bytes of a file to read at once: the headers and, as linkers lay it out, the loader's name.
pub(super) const HEAD: usize = 1024;

/// The type of the segment that holds the name.
const INTERP: u64 = 3;
/// The kernel takes no table that is larger, and no name that is longer (load_elf_phdrs, load_elf_binary).
const LARGEST_TABLE: usize = 65_536;
const LONGEST_NAME: usize = 4096;

/// Where a number stands, and how many bytes it has.
type Place = (usize, usize);

/// One of the two forms: places in the header, the size of an entry of the table of segments, places in an entry.
struct Form {
    table: Place,
    entries: Place,
    entry: usize,
    offset: Place,
    size: Place,
}

const OF_32: Form =
    Form { table: (28, 4), entries: (44, 2), entry: 32, offset: (4, 4), size: (16, 4) };
const OF_64: Form =
    Form { table: (32, 8), entries: (56, 2), entry: 56, offset: (8, 8), size: (32, 8) };

/// The path of the loader, if `file`, which begins with `head`, is of ELF and names one. A file that the kernel would not
/// take either names none.
pub(super) fn loader(file: BorrowedFd<'_>, head: &[u8]) -> Option<CString> {
    read(head, |bytes, from| rustix::io::pread(file, bytes, from).unwrap_or(0))
}

fn read(head: &[u8], mut more: impl FnMut(&mut [u8], u64) -> usize) -> Option<CString> {
    let form = match head.strip_prefix(b"\x7fELF")?.first()? {
        1 => OF_32,
        2 => OF_64,
        _ => return None,
    };
    let mut part = |from: u64, length: usize| {
        let start = usize::try_from(from).ok()?;
        if let Some(known) = head.get(start..start.checked_add(length)?) {
            return Some(known.to_vec());
        }
        let mut bytes = vec![0; length];
        (more(&mut bytes, from) == length).then_some(bytes)
    };
    let entries = usize::try_from(number(head, form.entries)?).ok()?;
    let length = entries.checked_mul(form.entry).filter(|length| *length <= LARGEST_TABLE)?;
    let table = part(number(head, form.table)?, length)?;
    let entry = table.chunks_exact(form.entry).find(|one| number(one, (0, 4)) == Some(INTERP))?;
    let length = usize::try_from(number(entry, form.size)?).ok()?;
    let name = part(number(entry, form.offset)?, Some(length).filter(|it| *it <= LONGEST_NAME)?)?;
    CString::new(name.split(|byte| *byte == 0).next()?).ok()
}

/// A number in the byte order of this machine: the kernel takes no other.
fn number(bytes: &[u8], (at, width): Place) -> Option<u64> {
    let bytes = bytes.get(at..at + width)?;
    Some(match *bytes {
        [a, b] => u16::from_ne_bytes([a, b]).into(),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]).into(),
        _ => u64::from_ne_bytes(bytes.try_into().ok()?),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A file with a segment of another type and one that names a loader, which begins at `name_at`.
    pub(in crate::run) fn made(class: u8, loader: &str, name_at: usize) -> Vec<u8> {
        let form = if class == 1 { OF_32 } else { OF_64 };
        let mut file = vec![0; name_at];
        let mut put = |(at, width): Place, value: usize| {
            let value = value as u64;
            let bytes = match width {
                2 => (value as u16).to_ne_bytes().to_vec(),
                4 => (value as u32).to_ne_bytes().to_vec(),
                _ => value.to_ne_bytes().to_vec(),
            };
            file[at..at + width].copy_from_slice(&bytes);
        };
        let within = |(at, width): Place| (64 + form.entry + at, width);
        put(form.table, 64);
        put(form.entries, 2);
        put((64, 4), 6);
        put(within((0, 4)), 3);
        put(within(form.offset), name_at);
        put(within(form.size), loader.len() + 1);
        file[..5].copy_from_slice(&[0x7f, b'E', b'L', b'F', class]);
        file.extend(loader.as_bytes());
        file.push(0);
        file
    }

    fn of(file: &[u8]) -> Option<String> {
        let more = |bytes: &mut [u8], from: u64| {
            let rest = usize::try_from(from).ok().and_then(|from| file.get(from..)).unwrap_or(&[]);
            let length = rest.len().min(bytes.len());
            bytes[..length].copy_from_slice(&rest[..length]);
            length
        };
        let found = read(&file[..file.len().min(HEAD)], more);
        found.map(|name| name.into_string().unwrap_or_default())
    }

    #[test]
    fn loaders_are_found_near_and_far() {
        for class in [1, 2] {
            for name_at in [300, 1020, 5000] {
                assert_eq!(of(&made(class, "/lib/ld.so", name_at)).as_deref(), Some("/lib/ld.so"));
            }
        }
        assert_eq!(of(&made(3, "/lib/ld.so", 300)), None);
        assert_eq!(of(&made(2, &"x".repeat(LONGEST_NAME), 300)), None);
        assert_eq!(of(b"#!/bin/sh\n"), None);
    }

    /// Of a tree that was made here: the program that runs.
    #[test]
    #[cfg(target_env = "gnu")]
    fn ours_is_found() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert!(of(&own).is_some_and(|name| std::path::Path::new(&name).exists()));
    }

    /// Whatever a byte says, and wherever the file ends, nothing breaks.
    #[test]
    fn broken_files_are_read() {
        for class in [1, 2] {
            let good = made(class, "/lib/ld.so", 300);
            for at in 0..good.len() {
                drop(of(&good[..at]));
                for byte in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut bad = good.clone();
                    bad[at] = byte;
                    drop(of(&bad));
                }
            }
        }
    }
}
