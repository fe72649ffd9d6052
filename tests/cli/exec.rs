//! One more command in a run that stays.

use std::process::Stdio;

use crate::common::{Env, Ids, left, mode};

/// Starts `sleep` under this name, with these flags.
fn started(env: &Env, name: &str, flags: &[&str]) {
    let start = env.sandbox(&["start", "--name", name]).args(flags).args(["--", "sleep", "1000"]);
    drop(start.run().ok());
}

/// Ends the run's first command, and so the run, and waits until nothing is left of it.
fn ended(env: &Env, name: &str) {
    drop(env.sandbox(&["exec", name, "kill -9 2"]).run());
    left::eventually("the run", || env.entries("runs"));
}

#[test]
fn a_command_joins_with_its_own_descriptors_and_exit_code() {
    let env = Env::filled();
    started(&env, "web", &[]);
    let exec = |words: &[&str]| env.sandbox(&["exec", "web"]).args(words);
    drop(
        exec(&["--", "sh", "-c", "cat; echo err >&2; exit 7"])
            .input("in\n")
            .run()
            .code(7)
            .stdout("in\n"),
    );
    // It sees what the first command sees, and the first command.
    drop(exec(&["echo x >/made; cat /proc/2/comm"]).run().ok().stdout("sleep\n"));
    // What that is made of, too, by which init scripts know what they have started.
    drop(exec(&["--", "readlink", "/proc/2/exe"]).run().ok());
    drop(exec(&["cat", "/made", "/proc/sys/kernel/hostname"]).run().ok().stdout("x\ndefault\n"));
    drop(exec(&["--", "sh", "-c", "kill -15 $$"]).run().code(143));
    drop(exec(&["--", "nosuch"]).run().fault(127, "nosuch: command not found", ""));
    drop(exec(&["--", "/etc/passwd"]).run().fault(126, "not executable", ""));
    drop(exec(&["-w", "/nowhere", "--", "true"]).run().fault(125, "/nowhere", "--workdir"));
    drop(exec(&["--user=-1", "--", "true"]).run().fault(125, "user: -1", ""));
    drop(exec(&["--tty", "--", "true"]).run().fault(125, "--tty: none of", ""));
    drop(env.sandbox(&["exec", "nosuch", "--", "true"]).run().fault(
        125,
        "nosuch: there is none",
        "ps",
    ));
    ended(&env, "web");
    let over = "it has ended with exit code";
    drop(exec(&["--", "true"]).run().fault(125, over, "sandbox logs web"));
}

#[test]
fn a_command_has_the_runs_surroundings_unless_it_is_told() {
    let env = Env::filled();
    started(&env, "web", &["-e", "A=run", "-e", "B=run", "--workdir", "/tmp"]);
    let line = "echo $A $B $HOME; pwd; ulimit -c";
    let exec = |flags: &[&str]| env.sandbox(&["exec"]).args(flags).args(["web", line]).run();
    drop(exec(&[]).ok().stdout("run run /root\n/tmp\n0\n"));
    drop(exec(&["-e", "B=mine", "-w", "/etc"]).ok().stdout("run mine /root\n/etc\n0\n"));
    let user = env
        .sandbox(&[
            "exec",
            "-u",
            "1:1",
            "web",
            "--",
            "sh",
            "-c",
            "id -u; grep CapEff /proc/self/status",
        ])
        .run();
    if crate::common::ids() == Ids::Single {
        drop(user.fault(125, "the id map (single) does not hold it", ""));
    } else {
        drop(user.ok().stdout("1\nCapEff:\t0000000000000000\n"));
    }
    // Its own time is not that of its set-up.
    let words = ["exec", "--setup-timeout", "5s", "web", "--", "sh", "-c", "sleep 7; echo over"];
    drop(env.sandbox(&words).run().ok().stdout("over\n"));
    ended(&env, "web");
}

/// The report of a process about itself, by the kernel's own view.
const REPORT: &str = "grep -E '^(Cap|NoNewPrivs|Seccomp|Uid|Gid|Groups)' /proc/self/status; \
    for n in user mnt pid ipc uts cgroup net; do readlink /proc/self/ns/$n; done; \
    stat -c '%d:%i' / ; ulimit -a; umask; cat /proc/self/limits; \
    for n in 3 4 5 6 7 8 9 10 11 12; do test -e /proc/self/fd/$n && readlink /proc/self/fd/$n; done; exit 0";

