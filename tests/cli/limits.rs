//! Limits: by a cgroup where there is one, else by what stands in for it, and then it is said.

use std::fs::File;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::common::mode::is_root;
use crate::common::{Env, Ids, debian, ids};

/// `sandbox run FLAGS -- sh -c LINE` and its report.
fn reported(env: &Env, flags: &[&str], line: &str) -> (crate::common::Out, Value) {
    let path = env.path("report.json");
    let report = ["--report", path.to_str().unwrap()];
    let out = env.line(&[flags, &report].concat(), line).run();
    let report = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    (out, report)
}

/// Whether the report says that nothing enforces this in full.
fn is_lost(report: &Value, protection: &str) -> bool {
    let lost = report["lost"].as_array().unwrap();
    lost.iter().any(|one| one["protection"] == protection)
}

#[test]
fn memory_is_limited() {
    let env = Env::filled();
    // 64 MiB in one process.
    let line = "x=$(head -c 67108864 /dev/zero | tr '\\0' x); echo ${#x}";
    let (out, report) = reported(&env, &["--memory", "16M"], line);
    assert!(!out.text().contains("67108864"), "{}", out.text());
    if is_lost(&report, "memory") {
        drop(out.warns("not enforced: memory: ").warns("RLIMIT_DATA"));
    } else {
        drop(out.warns("--memory"));
        assert_eq!(report["error"], "memory");
        assert!(report["limits"]["oom_kills"].as_u64().unwrap() > 0);
    }
    let (out, _) = reported(&env, &["--memory", "256M"], "echo enough");
    drop(out.ok().stdout("enough\n"));
}

#[test]
fn processes_are_limited() {
    let env = Env::filled();
    let line = "for n in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all";
    let (out, report) = reported(&env, &["--pids", "5"], line);
    if ids() == Ids::Identity && is_lost(&report, "pids") {
        drop(out.ok().stdout("all\n").warns("the machine's root is not limited in processes"));
    } else {
        drop(out.check(report["exit"] != 0, "nine processes were made"));
    }
    // The command is one.
    let (out, _) = reported(&env, &["--pids", "1"], "true && echo x");
    drop(out.ok().stdout("x\n"));
    let (out, _) = reported(&env, &["--pids", "2"], "(exit 3); echo $?");
    drop(out.ok().stdout("3\n"));
}

#[test]
fn processor_time_is_limited_or_it_is_said() {
    let env = Env::filled();
    let (out, report) = reported(&env, &["--cpus", "0.5"], "echo x");
    let out = out.ok().stdout("x\n");
    if is_lost(&report, "cpus") {
        drop(out.warns("not enforced: cpus: ").warns("processor time is not limited"));
        // Nothing is run with less than was asked for, if that is the wish.
        let flags = ["--cpus", "0.5", "--strict"];
        let out = env.line(&flags, "echo x").run().stdout("");
        // Root of the machine inside is refused before anything else is.
        match ids() {
            Ids::Identity if is_root() => drop(out.code(125).warns("run: strict: ")),
            _ => drop(out.fault(125, "run: strict: cpus: ", "without --strict it runs")),
        }
    }
    let plan = env.sandbox(&["run", "--dry-run", "--json", "--cpus", "0.5", "--", "true"]);
    let plan = plan.run().ok().json();
    assert_eq!(is_lost(&plan, "cpus"), is_lost(&report, "cpus"), "{plan}");
}

#[test]
fn each_process_is_limited() {
    let env = Env::filled();
    let flags = ["--ulimit", "nofile=64:128", "--ulimit", "cpu=60", "--ulimit", "core=0"];
    let line = "ulimit -Sn; ulimit -Hn; ulimit -t; ulimit -c";
    drop(env.line(&flags, line).run().ok().stdout("64\n128\n60\n0\n").stderr(""));
    // The last word holds.
    let flags = ["--ulimit", "nofile=64", "--ulimit", "nofile=32"];
    drop(env.line(&flags, "ulimit -n").run().ok().stdout("32\n"));
}

