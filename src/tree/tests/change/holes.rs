//! Files that are almost all hole: only what is data in one of them can be read in a lifetime.

use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

use rustix::fs::ftruncate;
use rustix::io::Errno;

use super::*;

/// Not a whole number of blocks.
const SIZE: u64 = (8 << 40) - 1;
/// Where the file system has no files of that size.
const SMALLER: u64 = (1 << 40) - 1;

/// What is written, and where.
type Writes<'a> = &'a [(u64, &'a [u8])];

fn make(path: &Path, writes: Writes<'_>, age: u64) {
    let file = fs::File::create(path).expect("file");
    match ftruncate(&file, SIZE) {
        Err(Errno::FBIG) => ftruncate(&file, SMALLER).expect("truncate"),
        other => other.expect("truncate"),
    }
    for (at, bytes) in writes {
        file.write_all_at(bytes, *at).expect("write");
    }
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(age);
    file.set_modified(time).expect("time");
}

/// Whether two files of different ages are told to hold the same, asked both ways round.
fn same(from: Writes<'_>, to: Writes<'_>) -> bool {
    let dir = temp();
    for view in ["from", "to", "layer"] {
        fs::create_dir(dir.path().join(view)).expect("view");
    }
    let [from_dir, to_dir, layer] = ["from", "to", "layer"].map(|view| dir.path().join(view));
    make(&from_dir.join("f"), from, 1);
    make(&to_dir.join("f"), to, 2);
    write(&layer, "f", "");
    let there = found(&from_dir, &to_dir, &[&layer]);
    assert_eq!(there, found(&to_dir, &from_dir, &[&layer]));
    match there.as_slice() {
        [line] if line == "f metadata file" => true,
        [line] if line == "f modified file" => false,
        other => panic!("{other:?}"),
    }
}

const MIDDLE: u64 = SMALLER / 2;
const LAST: u64 = SMALLER - 1;

#[test]
fn holes_in_both_are_equal_and_cost_nothing() {
    assert!(same(&[], &[]));
    assert!(same(&[(MIDDLE, b"a")], &[(MIDDLE, b"a")]));
    assert!(same(&[(0, b"a"), (LAST, b"z")], &[(0, b"a"), (LAST, b"z")]));
}

#[test]
fn one_byte_between_holes_is_found() {
    assert!(!same(&[(MIDDLE, b"a")], &[(MIDDLE, b"b")]));
    assert!(!same(&[(MIDDLE, b"a")], &[(MIDDLE + 1, b"a")]));
    assert!(!same(&[(0, b"a"), (LAST, b"z")], &[(0, b"a"), (LAST, b"y")]));
}

#[test]
fn data_against_a_hole_is_compared_with_zeroes() {
    let zeroes = [0; 200_000];
    let mut other = zeroes;
    other[199_999] = 1;
    assert!(same(&[(MIDDLE, &zeroes)], &[]));
    assert!(!same(&[(MIDDLE, &other)], &[]));
}

#[test]
fn holes_may_be_at_different_places() {
    let zeroes = [0; 300_000];
    let mut other = zeroes;
    other[299_999] = 1;
    assert!(same(&[(0, b"a"), (4 << 20, &zeroes)], &[(0, b"a"), (8 << 20, &zeroes)]));
    assert!(!same(&[(0, b"a"), (4 << 20, &other)], &[(0, b"a"), (8 << 20, &zeroes)]));
    assert!(!same(&[(4 << 20, &other)], &[(8 << 20, &other)]));
    // One stretch over the start of the other, and several within one.
    assert!(same(&[(0, &zeroes)], &[(100_000, &zeroes)]));
    assert!(!same(&[(0, &zeroes)], &[(100_000, &other)]));
    let parts: Writes<'_> = &[(8_192, b"\0"), (65_536, b"\0"), (262_144, b"\0")];
    assert!(same(&[(0, &zeroes)], parts));
    assert!(!same(&[(0, &other)], parts));
}