#[test]
fn a_joined_command_is_confined_as_the_first_one() {
    let profiles = if crate::common::ids() == Ids::Identity && mode::real_root() {
        &["build", "dev"][..]
    } else {
        &["build", "dev", "strict"]
    };
    for profile in profiles {
        let env = Env::filled();
        let dir = env.folder("out");
        let bind = format!("{dir}:/out:rw");
        let line = format!("({REPORT}) >/out/first; sleep 1000");
        let start = env.sandbox(&["start", "--name", "web", "--profile", profile, "--bind", &bind]);
        drop(start.args(["--", "sh", "-c", &line]).run().ok());
        let first = || std::fs::read_to_string(env.path("out/first")).unwrap_or_default();
        left::eventually("the report", || {
            if first().contains("Max") { vec![] } else { vec!["none".to_owned()] }
        });
        drop(env.sandbox(&["exec", "web", REPORT]).run().ok().stdout(&first()));
        drop(
            env.sandbox(&[
                "exec",
                "web",
                "mount -t tmpfs none /tmp 2>/dev/null && echo mounted; kill -9 1; echo alive",
            ])
            .run()
            .ok()
            .stdout("alive\n"),
        );
        ended(&env, "web");
    }
}

#[test]
fn the_commands_end_with_their_run_and_say_so() {
    let env = Env::filled();
    started(&env, "web", &[]);
    let exec = || env.sandbox(&["exec", "web", "--", "sh", "-c", "echo here; exec sleep 1000"]);
    let children: Vec<_> = (0..3).map(|_| exec().start()).collect();
    let there = env.sandbox(&["exec", "web", "for n in 1 2 3 4 5 6 7 8 9; do test $(cat /proc/[0-9]*/comm | grep -c sleep) = 4 && exit 0; sleep 0.2; done; exit 1"]);
    drop(there.run().ok());
    drop(env.sandbox(&["exec", "web", "kill -9 2"]).run());
    for child in children {
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(137), "{out:?}");
        assert_eq!(String::from_utf8_lossy(&out.stdout), "here\n");
        let told = String::from_utf8_lossy(&out.stderr);
        assert!(told.contains("exec: the run has ended, and the command with it"), "{told}");
    }
    left::eventually("the run", || env.entries("runs"));
}

/// Neither of our two processes leaves the command behind when it is killed; and what dies does not keep the
/// run from ending.
#[test]
fn a_killed_client_takes_its_command_with_it() {
    let env = Env::filled();
    started(&env, "web", &[]);
    let count = || {
        let out =
            env.sandbox(&["exec", "web", "cat /proc/[0-9]*/comm 2>/dev/null | grep -c cat_me"]);
        out.run().text().trim().parse::<u32>().unwrap()
    };
    drop(env.sandbox(&["exec", "web", "--", "cp", "/bin/sleep", "/cat_me"]).run().ok());
    for victim in ["client", "minder"] {
        let mut words = env.sandbox(&["exec", "web", "--", "/cat_me", "1000"]).words();
        let program = words.remove(0);
        let mut child = std::process::Command::new(program)
            .args(words)
            .env("HOME", env.path("home"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        left::eventually(
            "no command",
            || if count() == 1 { vec![] } else { vec!["it".to_owned()] },
        );
        let pid = child.id();
        let kill = if victim == "client" {
            pid.to_string()
        } else {
            let children = format!("/proc/{pid}/task/{pid}/children");
            std::fs::read_to_string(children).unwrap().trim().to_owned()
        };
        assert!(!kill.contains(' '), "one process of ours minds the command: {kill}");
        drop(env.program("kill").args(["-9", &kill]).run().ok());
        drop(child.wait());
        left::eventually("a command without its client", || {
            if count() == 0 { vec![] } else { vec!["it".to_owned()] }
        });
    }
    ended(&env, "web");
}

#[test]
fn signals_are_passed_on() {
    let env = Env::filled();
    started(&env, "web", &[]);
    let line = "trap 'echo got; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = env.sandbox(&["exec", "web", "--", "sh", "-c", line]).start();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut out, &mut first).unwrap();
    assert_eq!(first, "ready\n");
    drop(env.program("kill").args(["-TERM", &child.id().to_string()]).run().ok());
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut out, &mut rest).unwrap();
    assert_eq!((rest.as_str(), child.wait().unwrap().code()), ("got\n", Some(4)));
    ended(&env, "web");
}

#[test]
fn only_runs_that_stay_can_be_joined() {
    let env = Env::filled();
    let mut child = env.sandbox(&["run", "--", "sh", "-c", "echo up; exec cat"]).start();
    let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut String::new()).unwrap();
    let run = env.entries("runs").remove(0);
    drop(env.sandbox(&["exec", &run, "--", "true"]).run().fault(
        125,
        "it cannot be asked",
        "sandbox start",
    ));
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
    drop(env.sandbox(&["run", "--keep-on-failure", "--", "false"]).run().code(1));
    let kept = env.entries("runs").remove(0);
    drop(env.sandbox(&["exec", &kept, "--", "true"]).run().fault(
        125,
        "it has ended, and is kept",
        "shell --run",
    ));
    env.drop_kept(&[&kept]);
}

