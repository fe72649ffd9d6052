//! Archives that are broken or hostile: a clear line, the right code, and nothing left of what was begun.

use std::fs;
use std::path::Path;

use tar::EntryType;

use crate::common::Env;
use crate::common::tree::{Tar, compressed};

/// `init` of these bytes fails, and leaves nothing: no store if there was none, else no box, run, layer.
#[track_caller]
fn refused(bytes: &[u8], code: i32, what: &str) {
    let env = Env::empty();
    let file = env.file("bad.tar", bytes);
    let source = format!("tar:{file}");
    drop(env.init(&["--from", &source]).run().fault(code, what, ""));
    assert!(!env.base().exists(), "{what}: the store is left over");
    drop(env.init(&["good", "--from", "scratch"]).run().ok());
    let state = env.state();
    drop(env.init(&["--from", &source]).run().fault(code, what, ""));
    assert_eq!(env.state(), state, "{what}: something is left over");
}

fn tar(make: impl FnOnce(&mut Tar)) -> Vec<u8> {
    let mut tar = Tar::new();
    tar.dir("etc/", 0o755, 0, 0);
    tar.file("etc/first", 0o644, 0, 0, b"first\n");
    make(&mut tar);
    tar.end()
}

/// Nor do the directories above it stay that were made for it.
#[test]
fn what_was_made_for_the_store_goes() {
    let env = Env::empty();
    let file = env.file("bad.tar", b"no archive at all, but long enough to be looked at as one");
    let deep = env.path("new/deep/store");
    fs::create_dir(env.path("new")).unwrap();
    let words = ["--base-dir", deep.to_str().unwrap(), "init", "--from", &format!("tar:{file}")];
    drop(env.bare().args(words).run().code(1));
    assert_eq!(fs::read_dir(env.path("new")).unwrap().count(), 0);
}

#[test]
fn not_an_archive() {
    refused(b"this is no archive at all, but a text that is long enough", 1, "bad.tar");
    refused(&vec![b'x'; 4096], 1, "bad.tar");
    refused(b"", 1, "bad.tar");
}

#[test]
fn cut_short() {
    let whole = tar(|tar| tar.file("big", 0o644, 0, 0, &vec![7; 100_000]));
    refused(&whole[..50_000], 1, "bad.tar");
    for program in ["gzip", "xz", "zstd"] {
        let packed = compressed(program, &whole);
        refused(&packed[..packed.len() * 2 / 3], 1, "bad.tar");
    }
}

