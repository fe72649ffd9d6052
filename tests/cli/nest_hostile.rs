//! What a payload may have made of the store inside its run: nothing of it comes in, and it is told what was wrong.
//! The payload is root of that store, so the test does it in its stead, to a run that was kept.

use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use serde_json::Value;

use crate::common::{Env, Ids, ids};
use crate::nest::{filled, nest};

/// A store inside, with the layers `one`, and `two` on it.
struct Inner {
    path: PathBuf,
    one: String,
    two: String,
}

impl Inner {
    fn layer(&self, id: &str) -> PathBuf {
        self.path.join("layers").join(id)
    }

    fn name(&self, name: &str) -> PathBuf {
        self.path.join("boxes/default/refs").join(name)
    }

    /// Changes a field of the record of `one`.
    fn forge(&self, field: &str, value: impl Into<Value>) {
        let path = self.layer(&self.one).join("layer.json");
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        record[field] = value.into();
        fs::write(path, record.to_string()).unwrap();
    }

    fn attribute(&self, path: &str, name: &CStr, value: &[u8]) {
        let path = self.layer(&self.one).join("fs").join(path);
        setxattr(path, name, value, XattrFlags::empty()).unwrap();
    }
}

fn kept(env: &Env) -> (String, Inner) {
    let line = "sandbox run --quiet --commit one -- sh -c 'mkdir /d; echo x >/d/file'; \
        sandbox run --quiet --from one --commit two -- touch /two; exit 3";
    drop(nest(env, &["--keep-on-failure"], line).run().code(3));
    let id = env.entries("runs").remove(0);
    let path = env.base().join("runs").join(&id).join("nest");
    let layer = |name: &str| -> String {
        let file = path.join("boxes/default/refs").join(name);
        let named: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        named["layer"].as_str().unwrap().to_owned()
    };
    let (one, two) = (layer("one"), layer("two"));
    (id, Inner { path, one, two })
}

/// Adopts what this has made of the store inside: it must be refused for that reason, and nothing comes of it.
#[track_caller]
fn refused(env: &Env, why: &str, make: impl FnOnce(&Inner)) {
    let (id, inner) = kept(env);
    make(&inner);
    let state = env.state();
    drop(env.sandbox(&["adopt", &id]).run().fault(1, why, ""));
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.state(), state, "{why}");
    env.drop_kept(&[&id]);
}

fn move_and_link(path: &Path, to: impl AsRef<Path>) {
    fs::rename(path, path.with_extension("away")).unwrap();
    symlink(to, path).unwrap();
}

const UNKNOWN: &str = "01m8m1ecnswyvyw0kam4ey3362";

#[test]
fn forged_records_are_refused() {
    let Some(env) = filled() else { return };
    let record = "it is not the record of a layer as sandbox writes it";
    refused(&env, record, |inner| inner.forge("id", UNKNOWN));
    refused(&env, record, |inner| inner.forge("parent", Value::Null));
    refused(&env, record, |inner| inner.forge("folds", vec![UNKNOWN]));
    refused(&env, "it is not a record", |inner| inner.forge("mount", "../../../etc"));
    refused(&env, &format!("layer {UNKNOWN}: it is not there"), |inner| {
        inner.forge("parent", UNKNOWN);
    });
    refused(&env, "does not end in a layer of this store", |inner| {
        inner.forge("parent", inner.two.as_str());
    });
    refused(&env, "layer.json: it is not a record", |inner| {
        fs::write(inner.layer(&inner.one).join("layer.json"), vec![b' '; 2 << 20]).unwrap();
    });
    refused(&env, "layer.json: it is not a record", |inner| {
        let file = inner.layer(&inner.one).join("layer.json");
        fs::remove_file(&file).unwrap();
        // In `range` mode it is of a stranger to root inside, who can read it all the same.
        mknodat(CWD, &file, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    });
    refused(&env, "read owners", |inner| {
        fs::write(inner.layer(&inner.one).join("owners"), "{\"path\":\"../x\"\n").unwrap();
    });
    // A layer of another box, which it was not lent.
    drop(env.init(&["second", "--from", "scratch"]).run().ok());
    let other = env.json(&["show", "--box", "second", "postinit"])["layer"].clone();
    let why = format!("layer {}: it is not there", other.as_str().unwrap());
    refused(&env, &why, |inner| inner.forge("parent", other));
}

#[test]
fn forged_names_are_refused() {
    let Some(env) = filled() else { return };
    let name =
        |layer: &str| format!("{{\"layer\":\"{layer}\",\"created\":\"2026-01-01T00:00:00Z\"}}");
    refused(&env, &format!("layer {UNKNOWN}: it is not there"), |inner| {
        fs::write(inner.name("three"), name(UNKNOWN)).unwrap();
    });
    refused(&env, "it is not a snapshot as sandbox writes it", |inner| {
        fs::write(inner.name("-rf"), name(&inner.one)).unwrap();
    });
    refused(&env, "one: it is not a record", |inner| {
        move_and_link(&inner.name("one"), "/etc/passwd");
    });
}

#[test]
fn symlinks_lead_nowhere() {
    let Some(env) = filled() else { return };
    let folder = "it is not a directory as sandbox writes it";
    let layers = env.base().join("layers");
    refused(&env, folder, |inner| move_and_link(&inner.path.join("layers"), &layers));
    refused(&env, folder, |inner| move_and_link(&inner.path.join("boxes"), "/etc"));
    refused(&env, folder, |inner| move_and_link(&inner.layer(&inner.one), "/"));
    refused(&env, folder, |inner| {
        move_and_link(&inner.layer(&inner.one).join("fs"), "/etc");
    });
    refused(&env, folder, |inner| {
        let fs = inner.layer(&inner.one).join("fs");
        fs::rename(&fs, fs.with_extension("away")).unwrap();
        fs::write(fs, "").unwrap();
    });
}

#[test]
fn strange_files_are_refused() {
    let Some(env) = filled() else { return };
    refused(&env, "/d", |inner| inner.attribute("d", c"user.overlay.redirect", b"/root"));
    refused(&env, "/d/file", |inner| inner.attribute("d/file", c"user.overlay.metacopy", b""));
    refused(&env, "/d/file", |inner| {
        inner.attribute("d/file", c"user.overlay.redirect", b"/etc/shadow");
    });
    if ids() == Ids::Range {
        refused(&env, "/d/null: a device node cannot be in a layer", |inner| {
            let path = inner.layer(&inner.one).join("fs/d/null");
            mknodat(CWD, path, FileType::CharacterDevice, Mode::RWXU, makedev(1, 3)).unwrap();
        });
    }
}

/// What is only put into words: a command line that would drive a terminal, times that cannot be, wrong counts.
#[test]
fn what_was_claimed_is_set_right() {
    let Some(env) = filled() else { return };
    let (id, inner) = kept(&env);
    inner.forge("argv", vec!["\u{1b}[2J", "x"]);
    inner.forge("created", "1999-01-01T00:00:00Z");
    inner.forge("files", 1_000_000);
    inner.forge("depth", 77);
    inner.forge("diff_id", "sha256:0");
    drop(env.sandbox(&["adopt", &id]).run().ok());
    let shown = env.json(&["show", "one"]);
    assert!(!shown["argv"][0].as_str().unwrap().contains('\u{1b}'), "{shown}");
    assert!(!shown["created"].as_str().unwrap().starts_with("1999"), "{shown}");
    assert_eq!(shown["files"], 2, "{shown}");
    assert!(shown["layer"] != inner.one.as_str(), "{shown}");
    assert_eq!(env.json(&["fsck"])["ok"], true);
    env.drop_kept(&[&id]);
}
