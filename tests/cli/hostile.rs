//! What is typed, and around us, as nobody would who means well: every answer is one line, a hint, and the right code.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

use crate::common::Env;
use crate::common::tree::{tiny, tiny_source};

/// Two line breaks, which would pass for a paragraph, and what drives a terminal.
const ODD: &str = "a\n\nUsage: x\u{1b}[31mred";

#[test]
fn what_was_typed_is_repeated_escaped() {
    let env = Env::filled();
    for (code, words) in [
        (2, &["list", "--odd"][..]),
        (2, &["show", ODD]),
        (2, &["--box", ODD, "list"]),
        (2, &["list", "--color", ODD]),
        (2, &[ODD]),
        (2, &["init", "--from", "oci:\n"]),
        (125, &["run", "--net", ODD, "--", "true"]),
        (125, &["run", "--timeout", ODD, "--", "true"]),
        (125, &["run", "--commit", ODD, "--", "true"]),
        (125, &["run", "--bind", ODD, "--", "true"]),
        (125, &["run", "--bind", &format!("/:{ODD}"), "--", "true"]),
        (125, &["run", "--profile", ODD, "--", "true"]),
        (125, &["run", "--workdir", &format!("/{ODD}"), "--", "true"]),
        (125, &["run", "--report", &format!("/nosuch/{ODD}"), "--", "true"]),
    ] {
        let out = env.sandbox(words).run().code(code).stdout("");
        let errors = out.errors();
        let first = errors.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("sandbox: ") && !errors.contains('\u{1b}'),
            "{words:?}: {errors}"
        );
        // After the line and its hint there is nothing but clap's usage.
        let rest: Vec<_> = errors.lines().skip(1).filter(|line| !line.is_empty()).collect();
        let known = |line: &&str| line.starts_with("hint: ") || line.starts_with("Usage: sandbox ");
        assert!(
            rest.iter().all(known) || rest.last().is_some_and(|line| line.starts_with("  ")),
            "{words:?}: {errors}"
        );
        assert!(!rest.iter().any(|line| line.starts_with("Usage: x")), "{words:?}: {errors}");
    }
}

#[test]
fn a_box_that_is_not_there_is_told_by_every_command() {
    let env = Env::filled();
    for words in [
        &["gc"][..],
        &["gc", "--dry-run"],
        &["df"],
        &["fsck"],
        &["ps"],
        &["list"],
        &["list", "--all-boxes"],
        &["box", "list"],
        &["log"],
        &["undo"],
    ] {
        let words = [&["--box", "nosuch"], words].concat();
        drop(env.sandbox(&words).run().fault(3, "nosuch: there is no such box", "sandbox"));
        // A default is for those commands that have a use for it.
        let out = env.sandbox(&words[2..]).env("SANDBOX_BOX", "default").run();
        assert!(out.errors().is_empty() || words[2] == "undo", "{words:?}: {out:?}");
    }
}

#[test]
fn a_run_whose_record_is_damaged_can_be_thrown_away() {
    let env = Env::filled();
    let keep = || env.line(&["--keep-on-failure"], "mkdir -m 0 /left; exit 3").run().code(3);
    drop(keep());
    drop(keep());
    let runs = env.entries("runs");
    for (text, run) in ["{\"ru", "{}"].iter().zip(&runs) {
        fs::write(env.base().join(format!("runs/{run}/run.json")), text).unwrap();
        drop(env.sandbox(&["recover", run, "--as", "x"]).run().fault(
            7,
            "run.json",
            "fsck --repair",
        ));
        drop(env.sandbox(&["rm", "--run", run]).run().ok().says(run));
        drop(env.sandbox(&["rm", "--run", run]).run().fault(3, run, ""));
    }
    assert_eq!(env.entries("runs"), [""; 0]);
    drop(env.sandbox(&["gc"]).run().ok());
    drop(env.sandbox(&["fsck"]).run().ok());
}