#[test]
fn limits_that_cannot_be_right() {
    let env = Env::filled();
    let state = env.state();
    for (flag, value, why) in [
        ("--memory", "0", "must be more than 0"),
        ("--memory", "1.5x", "unknown unit `x`"),
        ("--memory", "1.5G", "not a size"),
        ("--memory", "-1", ""),
        ("--memory", "4K", "less than 1M"),
        ("--memory", "1000T", "this machine has"),
        ("--pids", "0", "must be more than 0"),
        ("--pids", "many", "not a number of processes"),
        ("--pids", "4000000000", "room for"),
        ("--cpus", "0", "at least 0.01"),
        ("--cpus", "1x", "not a number of processors"),
        ("--cpus", "100000", "processors for this process"),
        ("--ulimit", "nofile", "NAME=SOFT"),
        ("--ulimit", "files=1", "no such limit: files"),
        ("--ulimit", "nofile=1k", "not a number"),
        ("--ulimit", "nofile=2:1", "above the hard one"),
        ("--ulimit", "nofile=99999999999", "above the caller's hard limit"),
        ("--ulimit", "nofile=3", "less than 4: no program starts with that"),
        ("--upper", "tmpfs:1000T", "bytes of memory and swap"),
    ] {
        let flag = format!("{flag}={value}");
        drop(env.sandbox(&["run", &flag, "--", "true"]).run().stdout("").fault(125, why, ""));
    }
    assert_eq!(env.state(), state);
}

#[test]
fn a_grace_period_is_kept() {
    let env = Env::filled();
    let stubborn = "trap 'echo asked' TERM; while :; do sleep 0.05; done";
    let (out, report) = reported(&env, &["--timeout", "3s:1s"], stubborn);
    drop(out.code(137).stdout("asked\n").warns("ended after 3 s: --timeout"));
    assert_eq!((&report["error"], &report["signal"]), (&"timeout".into(), &9.into()));
    let willing = "trap 'exit 5' TERM; while :; do sleep 0.05; done";
    let (out, report) = reported(&env, &["--timeout", "3s:1h"], willing);
    drop(out.code(5).warns("--timeout"));
    assert_eq!(report["error"], "timeout");
    // It heeds the signal and calls that success: it was cut off all the same.
    let content = "trap 'exit 0' TERM; echo half >/half; while :; do sleep 0.05; done";
    let flags = ["--timeout", "3s:1h", "--commit", "half"];
    let (out, report) = reported(&env, &flags, content);
    drop(out.code(143).warns("nothing kept"));
    assert_eq!((&report["error"], &report["signal"]), (&"timeout".into(), &15.into()));
    assert!(!env.snapshots().contains(&"half".to_owned()));
    for bad in ["1:", ":1", "1:0", "1:2:3", "0:1"] {
        drop(env.sandbox(&["run", &format!("--timeout={bad}"), "--", "true"]).run().code(125));
    }
}

/// A time-out holds while files are still being copied up, when the command has not begun.
#[test]
fn a_time_out_holds_before_the_command_begins() {
    let env = Env::filled();
    let line = "for n in 0 1 2 3 4 5 6 7; do head -c 67108864 /dev/zero >/opt/large$n; done";
    drop(env.line(&["--commit", "large"], line).run().ok());
    let flags = ["--from", "large", "--copy-up", "/opt", "--timeout", "1ms:1h"];
    let (out, report) = reported(&env, &flags, "echo begun");
    drop(out.code(137).stdout("").warns("--timeout"));
    assert_eq!(report["error"], "timeout");
}

