//! Programs of the host with the ids of a box.

use std::io::{BufRead, BufReader};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::common::{Env, Ids, ids, left};

#[test]
fn the_tree_is_beside_the_root_and_the_ids_are_the_boxs() {
    let env = Env::filled();
    let sh = |flags: &[&str], line: &str| {
        env.sandbox(&["unshare"]).args(flags).args(["--", "sh", "-c", line]).run()
    };
    let line = "id -u; test -d $SANDBOX_ROOT/etc && test ! -e $SANDBOX_ROOT/none && test -e /proc/1/stat; \
                stat -c %u:%g $SANDBOX_ROOT/etc/passwd; pwd";
    let home = env.path("home");
    let out = sh(&[], line);
    let text = out.ok().text();
    assert!(text.starts_with("0\n0:0\n"), "{text}");
    // In range mode inside root is a stranger to the caller's directories.
    assert!(text.contains(home.to_str().unwrap()) || text.ends_with("\n/\n"), "{text}");
    // What it changes in the tree is dropped, what it changes elsewhere is real, the store is out of its sight.
    let out = env.folder("out");
    let line = format!(
        "echo x >$SANDBOX_ROOT/new && ls $SANDBOX_ROOT/new && ls $SANDBOX_ROOT/.. && echo real >{out}/real"
    );
    let said = sh(&[], &line).ok().text();
    assert!(said.ends_with("/new\nroot\n"), "{said}");
    assert_eq!(std::fs::read_to_string(env.path("out/real")).unwrap(), "real\n");
    drop(env.line(&[], "test ! -e /new").run().ok());
    if ids() != Ids::Single {
        drop(
            sh(&[], "chown 7:8 $SANDBOX_ROOT/etc/passwd && stat -c %u:%g $SANDBOX_ROOT/etc/passwd")
                .ok()
                .stdout("7:8\n"),
        );
    }
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn what_it_changed_can_be_kept() {
    let env = Env::filled();
    let sh = |flags: &[&str], line: &str| {
        env.sandbox(&["unshare"]).args(flags).args(["--", "sh", "-c", line]).run()
    };
    drop(sh(&["--commit", "a"], "echo x >$SANDBOX_ROOT/new").ok());
    drop(env.sandbox(&["diff", "a"]).run().ok().stdout("A /new\n"));
    drop(sh(&["--from", "a", "--commit", "b"], "echo x >$SANDBOX_ROOT/more; exit 3").code(3));
    drop(sh(&["--commit", "a"], "echo never").fault(125, "a: exists already", "another name"));
    drop(sh(&["--from", "nosuch"], "true").fault(125, "nosuch", ""));
    assert_eq!(env.snapshots(), ["postinit", "a"]);
}

#[test]
fn exit_codes_and_signals_are_the_commands() {
    let env = Env::filled();
    let run = |words: &[&str]| env.sandbox(&["unshare", "--"]).args(words).run();
    drop(run(&["sh", "-c", "cat; exit 7"]).code(7));
    drop(run(&["sh", "-c", "kill -9 $$"]).code(137));
    drop(run(&["nosuchprogram"]).fault(127, "nosuchprogram", ""));
    drop(run(&["/etc/passwd"]).fault(126, "/etc/passwd", ""));
    drop(env.sandbox(&["unshare", "--", ""]).run().fault(125, "no command given", ""));
    // A code of ours must not be taken for one of the command.
    drop(
        env.sandbox(&["unshare", "--from", "nosuch", "--", "true"]).run().fault(125, "nosuch", ""),
    );
    drop(env.sandbox(&["unshare", "--help"]).run().ok().says("125 anything of sandbox"));
    assert_eq!(env.entries("runs"), [""; 0]);
}

/// Runs a line, and once it has said so sends its group a signal, as a terminal does for a key. Gives the exit code,
/// none if a signal ended sandbox itself.
fn key(env: &Env, signal: Signal, name: &str, line: &str) -> Option<i32> {
    let words = ["unshare", "--commit", name, "--", "sh", "-c", line];
    let mut child = env.sandbox(&words).group().start();
    let mut said = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    kill_process_group(Pid::from_child(&child), signal).unwrap();
    child.wait().unwrap().code()
}

#[test]
fn a_key_is_for_the_command_which_decides_what_is_kept() {
    let env = Env::filled();
    for (signal, name) in [(Signal::INT, "INT"), (Signal::QUIT, "QUIT")] {
        let line = format!(
            "trap 'exit 0' {name}; echo x >$SANDBOX_ROOT/{name}; echo ready; while :; do sleep 0.1; done"
        );
        assert_eq!(key(&env, signal, name, &line), Some(0), "{name}");
        drop(env.sandbox(&["diff", name]).run().ok().says(&format!("A /{name}\n")));
    }
    let code = key(&env, Signal::INT, "never", "echo ready; exec sleep 1000");
    assert_eq!(code, Some(130));
    assert_eq!(env.snapshots(), ["postinit", "INT", "QUIT"]);
    assert_eq!(env.entries("runs"), [""; 0]);
}

/// What the command leaves behind, as with podman, goes on; what was committed does not change any more.
#[test]
fn what_it_leaves_behind_lives_on_and_writes_to_no_layer() {
    let env = Env::filled();
    let out = env.folder("out");
    let late = format!(
        "(until [ -e {out}/go ]; do sleep 0.02; done; echo late >$SANDBOX_ROOT/late; echo $? >{out}/said) \
         </dev/null >/dev/null 2>&1 & touch $SANDBOX_ROOT/early"
    );
    let sh = |flags: &[&str], line: &str| {
        env.sandbox(&["unshare"]).args(flags).args(["--", "sh", "-c", line]).run()
    };
    for flags in [&["--commit", "a"][..], &[]] {
        drop(sh(flags, &late).ok());
        assert!(!env.path("out/said").exists());
        env.file("out/go", "");
        left::eventually("what was left behind", || {
            let said = std::fs::read_to_string(env.path("out/said")).unwrap_or_default();
            if said.is_empty() { vec!["no word".into()] } else { Vec::new() }
        });
        // It was told that the tree is read-only by then.
        assert_ne!(std::fs::read_to_string(env.path("out/said")).unwrap(), "0\n");
        for name in ["out/go", "out/said"] {
            std::fs::remove_file(env.path(name)).unwrap();
        }
    }
    drop(env.sandbox(&["diff", "a"]).run().ok().stdout("A /early\n"));
    // Who has a file open that he may write to cannot be told, so nothing is kept.
    let open = format!(
        "(until [ -e {out}/go ]; do sleep 0.02; done) </dev/null >$SANDBOX_ROOT/log 2>&1 & sleep 0.1"
    );
    drop(sh(&["--commit", "b"], &open).fault(125, "still writes to the tree", "wait"));
    drop(sh(&[], &open).ok());
    env.file("out/go", "");
    assert_eq!(env.snapshots(), ["postinit", "a"]);
    drop(env.sandbox(&["fsck"]).run().ok());
}
