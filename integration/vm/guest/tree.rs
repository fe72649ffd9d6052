//! A tree of which every state is known by its number, so that whoever looks at it later needs no notes.
//!
//! State N has the folders of the last three states, each with files of several sizes, a hard link, a
//! symlink and a mode; a file that every state renames; and one that every state writes again. So a step
//! makes, overwrites, renames and removes.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use super::{Numbers, Result};

/// Bytes of the files of a folder: none, less than a block, blocks, what needs several extents.
const SIZES: [usize; 7] = [0, 1, 100, 4095, 4096, 70_000, 200_000];
/// States whose folders are still there.
const KEPT: u64 = 3;

/// Takes `dir` to `state`: from the state before it, or from nothing.
pub(crate) fn fill(dir: &Path, state: u64) -> Result<()> {
    let before = dir.join(format!("moved{}", state - 1));
    let moved = dir.join(format!("moved{state}"));
    if before.try_exists()? {
        fs::rename(before, moved)?;
        if state > KEPT {
            fs::remove_dir_all(dir.join(format!("d{}", state - KEPT)))?;
        }
        folder(dir, state)?;
    } else {
        fs::write(moved, "moved\n")?;
        (first(state)..=state).try_for_each(|one| folder(dir, one))?;
    }
    fs::write(dir.join("state"), format!("{state}\n"))?;
    Ok(())
}

/// The oldest state whose folder `state` still has.
fn first(state: u64) -> u64 {
    state.saturating_sub(KEPT - 1).max(1)
}

fn folder(dir: &Path, state: u64) -> Result<()> {
    let folder = dir.join(format!("d{state}"));
    fs::create_dir(&folder)?;
    for (number, size) in SIZES.iter().enumerate() {
        fs::write(folder.join(format!("f{number}")), content(state, number, *size))?;
    }
    fs::set_permissions(folder.join("f2"), Permissions::from_mode(0o640))?;
    fs::hard_link(folder.join("f3"), folder.join("hard"))?;
    symlink("f4", folder.join("soft"))?;
    Ok(())
}

/// Looks whether `dir` is `state`: every file with its content, and nothing else.
pub(crate) fn check(dir: &Path, state: u64) -> Result<()> {
    let mut names: BTreeSet<String> = (first(state)..=state).map(|one| format!("d{one}")).collect();
    names.insert(format!("moved{state}"));
    names.insert("state".to_owned());
    same_names(dir, &names)?;
    same(&dir.join("state"), format!("{state}\n").as_bytes())?;
    same(&dir.join(format!("moved{state}")), b"moved\n")?;
    (first(state)..=state).try_for_each(|one| check_folder(&dir.join(format!("d{one}")), one))
}

fn check_folder(folder: &Path, state: u64) -> Result<()> {
    let mut names: BTreeSet<String> = (0..SIZES.len()).map(|number| format!("f{number}")).collect();
    names.extend(["hard".to_owned(), "soft".to_owned()]);
    same_names(folder, &names)?;
    for (number, size) in SIZES.iter().enumerate() {
        same(&folder.join(format!("f{number}")), &content(state, number, *size))?;
    }
    let mode = fs::metadata(folder.join("f2"))?.mode() & 0o7777;
    if mode != 0o640 {
        return Err(format!("{}/f2: mode {mode:o}", folder.display()).into());
    }
    if fs::metadata(folder.join("hard"))?.ino() != fs::metadata(folder.join("f3"))?.ino() {
        return Err(format!("{}/hard: no link to f3", folder.display()).into());
    }
    if fs::read_link(folder.join("soft"))? != Path::new("f4") {
        return Err(format!("{}/soft: another target", folder.display()).into());
    }
    Ok(())
}

fn same_names(dir: &Path, expected: &BTreeSet<String>) -> Result<()> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        found.insert(entry?.file_name().to_string_lossy().into_owned());
    }
    if found != *expected {
        return Err(format!("{}: has {found:?}, not {expected:?}", dir.display()).into());
    }
    Ok(())
}

fn same(file: &Path, expected: &[u8]) -> Result<()> {
    let found = fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    if found == expected {
        return Ok(());
    }
    let differs = found.iter().zip(expected).position(|(one, other)| one != other);
    let at = differs.unwrap_or(found.len().min(expected.len()));
    let (has, of) = (found.len(), expected.len());
    Err(format!("{}: {has} bytes of {of}, differs at {at}", file.display()).into())
}

fn content(state: u64, number: usize, size: usize) -> Vec<u8> {
    let mut numbers = Numbers::new(state * 100 + number as u64);
    let words = std::iter::repeat_with(|| numbers.next().to_le_bytes());
    words.take(size.div_ceil(8)).flatten().take(size).collect()
}