#[test]
fn output_is_limited() {
    let env = Env::filled();
    // What fits passes, to the last byte.
    let (out, report) = reported(&env, &["--output-limit", "10"], "echo 12345; echo 678 >&2");
    drop(out.ok().stdout("12345\n").stderr("678\n"));
    assert_eq!(report["error"], Value::Null);
    let (out, report) =
        reported(&env, &["--output-limit", "9"], "echo 12345; sleep 0.3; echo 678 >&2");
    drop(out.code(137).stdout("12345\n").warns("678ended").warns("--output-limit"));
    assert_eq!((&report["error"], &report["signal"]), (&"output".into(), &9.into()));
    // One that goes on for ever is ended, and nothing of it is kept.
    let state = env.state();
    let flags = ["--output-limit", "1M", "--commit", "x"];
    let (out, _) =
        reported(&env, &flags, "trap '' PIPE TERM; while :; do echo yyyyyyyyyyyyyyyy; done");
    let out = out.code(137).warns("it wrote more than 1048576 bytes");
    assert_eq!(out.stdout.len(), 1 << 20);
    assert_eq!(env.state(), state);
    // So is one that had ended already.
    let (out, _) = reported(&env, &["--output-limit", "3", "--commit", "x"], "echo 1234");
    drop(out.code(137).stdout("123"));
    assert_eq!(env.state(), state);
    // The exit code is the command's own, and so is what a reader that went away means.
    let (out, _) = reported(&env, &["--output-limit", "1M"], "exit 3");
    drop(out.code(3).stdout("").stderr(""));
}

/// Where the caller's side takes no more, the command goes on or ends as it likes.
#[test]
fn output_that_nobody_takes() {
    let env = Env::filled();
    let on_full = |line: &str| {
        let words = env.line(&["--output-limit", "1M"], line).words();
        let shell = env.program("sh").args(["-c", "exec \"$@\" >/dev/full", "sh"]);
        shell.args(words).run()
    };
    drop(on_full("echo hi; echo e >&2; exit 3").code(3).warns("no space left"));
    drop(on_full("exit 4").code(4).stderr(""));
    drop(on_full("while :; do echo yyyyyyyyyyyyyyyy; done").code(141).warns("no space left"));
    let line = "trap '' PIPE; while echo y; do :; done; echo seen >&2; exit 5";
    drop(on_full(line).code(5).warns("seen"));
}

/// stdout and stderr that lead to one file keep their order; a file that is appended to is no pipe.
#[test]
fn output_keeps_its_order() {
    let env = Env::filled();
    let line = "for n in 1 2 3 4 5 6 7 8 9; do echo o$n; echo e$n >&2; done; echo own >/dev/stdout";
    let words = env.line(&["--output-limit", "1K"], line).words();
    let file = env.file("log", "before\n");
    let shell = env.program("sh").args(["-c", "log=$1; shift; exec \"$@\" >>\"$log\" 2>&1", "sh"]);
    drop(shell.arg(&file).args(words).run().ok());
    let lines: String = (1..10).map(|n| format!("o{n}\ne{n}\n")).collect();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("before\n{lines}own\n"));
    let words = env.line(&["--output-limit", "1K"], "echo x; exit 4").words();
    let shell = env.program("sh").args(["-c", "exec \"$@\" >&- 2>&-", "sh"]);
    drop(shell.args(words).run().code(4));
}