/// A hostile run exchanges the program under our hands for a link to our own binary, and scripts for it.
#[test]
fn our_own_binary_is_never_executed_inside() {
    let env = Env::filled();
    let swap = "cp /bin/true /good; ln -s /proc/self/exe /link; printf '#!/proc/self/exe\\n' >/script; chmod 755 /script; \
        cp /good /prog; echo up >/up; \
        while :; do cp /good /a; mv /a /prog; ln -sf /proc/self/exe /a; mv /a /prog; cp /script /a; mv /a /prog; \
        cat /script >/mixed; chmod 755 /mixed; cat /good >/mixed; done 2>/dev/null";
    drop(env.sandbox(&["start", "--name", "web", "--", "sh", "-c", swap]).run().ok());
    let up = || match env.sandbox(&["exec", "web", "cat /up 2>/dev/null"]).run().text().as_str() {
        "up\n" => Vec::new(),
        _ => vec!["not up".to_owned()],
    };
    left::eventually("the run", up);
    for program in ["/link", "/script"] {
        let out = env.sandbox(&["exec", "web", "--", program, "--version"]).run().code(126);
        assert!(!out.text().contains("sandbox"), "{out:?}");
    }
    for _ in 0..60 {
        for program in ["/prog", "/mixed"] {
            let out = env.sandbox(&["exec", "web", "--", program, "--version"]).run();
            assert!(!out.text().contains("sandbox"), "{out:?}");
        }
    }
    ended(&env, "web");
}

#[test]
fn scripts_are_executed_as_the_kernel_does() {
    let env = Env::filled();
    started(&env, "web", &[]);
    let make = "printf '#!/bin/sh -e\\necho $0 \"$@\"; false; echo never\\n' >/s; printf '#! /s word\\n' >/t; chmod 755 /s /t";
    drop(env.sandbox(&["exec", "web", make]).run().ok());
    drop(env.sandbox(&["exec", "web", "--", "/s", "a b", "c"]).run().code(1).stdout("/s a b c\n"));
    drop(env.sandbox(&["exec", "web", "--", "/t", "x"]).run().code(1).stdout("/s word /t x\n"));
    drop(env.sandbox(&["exec", "-w", "/", "web", "--", "./s"]).run().code(1).stdout("./s\n"));
    drop(env.sandbox(&["exec", "web", "chmod 644 /s"]).run().ok());
    drop(env.sandbox(&["exec", "web", "--", "/s"]).run().fault(126, "not executable", ""));
    drop(env.sandbox(&["exec", "web", "printf '#!/none\\n' >/s; chmod 755 /s"]).run().ok());
    drop(env.sandbox(&["exec", "web", "--", "/s"]).run().fault(
        126,
        "interpreter or dynamic loader",
        "",
    ));
    drop(env.sandbox(&["exec", "web", "--", "/etc"]).run().fault(126, "not executable", ""));
    ended(&env, "web");
}
