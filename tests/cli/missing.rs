//! A layer that a name or head stands on is missing: damage, whichever command meets it, with the place and a way out.

use std::fs;
use std::path::PathBuf;

use crate::common::{Env, tree};

/// postinit; one on it, two on that and current; three beside head; a kept run on two.
struct Chain {
    env: Env,
    kept: String,
}

fn chain() -> Chain {
    let env = Env::filled();
    let line = |flags: &[&str], line: &str| env.line(flags, line).run();
    drop(line(&["--keep"], "echo 1 >/one").ok());
    drop(env.sandbox(&["snapshot", "one"]).run().ok());
    drop(line(&["--keep"], "echo 2 >/two").ok());
    drop(env.sandbox(&["snapshot", "two"]).run().ok());
    drop(line(&["--commit", "three"], "echo 3 >/three").ok());
    drop(line(&["--keep-on-failure"], "echo 4 >/four; exit 9").code(9));
    let kept = env.entries("runs").pop().expect("a kept run");
    Chain { env, kept }
}

impl Chain {
    /// Every command that opens what stands on the layer of `two` says that `what` is missing, and changes nothing.
    #[track_caller]
    fn refused_everywhere(&self, what: &str) {
        let Self { env, kept } = self;
        let source = env.file("source", "new");
        let target = env.path("target");
        let target = target.to_str().expect("UTF-8");
        let before = env.state();
        let ours: [&[&str]; 16] = [
            &["show", "two"],
            &["diff"],
            &["diff", "two"],
            &["diff", "three"],
            &["diff", "postinit", "three"],
            &["diff", "--run", kept],
            &["cp", "two:/two", target],
            &["cp", &source, "two:/new", "--as", "copied"],
            &["snapshot", "again"],
            &["snapshot", "two", "-m", "said", "--force"],
            &["rollback", "two"],
            &["rollback", "three"],
            &["rollback", "head"],
            &["clean"],
            &["rename", "two", "deux"],
            &["recover", kept, "--as", "recovered"],
        ];
        for words in ours {
            drop(env.sandbox(words).run().fault(7, what, "sandbox fsck"));
        }
        let payloads: [&[&str]; 8] = [
            &["run", "--dry-run", "--", "sh"],
            &["run", "--", "sh"],
            &["run", "--keep", "--", "sh"],
            &["run", "--commit", "never", "--", "sh"],
            &["run", "--from", "three", "--", "sh"],
            &["shell", "--run", kept],
            &["start", "--", "sh"],
            &["unshare", "--from", "three", "--commit", "never", "--", "sh"],
        ];
        for words in payloads {
            let out = env.sandbox(words).run().code(125);
            assert!(out.errors().contains(what), "{words:?}: {}", out.errors());
            assert!(out.errors().contains("hint: `sandbox fsck"), "{words:?}: {}", out.errors());
        }
        assert_eq!(env.state(), before);
        drop(env.sandbox(&["fsck"]).run().code(7));
        drop(env.sandbox(&["fsck", "--repair"]).run().code(0));
        drop(env.sandbox(&["run", "--", "sh", "-c", ":"]).run().ok());
    }
}

#[test]
fn the_layer_of_a_name() {
    let chain = chain();
    let env = &chain.env;
    let layer = wrapper(env, "two");
    tree::remove(&layer);
    for words in [&["list"][..], &["list", "--all-boxes"], &["show"], &["show", "two"], &["df"]] {
        let out = env.sandbox(words).run().code(7);
        assert!(out.errors().contains("is missing"), "{words:?}: {}", out.errors());
    }
    chain.refused_everywhere(layer.file_name().and_then(|name| name.to_str()).expect("id"));
    assert_eq!(env.snapshots(), ["postinit", "one"]);
}

#[test]
fn a_layer_beneath() {
    let chain = chain();
    let layer = wrapper(&chain.env, "one");
    tree::remove(&layer);
    chain.refused_everywhere(layer.file_name().and_then(|name| name.to_str()).expect("id"));
    assert_eq!(chain.env.snapshots(), ["postinit"]);
}

#[test]
fn the_tree_of_a_layer() {
    let chain = chain();
    let fs = chain.env.layer("two");
    tree::remove(&fs);
    let what = format!("{}/fs", wrapper_name(&fs));
    chain.refused_everywhere(&what);
    assert_eq!(chain.env.snapshots(), ["postinit", "one"]);
}

/// The first layer, which `scrub` and `undo` go back to.
#[test]
fn the_first_layer() {
    let env = chain().env;
    let layer = wrapper(&env, "postinit");
    tree::remove(&layer);
    let id = layer.file_name().and_then(|name| name.to_str()).expect("id");
    for words in [&["rollback", "postinit"][..], &["scrub", "--snapshots", "--force"]] {
        drop(env.sandbox(words).run().fault(7, id, "sandbox fsck"));
    }
    // What goes is not asked what it stands on.
    drop(env.sandbox(&["rm", "three"]).run().ok());
    drop(env.sandbox(&["fsck", "--repair"]).run().code(0));
}

fn wrapper(env: &Env, snapshot: &str) -> PathBuf {
    env.layer(snapshot).parent().expect("a layer").to_owned()
}

fn wrapper_name(fs: &std::path::Path) -> String {
    let wrapper = fs.parent().expect("a layer");
    assert!(fs::exists(wrapper).expect("look"));
    wrapper.file_name().and_then(|name| name.to_str()).expect("id").to_owned()
}
