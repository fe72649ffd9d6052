//! Long chains: a box in which one run after the other is kept, far past the number of layers that overlayfs
//! takes.
//!
//! A program of its own, because jobs in a user namespace want a process of one thread. The environment is
//! that of `integration/test.sh`. `SANDBOX_CHAIN_RUNS=N` (420 by default; 2000 is the promise) is how many
//! changes are recovered one upon the other by the library, `SANDBOX_KEPT_RUNS=N` (30) how many real runs
//! are kept.

#![expect(clippy::print_stdout, reason = "this program is its own test harness")]
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use jiff::Timestamp;
use sandbox::ops::recover::recover;
use sandbox::store::{BoxName, LayerId, RunRecord, RunState, SnapshotName, Store};

#[expect(dead_code, unused_imports, reason = "each test takes what it needs")]
mod common;

use common::Env;

/// Every so many changes one keeps its name.
const NAMED: usize = 100;

/// The most layers of a chain.
const LONGEST: usize = 64;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let wanted: Vec<_> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let cases: [(&str, fn()); 2] = [("recovered", recovered), ("kept", kept)];
    let (mut passed, mut failed) = (0, 0);
    for (name, case) in cases {
        let name = format!("chain::{name}");
        if !wanted.is_empty() && !wanted.iter().any(|word| name.contains(word.as_str())) {
            continue;
        }
        let begun = Instant::now();
        let ok = catch_unwind(AssertUnwindSafe(case)).is_ok();
        *(if ok { &mut passed } else { &mut failed }) += 1;
        let verdict = if ok { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.1} s)", begun.elapsed().as_secs_f64());
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored");
    ExitCode::from(u8::from(failed > 0))
}

fn number(variable: &str, default: usize) -> usize {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

/// A store with a box, on which the library works directly.
struct Chain<'a> {
    env: &'a Env,
    store: Store,
    home: BoxName,
    tip: LayerId,
}

impl<'a> Chain<'a> {
    fn new(env: &'a Env) -> Self {
        let store = Store::open(env.base()).expect("store");
        let home: BoxName = "default".parse().expect("name");
        let tip = store.resolve(&home, "head").expect("head").layer;
        Self { env, store, home, tip }
    }

    /// What `run --keep-on-failure` leaves, and then `recover`: one more layer. Change number `n` writes `n`
    /// into one file, makes another, and removes the one that was made three changes before.
    fn grow(&mut self, n: usize) {
        let map = self.store.open_box(&self.home).expect("box").record().id_map.clone();
        let parent = self.store.layer(&self.tip).expect("parent");
        let lock = self.store.lock_shared().expect("lock");
        let mut run = self.store.new_run(&lock, &map).expect("run");
        let record = RunRecord {
            run: run.id(),
            name: None,
            box_name: self.home.clone(),
            from: "head".to_owned(),
            layer: Some(self.tip),
            chain: parent.mount,
            scaffold: None,
            id_map: map.clone(),
            argv: vec![format!("change {n}")],
            started: Timestamp::now(),
            pid: std::process::id(),
            state: RunState::Running,
            exit: Some(0),
            copy_up: Vec::new(),
            plain: false,
            made: Vec::new(),
            nest: None,
            fault: None,
        };
        run.write_record(&record).expect("record");
        drop(lock);
        let upper = self.env.base().join(format!("runs/{}/layer/fs", run.id()));
        fs::create_dir(upper.join("opt")).expect("mkdir");
        fs::write(upper.join("opt/n"), format!("{n}\n")).expect("write");
        fs::write(upper.join(format!("opt/file-{n}")), "x").expect("write");
        let mut made = vec!["opt".to_owned(), "opt/n".to_owned(), format!("opt/file-{n}")];
        if n > 3 {
            let (class, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::empty());
            let gone = format!("opt/file-{}", n - 3);
            rustix::fs::mknodat(rustix::fs::CWD, upper.join(&gone), class, mode, 0)
                .expect("whiteout");
            made.push(gone);
        }
        let (uid, gid) = map.root_owner();
        for name in made {
            chown(upper.join(name), Some(uid), Some(gid)).expect("chown");
        }
        let id = run.id();
        run.keep(&record).expect("keep");
        self.tip = recover(&self.store, &id, &name(n)).expect("recover").layer;
        if !(n - 1).is_multiple_of(NAMED) {
            self.forget(n - 1);
        }
    }

    fn forget(&self, n: usize) {
        let opened = self.store.open_box(&self.home).expect("box");
        opened.remove(&self.store.lock_shared().expect("lock"), &name(n)).expect("remove");
    }

    fn mounted(&self) -> usize {
        self.store.layer(&self.tip).expect("record").mount.len()
    }
}

fn name(n: usize) -> SnapshotName {
    format!("n{n}").parse().expect("name")
}

/// What a run sees after change number `n`.
#[track_caller]
fn shows(env: &Env, n: usize, flags: &[&str]) {
    let from = format!("n{n}");
    let line = "cat /opt/n; cd /opt; ls -d file-* | sort -t- -k2n; cat /opt/plain";
    let out = env.line(&[&["--from", &from], flags].concat(), line).run().ok();
    let files = (n.saturating_sub(2).max(1)..=n).map(|n| format!("file-{n}\n"));
    drop(out.stdout(&format!("{n}\n{}plain\n", files.collect::<String>())));
}

