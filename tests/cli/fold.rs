//! Chains that are longer than one may be: folding, seen from outside. The limit is lowered by the hidden
//! variable, so that a handful of runs does it.

use std::collections::BTreeMap;

use crate::common::{Cmd, Env};

/// Everything that can be seen of a tree: names, types, modes, owners, times, links, and what is in the files.
const LOOK: &str = "cd /opt && find . -exec stat -c '%n %f %u %g %Y %N' {} + | sort && \
                    find . -type f -exec sha256sum {} + | sort";

fn short(command: Cmd) -> Cmd {
    command.env("SANDBOX_LONGEST_CHAIN", "6")
}

/// `run --keep` in a box whose chains have room for six layers.
fn keep(env: &Env, line: &str) {
    drop(short(env.line(&["--keep"], line)).run().ok());
}

fn look(env: &Env, from: &str) -> String {
    env.line(&["--from", from], LOOK).run().ok().text()
}

fn chain(env: &Env, snapshot: &str) -> Vec<String> {
    let shown = env.json(&["show", snapshot]);
    let chain = shown["chain"].as_array().unwrap();
    chain.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

/// What overlayfs shows must not change when layers are folded: all that can lie over something else.
const STEPS: [&str; 24] = [
    "cd /opt; mkdir -p d/e/f; echo 1 >d/e/f/one; echo 1 >d/x; ln -s x d/link; mkfifo d/fifo",
    "cd /opt; rm -r deep; echo 2 >d/two; ln d/two d/again",
    "cd /opt; mkdir deep; echo 3 >deep/three; rm d/x",
    "cd /opt; rm -r d/e; echo 4 >d/e",
    "cd /opt; rm d/e; mkdir d/e; echo 5 >d/e/five; chmod 1777 d",
    "cd /opt; rm -r d; mkdir d; echo 6 >d/six",
    "cd /opt; rm plain; mkdir plain; echo 7 >plain/seven",
    "cd /opt; rm -r plain; echo 8 >plain",
    "cd /opt; mv deep gone; mkdir deep; touch -d @1000000000 deep d",
    "cd /opt; rm -r gone; rm d/six; mkdir -m 700 secret; echo 10 >secret/ten",
    "cd /opt; chmod 0 secret; rm type; mkdir type; ln -s /etc type/link; mv plain type/plain",
    "cd /opt; rm -rf type; mkfifo type; echo 12 >>deep/three",
    "cd /opt; mkdir -p wide; for i in 1 2 3 4 5 6 7 8 9; do echo $i >wide/$i; done",
    "cd /opt; rm wide/[1-5]; echo again >wide/3",
    "cd /opt; mv wide/9 wide/nine; rm type; mkdir type; chmod 2755 type",
    "cd /opt; rm -r deep; ln -s d deep",
    "cd /opt; rm deep; mkdir deep; echo 17 >deep/a; chmod 600 deep/a",
    "cd /opt; rm -r wide; mkdir -p wide/1/2/3; echo 18 >wide/1/2/3/4",
    "cd /opt; rm -r wide/1/2; mkdir wide/1/2; chmod 700 secret; rm secret/ten; echo 19 >secret/n",
    "cd /opt; echo 20 >'a b'; touch -d @5 'a b'; mv 'a b' \"$(printf 'x\\ny')\"",
    "cd /opt; rm -r d type; touch d",
    "cd /opt; rm d; mkdir -p d/e/f; echo 22 >d/e/f/one; chown 0:0 d",
    "cd /opt; for i in 1 2 3; do rm -rf t; mkdir t; echo $i >t/$i; done",
    "cd /opt; rm -r secret deep; echo 24 >new",
];

#[test]
fn every_name_made_on_the_way_shows_its_own_content() {
    let env = Env::filled();
    let mut seen = BTreeMap::from([("postinit".to_owned(), look(&env, "postinit"))]);
    for (number, step) in STEPS.iter().enumerate() {
        keep(&env, step);
        let name = format!("s{number}");
        drop(env.sandbox(&["snapshot", &name]).run().ok());
        assert!(chain(&env, &name).len() <= 6, "{name}");
        // Before anything is folded that is in it, and again when all has been.
        assert_eq!(look(&env, "head"), look(&env, &name));
        seen.insert(name.clone(), look(&env, &name));
    }
    for (name, content) in &seen {
        assert_eq!(&look(&env, name), content, "{name}");
    }
}

/// How many layers a layer stands for, by its record.
fn folds(env: &Env, layer: &str) -> usize {
    let record = std::fs::read(env.base().join(format!("layers/{layer}/layer.json"))).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
    record["folds"].as_array().unwrap().len()
}

/// A box whose head has a chain of six, the most there is room for.
fn full() -> Env {
    let env = Env::filled();
    for number in 1..6 {
        keep(
            &env,
            &format!("echo {number} >/opt/n{number}; rm -f /opt/n2; mkdir -p /opt/d/{number}"),
        );
        drop(env.sandbox(&["snapshot", &format!("s{number}")]).run().ok());
    }
    assert_eq!(chain(&env, "head").len(), 6);
    env
}

#[test]
fn old_layers_go_with_their_names_and_not_before() {
    let env = full();
    let old = chain(&env, "head");
    keep(&env, "echo 6 >/opt/n6");
    let new = chain(&env, "head");
    assert_eq!((new.len(), folds(&env, &new[1])), (4, 4));
    assert_eq!((&new[0], &new[2]), (&old[0], &old[5]), "the base and the newest stay");
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 8, "every name keeps its own chain");
    let (five, head) = (look(&env, "s5"), look(&env, "head"));
    drop(env.sandbox(&["rm", "s1"]).run().ok());
    drop(env.sandbox(&["rm", "s3"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(look(&env, "s5"), five);
    // s5 is current: the next snapshot takes that over.
    drop(env.sandbox(&["snapshot", "last"]).run().ok());
    for name in ["s2", "s4", "s5"] {
        drop(env.sandbox(&["rm", name]).run().ok());
    }
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    let mut left = new.clone();
    left.sort();
    assert_eq!(env.entries("layers"), left, "what was folded is given back");
    assert_eq!(look(&env, "head"), head);
    // The newest of the old ones lives on beneath head, and its own chain is gone.
    drop(env.sandbox(&["show", &old[5]]).run().fault(3, "folded away", "sandbox list"));
    drop(env.sandbox(&["run", "--from", &new[1], "--", "true"]).run().fault(125, "4 layers", ""));
    drop(env.sandbox(&["diff", "head"]).run().ok().stdout("A /opt/n6\n"));
    // What follows parents sees where they end.
    drop(env.sandbox(&["fsck"]).run().ok());
    drop(env.sandbox(&["log", "--graph"]).run().ok().says(&new[3][..8]));
    let gone = env.sandbox(&["rollback", &old[5]]).run();
    drop(gone.fault(3, "folded away", ""));
}

#[test]
fn moves_are_taken_back_across_a_fold() {
    let env = full();
    let five = look(&env, "head");
    keep(&env, "echo 6 >/opt/n6");
    let six = look(&env, "head");
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(look(&env, "head"), five);
    assert_eq!(chain(&env, "head").len(), 6);
    keep(&env, "echo 6 >/opt/n6");
    drop(env.sandbox(&["snapshot", "six"]).run().ok());
    drop(env.sandbox(&["rollback", "s2"]).run().ok());
    for name in ["s3", "s4", "s5"] {
        drop(env.sandbox(&["rm", name]).run().ok());
    }
    // The log keeps what it can take back.
    drop(env.sandbox(&["gc"]).run().ok());
    for _ in 0..4 {
        drop(env.sandbox(&["undo"]).run().ok());
    }
    assert_eq!(look(&env, "s5"), five);
    let listed = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "").len();
    assert_eq!(listed(&look(&env, "head")), listed(&six));
    drop(env.sandbox(&["fsck"]).run().ok());
}

#[test]
fn snapshots_of_one_full_chain_share_a_fold_layer() {
    let env = full();
    for name in ["left", "right"] {
        let line = format!("echo {name} >/opt/side");
        drop(short(env.line(&["--commit", name], &line)).run().ok());
    }
    let (left, right) = (chain(&env, "left"), chain(&env, "right"));
    assert_eq!(left[..3], right[..3]);
    assert_ne!(left[3], right[3]);
    assert_eq!(folds(&env, &left[1]), 4);
    drop(env.sandbox(&["diff", "left", "right"]).run().ok().stdout("M /opt/side\n"));
}

#[test]
fn differences_across_a_fold() {
    let env = full();
    for number in 6..20 {
        keep(&env, &format!("echo {number} >/opt/n{number}; rm -f /opt/n4; echo x >>/opt/deep/a"));
        drop(env.sandbox(&["snapshot", &format!("s{number}")]).run().ok());
    }
    let diff = |from: &str, to: &str| env.sandbox(&["diff", from, to]).run().ok().text();
    // Within what was folded together, n4 came and went and left nothing in the fold layer.
    let last = diff("s4", "s19");
    let mut expected = "M /opt/deep/a\nD /opt/n4\nA /opt/d/5\n".to_owned();
    expected.extend((5..20).map(|number| format!("A /opt/n{number}\n")));
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&last), sorted(&expected));
    for (from, to) in [(1, 2), (2, 9), (5, 6), (8, 12), (12, 13), (18, 19), (3, 19)] {
        let (from, to) = (format!("s{from}"), format!("s{to}"));
        // What both views show, name by name, is what the truth is.
        let (old, new) = (look(&env, &from), look(&env, &to));
        let names = |view: &str| -> BTreeMap<String, String> {
            let mut all = BTreeMap::new();
            for line in view.lines().filter(|line| line.starts_with("./")) {
                let (name, rest) = line.split_once(' ').unwrap();
                // Times of directories are no change.
                let dir = rest.starts_with('4');
                all.insert(
                    format!("/opt{}", &name[1..]),
                    if dir { "dir".into() } else { rest.into() },
                );
            }
            all
        };
        let (old, new) = (names(&old), names(&new));
        let mut truth: Vec<_> = old
            .keys()
            .filter(|name| !new.contains_key(*name))
            .map(|name| format!("D {name}"))
            .collect();
        truth.extend(new.iter().filter_map(|(name, now)| match old.get(name) {
            None => Some(format!("A {name}")),
            Some(then) if then != now => Some(format!("M {name}")),
            Some(_) => None,
        }));
        truth.sort();
        // Appended to within one second: only the content tells.
        let found: Vec<_> = sorted(&diff(&from, &to));
        let found: Vec<_> = found.into_iter().filter(|line| !line.ends_with("/deep/a")).collect();
        truth.retain(|line| !line.ends_with("/deep/a"));
        assert_eq!(found, truth, "{from} {to}");
    }
    drop(env.sandbox(&["diff"]).run().ok().stdout("M /opt/deep/a\nA /opt/n19\n"));
    drop(env.sandbox(&["diff", "s19", "head"]).run().ok().stdout(""));
}