#[test]
fn changes_on_disk_are_limited() {
    let env = Env::filled();
    let state = env.state();
    let flags = ["--disk", "8M", "--commit", "x"];
    let (out, report) = reported(
        &env,
        &flags,
        "n=0; while :; do n=$((n+1)); head -c 1048576 /dev/zero >/opt/f$n; done",
    );
    drop(out.code(137).warns("its changes take more than 8388608 bytes: --disk"));
    assert_eq!((&report["error"], &report["signal"]), (&"disk".into(), &9.into()));
    assert_eq!(env.state(), state);
    // One that was faster than who measures.
    let (out, report) = reported(&env, &flags, "head -c 16777216 /dev/zero >/opt/f");
    drop(out.code(137).warns("--disk"));
    assert_eq!(report["error"], "disk");
    assert_eq!(env.state(), state);
    // Nobody can hide what he has written from who measures.
    let line =
        "mkdir /opt/d && head -c 16777216 /dev/zero >/opt/d/f; chmod 0 /opt/d/f /opt/d; sleep 1000";
    let (out, _) = reported(&env, &flags, line);
    drop(out.code(137).warns("--disk"));
    let (out, _) = reported(&env, &flags, "head -c 1048576 /dev/zero >/opt/f");
    drop(out.ok().warns("x -> "));
    // What a command that fails leaves may be kept, too.
    let flags = ["--disk", "8M", "--keep-on-failure"];
    let (out, report) = reported(&env, &flags, "head -c 16777216 /dev/zero >/opt/f; exit 3");
    drop(out.code(137).warns("--disk"));
    assert_eq!(report["error"], "disk");
    env.drop_kept(&[report["run"].as_str().unwrap()]);
    for (flags, why) in [
        (&["--disk", "1M", "--upper", "tmpfs"][..], "--upper tmpfs:SIZE is their limit"),
        (&["--disk", "0"], "must be more than 0"),
        (&["--disk", "1000T"], "the file system of the store has"),
        (&["--output-limit", "1y"], "unknown unit"),
    ] {
        let out = env.sandbox(&["run"]).args(flags).args(["--", "true"]).run().code(125);
        drop(out.warns(why));
    }
}

#[test]
fn what_an_overlay_bind_writes_counts_for_the_disk() {
    let env = Env::filled();
    let host = env.folder("host");
    let bind = format!("{host}:/ob:overlay");
    let flags = ["--disk", "8M", "--bind", &bind];
    // What is left unchanged has no size.
    drop(env.line(&["--disk", "1"], "true").run().ok().stderr(""));
    for line in ["echo ran", "echo x >/opt/f; echo ran"] {
        drop(env.line(&flags, line).run().ok().stdout("ran\n").stderr(""));
    }
    if ids() != Ids::Range {
        drop(env.line(&flags, "echo x >/ob/f; echo ran").run().ok().stdout("ran\n").stderr(""));
        let line = "head -c 67108864 /dev/zero >/ob/f; sleep 1000";
        let (out, report) = reported(&env, &flags, line);
        drop(out.code(137).warns("its changes take more than 8388608 bytes: --disk"));
        assert_eq!(report["error"], "disk");
    }
    assert_eq!(std::fs::read_dir(&host).unwrap().count(), 0);
}

#[test]
fn a_command_may_use_the_processors_of_its_caller() {
    let env = Env::filled();
    let line = "sed -n 's/^Cpus_allowed_list:\\t//p' /proc/self/status";
    let bare = env.program("sh").args(["-c", line]).run().ok().text().to_owned();
    let first: String = bare.chars().take_while(char::is_ascii_digit).collect();
    for flags in [&[][..], &["--user", "0"], &["--net", "host"]] {
        drop(env.line(flags, line).run().ok().stdout(&bare));
        // Also one who is bound to some.
        let bound = env.program("taskset").args(["-c", &first]).args(env.line(flags, line).words());
        drop(bound.run().ok().stdout(&format!("{first}\n")));
    }
}

/// Names that come and go make every walk of the tree meet one that is gone.
#[test]
fn a_limit_on_disk_holds_while_names_change() {
    let line = "mkdir '/churn'; for (1 .. 20000) { open F, '>', \"/churn/$_\"; close F } \
        for my $way (0, 1) { fork or do { while (1) { for my $to ('x', '') { for (my $n = $way + 1; $n < 20000; $n += 2) { \
          rename '/churn/' . ($to ? '' : 'x') . $n, \"/churn/$to$n\" } } } } } \
        $| = 1; my $mib = 'x' x 1048576; open F, '>', '/srv/big'; \
        for (1 .. 400) { syswrite F, $mib; print \"$_\\n\"; select undef, undef, undef, 0.02 } exit 0";
    let words = ["run", "--disk", "40M", "--", "perl", "-e", line];
    let out = debian().sandbox(&words).run().code(137);
    let written = out.text().lines().count();
    drop(out.warns("--disk"));
    assert!(written < 300, "{written} MiB");
}