/// The name of what `init` has made is not given up by the way.
#[test]
fn postinit_is_not_said_to_be_in_the_way() {
    let env = Env::filled();
    for words in [&["run", "--commit", "postinit", "--", "true"][..], &["snapshot", "two"]] {
        let out = env.sandbox(words).run();
        assert!(!out.errors().contains("sandbox rm"), "{out:?}");
    }
    let out = env.sandbox(&["run", "--commit", "postinit", "--", "true"]).run();
    drop(out.fault(125, "exists already", "init default --refresh"));
    drop(env.sandbox(&["rename", "two", "postinit"]).run().fault(4, "exists already", "--refresh"));
    let out = env.sandbox(&["run", "--commit", "two", "--", "true"]).run();
    drop(out.fault(125, "exists already", "sandbox rm two"));
}

#[test]
fn sources_that_are_none() {
    let env = Env::empty();
    let cut = env.path("cut.tar");
    let whole = fs::read(tiny()).unwrap();
    fs::write(&cut, &whole[..whole.len() / 2]).unwrap();
    drop(env.program("gzip").arg("-k").arg(&cut).run().ok());
    let packed = fs::read(env.path("cut.tar.gz")).unwrap();
    fs::write(env.path("cut.tar.gz"), &packed[..packed.len() / 2]).unwrap();
    let home = env.dir().display().to_string();
    let tar = |name: &str| format!("tar:{home}/{name}");
    for (code, source, why, hint) in [
        (2, String::new(), "read source: --from: it is empty", "tar:FILE"),
        (2, "tar:".to_owned(), "a file name is missing", "tar:FILE"),
        (2, tar(""), "is a directory, and no archive", "without `tar:`"),
        (2, format!("{home}/cut.tar"), "is not a directory", "--from tar:"),
        (1, tar("cut.tar"), "it ends too early", ""),
        (1, tar("cut.tar.gz"), "the file ends too early", ""),
    ] {
        let out = env.init(&["--from", &source]).run().fault(code, why, hint);
        let line = out.errors().lines().next().unwrap_or_default().to_owned();
        assert!(line.matches(&home).count() <= 1, "{line}");
    }
}

/// A word that is no text is named, and a box that is none is not taken for the default one.
#[test]
fn words_that_are_no_text() {
    let env = Env::filled();
    let odd = OsStr::from_bytes(b"a\xff");
    for (code, words) in [
        (2, &["show"][..]),
        (2, &["snapshot"]),
        (2, &["list", "--box"]),
        (125, &["run", "--commit"]),
        (125, &["run", "--user"]),
    ] {
        let rest: &[&str] = if words[0] == "run" { &["--", "true"] } else { &[] };
        let out = env.sandbox(words).arg(odd).args(rest).run();
        drop(out.fault(code, "not UTF-8: 'a\u{fffd}'", "--help"));
    }
    let list = env.sandbox(&["list"]);
    drop(list.env("SANDBOX_BOX", odd).run().fault(2, "box name", ""));
    // What need not be text passes as it is.
    let out = env.sandbox(&["run", "--", "printf", "%s"]).arg(odd).run().ok();
    assert_eq!(out.text(), "a\u{fffd}");
}

/// Too few descriptors are no damage, and no word of it is without a way out.
#[test]
fn too_few_descriptors() {
    let env = Env::filled();
    drop(env.line(&["--commit", "two"], "touch /two").run().ok());
    for limit in ["8", "10", "12", "16", "20", "24"] {
        for words in [
            &["run", "--", "true"][..],
            &["run", "--commit", "x", "--", "touch", "/x"],
            &["diff", "two"],
            &["df"],
            &["fsck"],
            &["cp", "two:/two", "-"],
            &["unshare", "--", "true"],
            &["start", "--", "true"],
            &["init", "other", "--from", "scratch"],
        ] {
            let line = format!("ulimit -n {limit}; exec \"$@\"");
            let sandbox = env.sandbox(words).words();
            let out = env.program("sh").args(["-c", &line, "sh"]).args(&sandbox).run();
            let errors = out.errors();
            if errors.contains("too many open files") {
                assert!(
                    errors.contains("hint: ") && !errors.contains("damage"),
                    "{limit}: {words:?}: {errors}"
                );
                assert!(!errors.contains("--base-dir must be"), "{limit}: {words:?}: {errors}");
            }
        }
        drop(env.sandbox(&["rm", "x"]).run());
        drop(env.sandbox(&["scrub", "other", "--all"]).run());
    }
    drop(env.sandbox(&["gc"]).run().ok());
    drop(env.sandbox(&["fsck"]).run().ok());
}

