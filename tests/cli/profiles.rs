//! Profiles as a user meets them: the command `profile`, and the flags that change one.

use std::fs::File;

use serde_json::Value;

use crate::common::mode::real_root;
use crate::common::{Env, Ids, Out, ids};

/// The build profile, as the kernel numbers capabilities; see capabilities(7).
const BUILD: u64 = 0x8804_05fb;

/// A seccomp file that allows all but making directories.
const NO_MKDIR: &str = r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],
    "syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":28}]}"#;

/// Seccomp files of others.
const FIXTURES: [(&str, &str); 2] = [
    ("docker.json", include_str!("../fixtures/seccomp/docker.json")),
    ("podman.json", include_str!("../fixtures/seccomp/podman.json")),
];

fn capabilities(env: &Env, flags: &[&str]) -> (Out, u64) {
    let out = env.line(flags, "grep CapBnd /proc/self/status").run().ok();
    let text = out.line();
    let set = u64::from_str_radix(text.split_whitespace().last().unwrap(), 16).unwrap();
    (out, set)
}

#[test]
fn profiles_are_listed_and_shown() {
    let env = Env::empty();
    let out = env.sandbox(&["profile", "list"]).run().ok();
    let text = out.text();
    drop(out.check(["build", "dev", "strict"].iter().all(|name| text.contains(name)), "names"));
    let listed = env.json(&["profile", "list"]);
    assert_eq!(listed["profiles"][2]["name"], "strict");
    assert_eq!(listed["profiles"][2]["capabilities"], Value::Array(Vec::new()));
    assert_eq!(listed["profiles"][1]["network"], "host");
    // What is shown is a profile.
    let shown = env.sandbox(&["profile", "show", "build"]).run().ok();
    let file = env.file("mine.json", &shown.stdout);
    drop(env.sandbox(&["profile", "check", &file]).run().ok().says("a profile, for run --profile"));
    assert_eq!(env.json(&["profile", "show", "dev"])["network"], "host");
    drop(env.sandbox(&["profile", "show", "nope"]).run().fault(
        2,
        "nope: no such profile",
        "build",
    ));
}