/// What is deleted and still open takes room, whether it was written or only asked for; a file of the host does not count.
#[test]
fn the_disk_limit_holds_for_what_is_deleted_and_still_open() {
    let env = Env::filled();
    let dir = env.folder("bound");
    let bind = format!("{dir}:/mnt:rw");
    let written = "exec 8>/opt/big; rm /opt/big; head -c 67108864 /dev/zero >&8; sleep 1000";
    // A child has it, and its parent has not.
    let handed = "exec 8>/opt/big; rm /opt/big; (head -c 67108864 /dev/zero >&8; sleep 1000) & \
        exec 8>&-; wait";
    let bound = written.replace("/opt/", "/mnt/");
    let overlay = format!("{dir}:/mnt:overlay");
    // Who is somebody else may not be looked at by everybody.
    let other = if ids() == Ids::Single { &[][..] } else { &["--user", "1:1"] };
    let temporary = written.replace("/opt/", "/tmp/");
    for (flags, line) in
        [(&[][..], written), (&[], handed), (&["--bind", &overlay], &bound), (other, &temporary)]
    {
        let flags = [&["--disk", "8M", "--timeout", "60s"], flags].concat();
        let (out, report) = reported(&env, &flags, line);
        drop(out.code(137).warns("--disk"));
        assert_eq!(report["error"], "disk");
    }
    let host = written.replace("/opt/", "/mnt/").replace("sleep 1000", "sleep 2");
    let memory = written
        .replace("/opt/", "/dev/shm/")
        .replace("67108864", "16777216")
        .replace("sleep 1000", "sleep 2");
    for line in
        [host, memory, "exec 8>/opt/small; rm /opt/small; head -c 4M /dev/zero >&8; sleep 2".into()]
    {
        let (out, _) = reported(&env, &["--disk", "8M", "--bind", &bind], &line);
        drop(out.ok());
    }
    // One that has joined the run is a child of nobody in it.
    let start = ["start", "--name", "web", "--disk", "8M", "--", "sleep", "1000"];
    drop(env.sandbox(&start).run().ok());
    drop(env.sandbox(&["exec", "web", "--", "sh", "-c", written]).run().code(137));
    drop(env.sandbox(&["wait", "web"]).run().code(137));
}

/// Room that was asked for and not written to.
#[test]
fn the_disk_limit_holds_for_what_is_allocated() {
    let line =
        "exec 8>/srv/big; rm /srv/big; fallocate -l 64M /proc/self/fd/8 || exit 3; sleep 1000";
    let words = ["run", "--disk", "8M", "--timeout", "60s", "--", "sh", "-c", line];
    drop(debian().sandbox(&words).run().code(137).warns("--disk"));
}

/// A set-up that hangs is given up, with and without a time for the whole run; the command's own time is its own.
#[test]
fn a_set_up_is_not_waited_for_for_ever() {
    let env = Env::filled();
    let fifo = env.path("fifo");
    drop(env.program("mkfifo").args([&fifo]).run().ok());
    let fifo = fifo.to_str().unwrap();
    for more in [&[][..], &["--timeout", "1h"]] {
        let begun = Instant::now();
        let flags = [&["--setup-timeout", "500ms", "--env-file", fifo], more].concat();
        drop(env.line(&flags, "true").run().fault(125, "fifo: does not answer", "--setup-timeout"));
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    }
    let timeout =
        env.line(&["--setup-timeout", "1h", "--timeout", "500ms", "--env-file", fifo], "");
    drop(timeout.run().fault(125, "the time of --timeout is over", ""));
    // None at all.
    let line = format!("sleep 2; echo A=x >{fifo}");
    let mut writer = env.program("sh").args(["-c", &line]).start();
    let flags = ["--setup-timeout", "0", "--env-file", fifo];
    drop(env.line(&flags, "echo $A").run().ok().stdout("x\n"));
    writer.wait().unwrap();
    // A root that is made for longer than that leaves nothing.
    let flags = ["--setup-timeout", "1ms", "--copy-up", "/opt", "--keep-on-failure"];
    let line = "for n in 0 1 2 3 4 5 6 7; do head -c 67108864 /dev/zero >/opt/large$n; done";
    drop(env.line(&["--commit", "large"], line).run().ok());
    let words = [&["--from", "large"][..], &flags].concat();
    // In the mode subuid it may be the ids that are not there then.
    let needle = if ids() == Ids::Subuid { "" } else { "not done after 0.001 s" };
    drop(env.line(&words, "true").run().fault(125, needle, "--setup-timeout"));
    assert_eq!(env.json(&["ps", "--all"])["runs"].as_array().map(Vec::len), Some(0));
    // What takes long is the command.
    drop(env.line(&["--setup-timeout", "5s"], "sleep 7").run().ok());
}