fn recovered() {
    let count = number("SANDBOX_CHAIN_RUNS", 420);
    let env = Env::filled();
    let mut chain = Chain::new(&env);
    for n in 1..=count {
        chain.grow(n);
        assert!(chain.mounted() <= LONGEST, "{n}");
        if n == LONGEST - 1 {
            assert_eq!(chain.mounted(), LONGEST);
            for way in ["fd", "fd-attached", "lowerdir+", "mount"] {
                shows(&env, n, &["--overlay-way", way]);
            }
        }
    }
    let named: Vec<_> = (1..=count).filter(|n| n.is_multiple_of(NAMED) || *n == count).collect();
    for n in &named {
        shows(&env, *n, &[]);
    }
    // Neighbours on both sides of a fold, and the two ends.
    if count > 600 {
        let text = env.sandbox(&["diff", "n300", "n600"]).run().ok().text();
        assert_eq!(text.lines().count(), 1 + 3 + 3, "{text}");
    }
    let record = env.json(&["list"]);
    let depth = record["snapshots"].as_array().unwrap().iter().map(|s| s["depth"].as_u64()).max();
    assert_eq!(depth, Some(Some(count as u64)));
    drop(env.sandbox(&["fsck"]).run().ok());
    // The space goes with the names.
    for n in named.iter().filter(|n| **n != count) {
        chain.forget(*n);
    }
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    let left: BTreeSet<_> = env.entries("layers").into_iter().collect();
    let tip = chain.store.layer(&chain.tip).expect("tip").mount;
    assert_eq!(left, tip.iter().map(ToString::to_string).collect());
    shows(&env, count, &[]);
    if count > LONGEST {
        // Of each change that was folded the fold layer has what is still there: nothing but the last ones.
        let fold = env.base().join(format!("layers/{}/fs/opt", tip[1]));
        let files = fs::read_dir(fold).expect("fold").count();
        assert!(files <= 1 + 3, "{files} entries are left in the fold layer");
    }
    drop(env.sandbox(&["fsck"]).run().ok());
}

/// The same with nothing but the program: each run is kept and named.
fn kept() {
    let count = number("SANDBOX_KEPT_RUNS", 30);
    let long = count > LONGEST;
    let env = Env::filled();
    for n in 1..=count {
        let gone = n.saturating_sub(3);
        let line = format!("cd /opt; echo {n} >n; echo x >file-{n}; rm -f file-{gone}");
        let run = env.line(&["--keep"], &line);
        let run = if long { run } else { run.env("SANDBOX_LONGEST_CHAIN", "9") };
        drop(run.run().ok());
        drop(env.sandbox(&["snapshot", &name(n).to_string()]).run().ok());
    }
    for n in 1..=count {
        shows(&env, n, &[]);
    }
    // Neighbours, whichever of them stands on a fold layer, and names far apart.
    for n in 1..count {
        differ(&env, n, n + 1);
    }
    for n in (1..count).step_by((count / 10).max(1)) {
        differ(&env, n, count);
        differ(&env, count, n);
    }
    drop(env.sandbox(&["fsck"]).run().ok());
    for n in 1..count {
        drop(env.sandbox(&["rm", &name(n).to_string()]).run().ok());
    }
    drop(env.sandbox(&["rm", "postinit"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    shows(&env, count, &[]);
    drop(env.sandbox(&["fsck"]).run().ok());
    only_the_last_is_paid_for(&env);
}

/// The files of the `n`th change.
fn files(n: usize) -> BTreeSet<usize> {
    (n.saturating_sub(2).max(1)..=n).collect()
}

/// What `diff` says of two changes: all of it and nothing else.
#[track_caller]
fn differ(env: &Env, old: usize, new: usize) {
    let (before, after) = (files(old), files(new));
    let made = after.difference(&before).map(|n| format!("A /opt/file-{n}"));
    let gone = before.difference(&after).map(|n| format!("D /opt/file-{n}"));
    let mut wanted: Vec<_> = made.chain(gone).chain(["M /opt/n".to_owned()]).collect();
    let text = env.sandbox(&["diff", &format!("n{old}"), &format!("n{new}")]).run().ok().text();
    let mut found: Vec<_> = text.lines().collect();
    wanted.sort();
    found.sort_unstable();
    assert_eq!(found, wanted, "{old}, {new}");
}

/// The layers of the head are there and no other; fold layers hold what is left of what they stand for.
fn only_the_last_is_paid_for(env: &Env) {
    let shown = env.json(&["show", "head"]);
    let mut chain: Vec<_> =
        shown["chain"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let fold = env.base().join(format!("layers/{}/fs/opt", chain[1]));
    let left = fs::read_dir(fold).expect("fold").count();
    assert!(left <= 1 + 3, "{left} entries are left in the fold layer");
    // A layer is its directory, the record, fs, opt, two files and a whiteout; besides, the tree and the store.
    let inodes = space(&env.base().join("layers"));
    assert!(inodes <= chain.len() * 7 + 100, "{inodes} inodes for {} layers", chain.len());
    chain.sort_unstable();
    assert_eq!(env.entries("layers"), chain);
}

/// The inodes of a store.
fn space(dir: &Path) -> usize {
    fn look(dir: &Path, seen: &mut BTreeSet<u64>) {
        let Ok(list) = fs::read_dir(dir) else { return };
        for entry in list.flatten() {
            let found = entry.path().symlink_metadata().expect("stat");
            seen.insert(found.ino());
            if found.is_dir() {
                look(&entry.path(), seen);
            }
        }
    }
    let mut seen = BTreeSet::new();
    look(dir, &mut seen);
    seen.len()
}