#[test]
fn files_are_checked() {
    let env = Env::empty();
    for (name, text) in FIXTURES {
        let checked = env.json(&["profile", "check", &env.file(name, text)]);
        assert_eq!(checked["kind"], "seccomp");
        assert!(checked["allowed"].as_u64().unwrap() > 250, "{checked}");
    }
    let rule = |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{rule}]}}"#);
    let build = env.sandbox(&["profile", "show", "build"]).run().ok().text();
    for (text, told) in [
        ("{".to_owned(), "line 1 column 1"),
        ("{}".to_owned(), "missing field"),
        (build.replace("\"tmp\"", "\"temp\""), "unknown field `temp`"),
        (build.replace("CAP_KILL", "CAP_KIL"), "CAP_KIL: no such capability"),
        (build.replace("\"acct\"", "\"read\""), "read: two rules contradict"),
        (build.replace("/proc/acpi", "/."), "masked_paths: /: must not be the root"),
        (build.replace("/proc/bus", "//"), "readonly_paths: /: must not be the root"),
        (rule(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","arg":[]}"#), "unknown field `arg`"),
        (
            rule(
                r#"{"names":["read"],"action":"SCMP_ACT_ERRNO"},{"names":["read"],"action":"SCMP_ACT_LOG"}"#,
            ),
            "read: two rules contradict",
        ),
    ] {
        let file = env.file("bad.json", &text);
        let out = env.sandbox(&["profile", "check", &file]).run().fault(2, told, "");
        drop(out.check(true, told));
    }
    let file = env.file("odd.json", build.replace("\"acct\"", "\"frobnicate\""));
    drop(
        env.sandbox(&["profile", "check", &file])
            .run()
            .ok()
            .says("frobnicate: unknown system call, skipped"),
    );
    let file = env.file("open.json", rule(r#"{"names":["frob"],"action":"SCMP_ACT_ERRNO"}"#));
    let told = "frob: unknown system call, NOT refused";
    drop(env.sandbox(&["profile", "check", &file]).run().ok().says(told));
}

/// Rules under which nothing can be executed, or nothing can end, leave no process behind that tries for ever.
#[test]
fn rules_that_let_nothing_run_are_refused() {
    let env = Env::filled();
    let rules = |default: &str, names: &str| {
        let rule = format!(r#"{{"names":[{names}],"action":"SCMP_ACT_ALLOW"}}"#);
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_{default}","syscalls":[{rule}]}}"#);
        env.file("few.json", text)
    };
    let state = env.state();
    for default in ["ERRNO", "KILL_PROCESS", "KILL_THREAD", "TRAP"] {
        let file = rules(default, r#""read""#);
        for command in ["run", "start"] {
            let out = env.sandbox(&[command, "--seccomp", &file, "--", "true"]).run();
            drop(out.fault(125, "it does not allow execve", "profile check"));
        }
        let checked = env.sandbox(&["profile", "check", &file]).run().ok();
        let checked = checked.says("execve: refused").says("exit: refused");
        drop(checked.says("exit_group: refused"));
        // What we need ourselves is not all there.
        for names in [
            r#""execve","execveat","exit_group""#,
            r#""execve","execveat","exit","read","poll","ppoll""#,
        ] {
            let file = rules(default, names);
            let out = env.sandbox(&["run", "--seccomp", &file, "--", "true"]).run();
            drop(out.fault(125, "its seccomp rules refuse", "allow also"));
        }
        assert_eq!(env.state(), state);
    }
}

/// To allow what nobody knows is harmless; to refuse it is a protection that is not had.
#[test]
fn a_call_that_is_refused_by_an_unknown_name_is_a_lost_protection() {
    let env = Env::filled();
    let rules = |default: &str, names: &str, action: &str| {
        let rule = format!(r#"{{"names":[{names}],"action":"SCMP_ACT_{action}"}}"#);
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_{default}","syscalls":[{rule}]}}"#);
        env.file("calls.json", text)
    };
    let report = env.path("report.json");
    let run = |flags: &[&str]| {
        let flags = [flags, &["--report", report.to_str().unwrap()]].concat();
        env.line(&flags, "mkdir /made 2>/dev/null || echo refused").run()
    };
    // Where that is no boundary at all, it is refused for that.
    let none = ids() == Ids::Identity && real_root();
    let strict = |why| if none { "root inside is root of this machine" } else { why };
    for action in ["ERRNO", "KILL_PROCESS"] {
        let file = rules("ALLOW", r#""frob","nicate""#, action);
        let mut out = run(&["--seccomp", &file]).ok();
        for name in ["frob", "nicate"] {
            out = out.warns(&format!(
                "not enforced: system calls: --seccomp {file}: {name}: is to be refused"
            ));
        }
        let told: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        assert_eq!(told["lost"].as_array().unwrap().len(), 2, "{told}");
        drop(run(&["--seccomp", &file, "--strict"]).fault(
            125,
            strict("frob: is to be refused"),
            "",
        ));
    }
    let file = rules("ALLOW", r#""frob","mkdir""#, "ERRNO");
    drop(run(&["--seccomp", &file]).ok().stdout("refused\n").warns("frob"));
    drop(run(&["--seccomp", &rules("LOG", r#""frob""#, "ERRNO"), "--strict"]).fault(
        125,
        strict("frob"),
        "",
    ));
    let file = rules("ALLOW", r#""frob""#, "ALLOW");
    let out = run(&["--seccomp", &file]).ok();
    assert!(!String::from_utf8_lossy(&out.stderr).contains("frob"), "{out:?}");
    // In a profile as well.
    let build = env.sandbox(&["profile", "show", "build"]).run().ok().text();
    let mut build: serde_json::Value = serde_json::from_str(&build).unwrap();
    let text = std::fs::read_to_string(rules("ALLOW", r#""frob","mkdir""#, "ERRNO")).unwrap();
    build["seccomp"] = serde_json::from_str(&text).unwrap();
    let file = env.file("own.json", build.to_string());
    let out = run(&["--profile", &file]).ok().stdout("refused\n");
    drop(out.warns(&format!("profile {file}: frob: is to be refused")));
    drop(run(&["--profile", &file, "--strict"]).fault(125, strict("frob"), ""));
}

#[test]
fn what_is_no_small_file_is_refused_at_once() {
    let env = Env::filled();
    let fifo = env.path("fifo.json");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR).unwrap();
    let large = env.path("large.json");
    File::create(&large).unwrap().set_len(1 << 30).unwrap();
    let folder = env.folder("folder.json");
    for path in [fifo.to_str().unwrap(), large.to_str().unwrap(), &folder, "/dev/zero"] {
        let told = "not a regular file of at most 1 MiB";
        drop(env.sandbox(&["profile", "check", path]).run().fault(2, told, ""));
        drop(env.line(&["--seccomp", path], "true").run().fault(125, told, ""));
        if path.ends_with(".json") {
            drop(env.line(&["--profile", path], "true").run().fault(125, told, ""));
        }
    }
    let none = env.path("none.json");
    let none = none.to_str().unwrap();
    drop(env.sandbox(&["profile", "check", none]).run().fault(3, "no such file", ""));
    drop(env.line(&["--seccomp", none], "true").run().fault(125, "no such file", ""));
    let binary = env.file("binary.json", [0xff, 0xfe]);
    drop(env.line(&["--seccomp", &binary], "true").run().fault(125, "not UTF-8", ""));
}

#[test]
fn capabilities_are_added_and_dropped() {
    let env = Env::filled();
    let (_, set) = capabilities(&env, &["--cap-drop", "kill,CAP_MKNOD", "--cap-add", "NET_ADMIN"]);
    assert_eq!(set, BUILD & !(1 << 5) & !(1 << 27) | 1 << 12);
    let (_, set) = capabilities(&env, &["--cap-drop", "ALL", "--cap-add", "chown"]);
    assert_eq!(set, 1);
    // What is beyond the user namespace's powers does no harm, and needs no word.
    let (out, set) = capabilities(&env, &["--cap-add", "SYS_MODULE,SYS_TIME,SYS_BOOT"]);
    assert_eq!(set, BUILD | 1 << 16 | 1 << 25 | 1 << 22);
    drop(out.stderr(""));
    for (flags, told) in [
        (&["--cap-add", "ROOT"][..], "capability: ROOT: no such capability"),
        (&["--cap-add", "kill", "--cap-drop", "kill"], "CAP_KILL: is added and dropped"),
        (&["--cap-drop", ""], "no such capability"),
    ] {
        drop(env.line(flags, "true").run().fault(125, told, ""));
    }
}

#[test]
fn what_is_given_up_is_said_loudly() {
    let env = Env::filled();
    let build = env.sandbox(&["profile", "show", "build"]).run().ok().text();
    let admin = env.file("admin.json", build.replace("CAP_KILL", "CAP_SYS_ADMIN"));
    let calls = r#"{"defaultAction":"SCMP_ACT_ALLOW"}"#;
    let (all, (settings, _)) =
        (env.file("all.json", calls), build.split_once("\"seccomp\"").unwrap());
    let open = env.file("open.json", format!("{settings}\"seccomp\":{calls}}}"));
    let path = env.path("report.json");
    let report = ["--report", path.to_str().unwrap()];
    for (flags, protection, told) in [
        (["--cap-add", "SYS_ADMIN"], "capabilities", "administrator of its namespaces"),
        (["--seccomp", "none"], "system calls", "every system call of this kernel"),
        (["--seccomp", &all], "system calls", "every system call of this kernel"),
        (["--profile", &admin], "capabilities", "admin.json: CAP_SYS_ADMIN: the command is"),
        (["--profile", &open], "system calls", "open.json: the command may make every"),
    ] {
        let out = env.line(&[&flags[..], &report].concat(), "true").run().ok();
        drop(out.warns(told));
        let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(report["lost"][0]["protection"], protection, "{report}");
        let strict = [&["--strict"][..], &flags].concat();
        drop(env.line(&strict, "true").run().fault(125, "strict", ""));
    }
}

#[test]
fn system_calls_by_a_file() {
    let env = Env::filled();
    let file = env.file("no-mkdir.json", NO_MKDIR);
    let line = "mkdir /made";
    drop(env.line(&[], line).run().ok());
    drop(env.line(&["--seccomp", &file], line).run().code(1).warns("No space left"));
    // From the cache, and with another program once the file is another.
    drop(env.line(&["--seccomp", &file], line).run().code(1));
    let file = env.file("no-mkdir.json", NO_MKDIR.replace("28", "17"));
    drop(env.line(&["--seccomp", &file], line).run().code(1).warns("File exists"));
    for (name, text) in FIXTURES {
        drop(env.line(&["--seccomp", &env.file(name, text)], line).run().ok());
    }
    drop(env.line(&["--seccomp", "none"], line).run().ok());
    let docker = env.file(FIXTURES[0].0, FIXTURES[0].1);
    let out = env.line(&["--profile", &docker], "true").run();
    drop(out.fault(125, "this is a seccomp file", "--seccomp"));
    let broken = env.file("broken.json", "{\"defaultAction\": 1}");
    drop(env.line(&["--seccomp", &broken], "true").run().fault(125, "broken.json", ""));
}

#[test]
fn the_hosts_sys_only_when_asked_for() {
    let env = Env::filled();
    let line = "ls /sys | wc -l; ls /sys/firmware | wc -l; (echo x > /sys/x) 2>/dev/null; echo $?";
    drop(env.line(&[], "ls /sys | grep -v '^firmware$' | wc -l").run().ok().stdout("0\n"));
    let out = env.line(&["--sys", "ro"], line).run().ok();
    let text = out.text();
    let lines: Vec<_> = text.lines().collect();
    let shown = lines[0].parse::<u32>().unwrap() > 4 && lines[1] == "0" && lines[2] != "0";
    drop(out.check(shown, "/sys"));
    drop(env.line(&["--sys", "rw"], "true").run().fault(125, "rw", ""));
}