/// What the host does not answer for is waited for no longer than the run may take.
#[test]
fn the_time_of_a_run_counts_before_it_is_set_up() {
    let env = Env::filled();
    let fifo = env.path("fifo");
    drop(env.program("mkfifo").args([&fifo]).run().ok());
    let fifo = fifo.to_str().unwrap();
    let within = |time: &str, flags: &[&str]| {
        let begun = Instant::now();
        let out = env.line(&[&["--timeout", time], flags].concat(), "echo $A").run();
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}: {flags:?}", begun.elapsed());
        out
    };
    let run = |flags: &[&str]| within("500ms", flags);
    // What comes in time is read, and its time is that of the command, too.
    let line = format!("sleep 0.1; echo A=x >{fifo}");
    let mut writer = env.program("sh").args(["-c", &line]).start();
    drop(within("20s", &["--env-file", fifo]).ok().stdout("x\n"));
    writer.wait().unwrap();
    drop(run(&["--env-file", "/nonexistent"]).fault(125, "read env file: /nonexistent", ""));
    drop(run(&["--env-file", fifo]).fault(125, "fifo: does not answer", "FIFO"));
    for flag in ["--profile", "--seccomp"] {
        drop(run(&[flag, fifo]).fault(125, "fifo: not a regular file", ""));
    }
    // A server of FUSE that never answers, where there may be one.
    if File::options().read(true).write(true).open("/dev/fuse").is_err() {
        return;
    }
    let hang = env.folder("hang");
    let mounts = format!(
        "exec 9<>/dev/fuse; mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 fuse {hang} || exit 77; "
    );
    let all = [
        vec!["--bind".to_owned(), format!("{hang}:/mnt")],
        vec!["--bind".to_owned(), format!("{hang}/within:/mnt:rw")],
        vec!["--profile".to_owned(), format!("{hang}/p.json")],
        vec!["--seccomp".to_owned(), format!("{hang}/s.json")],
        vec!["--env-file".to_owned(), format!("{hang}/env")],
        vec!["--out".to_owned(), format!("/etc:{hang}/out")],
    ];
    let limits = ["--timeout", "--setup-timeout"];
    for (limit, flags) in limits.iter().flat_map(|limit| all.iter().map(move |one| (limit, one))) {
        let words = env.line(&[limit, "500ms"], "true").words();
        let at = words.iter().position(|word| word == limit).unwrap();
        let quoted = |words: &[std::ffi::OsString]| -> String {
            words.iter().map(|word| format!("'{}' ", word.display())).collect()
        };
        let flags: Vec<_> = flags.iter().map(Into::into).collect();
        let line = format!(
            "{mounts}{}{}{} 9<&-",
            quoted(&words[..at]),
            quoted(&flags),
            quoted(&words[at..])
        );
        let begun = Instant::now();
        let out = env.program("unshare").args(["-m", "sh", "-c", &line]).run();
        if out.status.code() == Some(77) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{flags:?}");
        drop(out.fault(125, "does not answer", "FUSE"));
    }
}