#[test]
fn a_fold_that_fails_keeps_what_was_to_be_committed() {
    let env = full();
    let (layers, head) = (env.entries("layers"), chain(&env, "head"));
    // Of the fold layer, then of the layer on top of it, then of the name.
    let steps = [
        "fold.link.before",
        "fold.attributes.before",
        "run.record.before#2",
        "publish.syncfs.before#1",
        "publish.rename.before#1",
        "publish.record.write.before#2",
        "publish.rename.before#2",
        "publish.layers.fsync.before#2",
        "head.rename.before",
    ];
    for (number, step) in steps.iter().enumerate() {
        let run = env.line(&["--keep"], "echo precious >/opt/new");
        let out = short(run).env("SANDBOX_FAIL", format!("{step}:ENOSPC")).run();
        let out = out.fault(125, "no space left", "sandbox recover r-");
        drop(out.stdout(""));
        assert_eq!(
            (env.entries("layers"), chain(&env, "head")),
            (layers.clone(), head.clone()),
            "{step}"
        );
        let kept = env.entries("runs");
        assert_eq!(kept.len(), 1, "{step}: {kept:?}");
        // Then there is space again.
        let name = format!("saved{number}");
        drop(short(env.sandbox(&["recover", &kept[0], "--as", &name])).run().ok());
        let line = env.line(&["--from", &name], "cat /opt/new /opt/n5; ls /opt/d").run().ok();
        drop(line.stdout("precious\n5\n1\n2\n3\n4\n5\n"));
        assert_eq!(chain(&env, &name).len(), 4);
        drop(env.sandbox(&["rm", &name]).run().ok());
        drop(env.sandbox(&["gc", "--all"]).run().ok());
        assert_eq!(env.entries("layers"), layers, "{step}");
    }
}

/// Two commits on one full chain at the same time make a fold layer each, or share one; both are whole.
#[test]
fn two_fold_at_once() {
    let env = full();
    let start = |name: &str| {
        let line = format!("echo {name} >/opt/{name}");
        short(env.line(&["--commit", name], &line)).start()
    };
    let names = ["a", "b", "c"];
    let children: Vec<_> = names.iter().map(|name| start(name)).collect();
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    for name in names {
        let path = format!("/opt/{name}");
        let out = env.sandbox(&["run", "--from", name, "--", "cat", &path, "/opt/n5"]).run().ok();
        drop(out.stdout(&format!("{name}\n5\n")));
        drop(env.sandbox(&["rm", name]).run().ok());
    }
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 6);
}