#[test]
fn a_flipped_byte() {
    let mut whole = tar(|tar| tar.file("big", 0o644, 0, 0, &vec![7; 10_000]));
    // In a header, which has a checksum of its own.
    whole[512 + 512 + 512 + 110] ^= 0x55;
    refused(&whole, 1, "bad.tar");
    // Within compressed data: random bytes, so that there is something to flip.
    let noise: Vec<u8> =
        (0_u32..60_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let whole = tar(|tar| tar.file("big", 0o644, 0, 0, &noise));
    for program in ["gzip", "xz"] {
        let mut packed = compressed(program, &whole);
        let middle = packed.len() / 2;
        packed[middle] ^= 0xff;
        refused(&packed, 1, "bad.tar");
    }
}

#[test]
fn names_that_lead_out() {
    let outside = Path::new("/tmp/e2e-escaped");
    refused(&tar(|tar| tar.file("../e2e-escaped", 0o644, 0, 0, b"x")), 1, "..");
    refused(&tar(|tar| tar.file("etc/../../e2e-escaped", 0o644, 0, 0, b"x")), 1, "..");
    refused(&tar(|tar| tar.dir("etc/../..", 0o777, 0, 0)), 1, "..");
    assert!(!outside.exists());
}

/// An absolute name is taken as one in the new root, as tar(1) and docker do, or refused; never followed.
#[test]
fn absolute_names_stay_within() {
    let env = Env::empty();
    let target = env.path("escaped");
    let name = target.to_str().unwrap();
    let file = env.file("abs.tar", tar(|tar| tar.file(name, 0o644, 0, 0, b"x")));
    let out = env.init(&["--from", &format!("tar:{file}")]).run();
    assert!(!target.exists());
    drop(out.fault(1, "absolute", ""));
    assert!(!env.base().exists());
}

#[test]
fn a_file_through_a_symlink_is_refused() {
    let env = Env::empty();
    let victim = env.folder("victim");
    let bytes = tar(|tar| {
        tar.link(EntryType::Symlink, "out", &victim);
        tar.file("out/file", 0o644, 0, 0, b"x");
    });
    let file = env.file("link.tar", &bytes);
    drop(env.init(&["--from", &format!("tar:{file}")]).run().code(1).stdout(""));
    assert!(fs::read_dir(&victim).unwrap().next().is_none(), "a file was written outside");
    assert!(!env.base().exists());
}

#[test]
fn a_hard_link_that_leads_out_is_refused() {
    let bytes = tar(|tar| tar.link(EntryType::Link, "hard", "../../../../etc/passwd"));
    refused(&bytes, 1, "hard");
    let bytes = tar(|tar| {
        tar.link(EntryType::Symlink, "etc/out", "/etc");
        tar.link(EntryType::Link, "hard", "etc/out/passwd");
    });
    refused(&bytes, 1, "hard");
    refused(&tar(|tar| tar.link(EntryType::Link, "hard", "etc/later")), 1, "hard");
}

/// The last of several entries of one name holds, as with tar(1).
#[test]
fn duplicate_entries() {
    let env = Env::empty();
    let bytes = tar(|tar| {
        tar.file("etc/first", 0o600, 0, 0, b"second\n");
        tar.dir("etc/", 0o711, 0, 0);
        tar.link(EntryType::Symlink, "thing", "etc/first");
        tar.file("thing", 0o644, 0, 0, b"a file now\n");
    });
    let file = env.file("twice.tar", &bytes);
    drop(env.init(&["--from", &format!("tar:{file}")]).run().ok());
    let changes = env.json(&["diff"])["changes"].clone();
    let seen: Vec<_> = changes
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            (
                change["path"].as_str().unwrap().to_owned(),
                change["type"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    let expected = [("etc", "dir"), ("etc/first", "file"), ("thing", "file")];
    assert_eq!(seen, expected.map(|(path, kind)| (path.to_owned(), kind.to_owned())));
    let layer = env.layer("postinit");
    assert_eq!(fs::read_to_string(layer.parent().unwrap().join("owners")).ok(), None);
}

/// Devices, and what overlayfs takes for the mark of a deleted file: none of them is made.
#[test]
fn devices_are_kept_and_not_made() {
    let env = Env::empty();
    let bytes = tar(|tar| {
        tar.device("null", 1, 3);
        tar.device("etc/gone", 0, 0);
    });
    let file = env.file("dev.tar", bytes);
    drop(env.init(&["--from", &format!("tar:{file}")]).run().ok().says("2 files have"));
    let layer = env.layer("postinit");
    // What stands for a device is an empty file; what it is, `owners` says.
    for name in ["null", "etc/gone"] {
        let place = fs::symlink_metadata(layer.join(name)).expect("a place");
        assert!(place.is_file() && place.len() == 0, "{name}");
    }
    drop(env.sandbox(&["diff"]).run().ok().stdout("A /etc\nA /etc/first\nA /etc/gone\nA /null\n"));
}

/// A failure of one id mode leaves nothing in a store that has boxes of another one only.
#[test]
fn a_failure_in_another_id_mode_leaves_nothing() {
    let env = Env::empty();
    drop(env.sandbox(&["init", "--ids", "single", "--from", "scratch"]).run().ok());
    let state = env.state();
    let bytes = tar(|tar| tar.file("../x", 0o644, 0, 0, b"x"));
    let source = format!("tar:{}", env.file("bad.tar", bytes));
    drop(env.init(&["other", "--from", &source]).run().fault(1, "bad.tar: extract: ../x", ""));
    assert_eq!(env.state(), state);
    assert_eq!(env.entries("trash"), [""; 0]);
}