/// As a daemon leaves it to what it starts: the kernel reaps children then, and nobody can wait for them.
#[test]
fn whoever_ignores_the_end_of_children() {
    let env = Env::empty();
    let ignoring = |words: &[&str]| {
        let sandbox = env.sandbox(words).words();
        env.program("env").arg("--ignore-signal=CHLD").args(&sandbox).run()
    };
    drop(ignoring(&["init", "--from", &tiny_source()]).ok());
    drop(ignoring(&["run", "--commit", "one", "--", "touch", "/one"]).ok());
    drop(ignoring(&["run", "--", "sh", "-c", "sh -c 'exit 7'; exit $?"]).code(7));
    drop(ignoring(&["diff", "one"]).ok().stdout("A /one\n"));
    drop(ignoring(&["fsck"]).ok());
    drop(ignoring(&["unshare", "--", "true"]).ok());
    drop(ignoring(&["gc", "--all"]).ok());
}

#[test]
fn places_that_take_no_store() {
    let env = Env::empty();
    for place in ["/proc/store", "/etc/passwd/store", "/sys/store"] {
        let words = ["--base-dir", place, "init", "--from", "scratch"];
        let out = env.bare().args(words).run().stdout("");
        let errors = out.errors();
        assert!(errors.contains(place) || errors.contains("/proc"), "{errors}");
        assert!(errors.contains("hint: ") && errors.contains("--base-dir"), "{errors}");
        assert!(!errors.contains("by others"), "{errors}");
    }
}

/// The budget is the hurdle, and the hint says by which flag it is moved.
#[test]
fn a_budget_that_is_far_too_small() {
    let env = Env::filled();
    drop(env.sandbox(&["df", "--budget", "1"]).run().ok());
    let words = ["run", "--commit", "x", "--", "touch", "/x"];
    let out = env.sandbox(&words).env("SANDBOX_BUDGET", "on").run();
    drop(out.fault(125, "of the budget of the store is used", "--budget SIZE"));
}

/// To parse takes more than some are allowed.
#[test]
fn a_small_stack() {
    let env = Env::filled();
    for words in [
        &["list"][..],
        &["run", "--", "true"],
        &["run", "--upper", "disk", "--commit", "x", "--", "touch", "/x"],
        &["diff", "x"],
        &["fsck"],
        &["gc"],
        &["run", "--help"],
        &["init", "other", "--from", "scratch"],
    ] {
        let sandbox = env.sandbox(words).words();
        let line = "ulimit -s 192; exec \"$@\"";
        drop(env.program("sh").args(["-c", line, "sh"]).args(&sandbox).run().ok());
    }
    let sandbox = env.sandbox(&["--bogus"]).words();
    let out = env.program("sh").args(["-c", "ulimit -s 192; exec \"$@\"", "sh"]).args(&sandbox);
    drop(out.run().fault(2, "--bogus", "--help"));
}

#[test]
fn no_shell_inside_is_not_looked_for_by_a_shell() {
    let env = Env::filled();
    drop(env.line(&["--commit", "bare"], "rm -rf /bin").run().ok());
    for words in [&["shell", "--from", "bare"][..], &["run", "--from", "bare", "echo a"]] {
        drop(
            env.sandbox(words).run().code(127).warns("/bin/sh: command not found").warns("unshare"),
        );
    }
    let out = env.sandbox(&["run", "--from", "bare", "--", "nosuch"]).run().code(127);
    drop(out.warns("sandbox shell"));
    drop(env.sandbox(&["rm", "--run", "r-6h2vpr4qgmfnh"]).run().fault(3, "no such run", "ps`"));
}
