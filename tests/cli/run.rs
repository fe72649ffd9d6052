//! `run`: exit codes, words and lines, streams, descriptors, the ways to end.

use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::process::Stdio;

use rustix::io::{FdFlags, fcntl_setfd};

use crate::common::Env;

#[test]
fn exit_codes() {
    let env = Env::filled();
    let state = env.state();
    for code in [0, 1, 3, 124, 125, 126, 127, 255] {
        drop(env.line(&[], &format!("exit {code}")).run().code(code).stdout("").stderr(""));
    }
    for (signal, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("INT", 2)] {
        drop(env.line(&[], &format!("kill -{signal} $$")).run().code(128 + number).stdout(""));
    }
    let run = |words: &[&str]| env.sandbox(&["run", "--"]).args(words).run().stdout("");
    drop(run(&["nonexistent"]).code(127).warns("nonexistent: command not found"));
    drop(run(&["/nonexistent/x"]).code(127).warns("/nonexistent/x: command not found"));
    drop(run(&["/etc/passwd"]).code(126).warns("/etc/passwd: not executable"));
    drop(run(&["/etc"]).code(126).warns("/etc: "));
    drop(run(&["/etc/passwd/x"]).code(127).warns("/etc/passwd/x: "));
    assert_eq!(env.state(), state);
}

/// A text without `#!` is a script for a shell only when a shell runs it.
#[test]
fn not_a_program_of_this_machine() {
    let env = Env::filled();
    let file = env.file("text", "echo this is no program\n");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bind = format!("{file}:/text");
    let out = env.sandbox(&["run", "--bind", &bind, "--", "/text"]).run();
    drop(out.code(126).stdout("").warns("/text: not a program of this machine"));
    let file = env.file("script", "#!/nonexistent/shell\n");
    fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let bind = format!("{file}:/script");
    let out = env.sandbox(&["run", "--bind", &bind, "--", "/script"]).run();
    drop(out.code(126).stdout("").warns("its interpreter or dynamic loader is missing"));
}

#[test]
fn one_word_with_blanks_is_a_line_for_the_shell() {
    let env = Env::filled();
    let run = |words: &[&str]| env.sandbox(&["run", "--"]).args(words).run().stderr("");
    drop(run(&["echo a; echo b"]).ok().stdout("a\nb\n"));
    drop(run(&["printf", "%s|", "a b", "", "$HOME", "*"]).ok().stdout("a b||$HOME|*|"));
    drop(run(&["exit 7"]).code(7));
    // Flags after the command are the command's.
    drop(
        env.sandbox(&["run", "sh", "-c", "echo $0 $1", "--from", "x"])
            .run()
            .ok()
            .stdout("--from x\n"),
    );
    drop(
        env.sandbox(&["run", "--", "sh", "-c", "echo \"$@\"", "0", "--", "--json"])
            .run()
            .ok()
            .stdout("-- --json\n"),
    );
}

#[test]
fn nothing_is_kept_unless_asked_for() {
    let env = Env::filled();
    let state = env.state();
    drop(
        env.line(&[], "rm -rf /opt /var; echo x >/etc/passwd; touch /new")
            .run()
            .ok()
            .stdout("")
            .stderr(""),
    );
    drop(
        env.line(&[], "cat /opt/deep/a; test ! -e /new && grep -c root /etc/passwd")
            .run()
            .ok()
            .stdout("a\n1\n"),
    );
    assert_eq!(env.state(), state);
}

#[test]
fn streams_pass_untouched() {
    let env = Env::filled();
    let bytes: Vec<u8> =
        (0_u32..1_500_000).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let out = env.sandbox(&["run", "--", "cat"]).input(bytes.clone()).run().ok().stderr("");
    assert!(out.stdout == bytes, "{} of {} bytes, or other ones", out.stdout.len(), bytes.len());
    let out = env.line(&[], "cat >&2").input(bytes.clone()).run().ok().stdout("");
    assert!(out.stderr == bytes, "{} of {} bytes, or other ones", out.stderr.len(), bytes.len());
    drop(env.line(&[], "cat; echo end").run().ok().stdout("end\n"));
}

#[test]
fn a_reader_that_goes_away_is_the_commands_own_business() {
    let env = Env::filled();
    let mut child = env.line(&[], "while echo y; do :; done 2>/dev/null; exit 9").start();
    let mut some = [0; 4];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let code = child.wait().unwrap().code();
    assert!(code == Some(9) || code == Some(128 + 13), "{code:?}");
}

#[test]
fn descriptors_are_closed() {
    let env = Env::filled();
    let file = fs::File::open("/etc/passwd").unwrap();
    fcntl_setfd(&file, FdFlags::empty()).unwrap();
    let line = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done; exec ls /proc/self/fd";
    let out = env.line(&[], line).run().ok();
    fcntl_setfd(&file, FdFlags::CLOEXEC).unwrap();
    // 3 is the directory that ls reads; the shell's own glob has read one, too.
    let seen = out.text();
    drop(out.check(seen.ends_with("0\n1\n2\n3\n"), "descriptors are open"));
}

#[test]
fn a_descriptor_is_kept_when_asked_for() {
    let env = Env::filled();
    let path = env.file("given", "given\n");
    let file = fs::File::open(path).unwrap();
    let number = file.as_raw_fd();
    // Through a shell: it alone has the descriptor without close-on-exec.
    let words =
        env.sandbox(&["run", "--preserve-fd", "9", "--", "sh", "-c", "cat <&9; ls /proc/self/fd"]);
    let line = format!("exec \"$@\" 9</proc/{}/fd/{number}", std::process::id());
    let out = env.program("sh").args(["-c", &line, "sh"]).args(words.words()).run();
    drop(out.ok().stderr("").stdout("given\n0\n1\n2\n3\n9\n"));
    drop(env.sandbox(&["run", "--preserve-fd", "77", "--", "true"]).run().fault(125, "77", ""));
    drop(env.sandbox(&["run", "--preserve-fd", "1", "--", "true"]).run().code(125));
}

#[test]
fn closed_streams_of_the_caller() {
    let env = Env::filled();
    let words = env.line(&[], "ls /proc/self/fd >/host/fds; exit 4").words();
    let host = env.folder("host");
    let at = words.iter().position(|word| word == "--").unwrap();
    let mut words = words;
    words.splice(at..at, ["--bind".into(), format!("{host}:/host:rw").into()]);
    let out = env.program("sh").args(["-c", "exec \"$@\" 0<&- 1>&- 2>&-", "sh"]).args(words).run();
    drop(out.code(4).stdout("").stderr(""));
}

#[test]
fn a_timeout_ends_everything() {
    let env = Env::filled();
    let report = env.path("report.json");
    let flags = ["--timeout", "3s", "--report", report.to_str().unwrap()];
    let out = env.line(&flags, "sleep 1000 & sleep 1000").run();
    let code = out.status.code();
    drop(out.check(matches!(code, Some(143 | 137)), "143 or 137").warns("--timeout"));
    let out = env.line(&flags, "trap '' TERM; while :; do sleep 1; done").run();
    drop(out.code(137).stdout("").warns("--timeout"));
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert_eq!(json["error"], "timeout");
    assert_eq!(json["signal"], 9);
    for bad in ["0", "-1", "x", "", "1y"] {
        drop(env.sandbox(&["run", &format!("--timeout={bad}"), "--", "true"]).run().code(125));
    }
    drop(env.line(&["--timeout", "1h"], "exit 3").run().code(3).stderr(""));
}

#[test]
fn background_processes_end_with_the_command() {
    let env = Env::filled();
    let host = env.folder("host");
    let bind = format!("{host}:/host:rw");
    // A daemon that would write, had it lived on.
    let line = "(while :; do echo x >>/host/alive; sleep 0.05; done) >/dev/null 2>&1 & while test ! -s /host/alive; do :; done; exit 6";
    drop(env.line(&["--bind", &bind], line).run().code(6));
    let size = fs::metadata(env.path("host/alive")).unwrap().len();
    std::thread::sleep(std::time::Duration::from_millis(200));
    assert_eq!(fs::metadata(env.path("host/alive")).unwrap().len(), size);
}

#[test]
fn signals_of_the_caller_reach_the_command() {
    let env = Env::filled();
    for (name, signal, expected) in [
        ("TERM", rustix::process::Signal::TERM, 43),
        ("INT", rustix::process::Signal::INT, 43),
        ("HUP", rustix::process::Signal::HUP, 43),
    ] {
        let line = format!("trap 'exit 43' {name}; echo ready; while :; do sleep 0.05; done");
        let mut child = env.line(&["--keep-on-failure"], &line).start();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let out = child.wait_with_output().unwrap();
        assert_eq!(
            out.status.code(),
            Some(expected),
            "{name}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        let kept = env.entries("runs");
        env.drop_kept(&kept.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Nothing of a run outlives its supervisor; what it leaves on disk goes with the next command.
#[test]
fn a_killed_supervisor_takes_everything_with_it() {
    let env = Env::filled();
    let host = env.folder("host");
    let bind = format!("{host}:/host:rw");
    let line = "touch /new; echo ready; while :; do echo x >>/host/alive; sleep 0.02; done";
    let mut child = env.line(&["--bind", &bind, "--commit", "never"], line).start();
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    crate::common::left::eventually("processes", || crate::common::left::processes(env.dir()));
    assert_eq!(env.entries("runs").len(), 1);
    drop(env.sandbox(&["gc"]).run().ok());
    assert_eq!(env.entries("runs"), [""; 0]);
    assert_eq!(env.snapshots(), ["postinit"]);
}

#[test]
fn a_dry_run_changes_nothing() {
    let env = Env::filled();
    let state = env.state();
    let host = env.folder("host");
    let flags = [
        "run",
        "--dry-run",
        "--commit",
        "x",
        "--bind",
        &format!("{host}:/data:rw"),
        "--tmpfs",
        "/scratch",
        "--cache",
        "kept:/var/kept",
    ];
    let out = env.sandbox(&flags).args(["--", "touch", "/data/x"]).run().ok().stderr("");
    drop(out.says("touch").says("/data").says("/scratch").says("layers/").says("/var/kept"));
    assert_eq!(env.state(), state);
    assert!(env.entries("cache").iter().all(|name| !name.starts_with("box-")), "a cache was made");
    assert!(!env.path("host/x").exists());
    let json = env.sandbox(&["run", "--json", "--dry-run", "--", "true", "a b"]).run().ok().json();
    assert_eq!(json["argv"], serde_json::json!(["true", "a b"]));
    assert_eq!(json["id_map"]["mode"], crate::common::ids().name());
    for key in ["capabilities", "environment", "lowers", "mounts"] {
        assert!(!json[key].as_array().unwrap().is_empty(), "{json}");
    }
    drop(
        env.sandbox(&["run", "--dry-run", "--from", "nope", "--", "true"])
            .run()
            .fault(125, "nope", ""),
    );
}

/// Whatever kept the command from being started, whoever reads the report learns it.
#[test]
fn the_report_of_what_was_not_run() {
    let env = Env::filled();
    let path = env.path("report.json");
    let flags = ["run", "--report", path.to_str().unwrap()];
    let told = |words: &[&str], code| {
        drop(env.sandbox(&flags).args(words).run().code(code));
        let report: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(report["error"].is_string(), "{report}");
        report["kind"].clone()
    };
    assert_eq!(told(&["--commit", "postinit", "--", "true"], 125), "conflict");
    assert_eq!(told(&["--from", "none", "--", "true"], 125), "not-found");
    assert_eq!(told(&["--", "nonexistent"], 127), "not-found");
    assert_eq!(told(&["--user", "nobody-here", "--", "true"], 125), "usage");
}

#[test]
fn the_report_tells_what_happened() {
    let env = Env::filled();
    let path = env.path("report.json");
    let read =
        || -> serde_json::Value { serde_json::from_slice(&fs::read(&path).unwrap()).unwrap() };
    let report = path.to_str().unwrap();
    drop(env.line(&["--report", report, "--commit", "made"], "touch /new").run().ok());
    let json = read();
    assert_eq!(json["box"], "default");
    assert_eq!(json["from"], "head");
    assert_eq!(json["exit"], 0);
    assert!(json["signal"].is_null() && json["error"].is_null(), "{json}");
    assert_eq!(json["snapshot"], "made");
    assert_eq!(json["committed"], env.json(&["show", "made"])["layer"]);
    assert_eq!(json["id_map"], crate::common::ids().name());
    assert!(json["run"].as_str().unwrap().starts_with("r-"));
    assert_eq!(json["lost"], serde_json::json!([]));
    for key in ["started", "ended"] {
        assert!(json[key].as_str().unwrap().ends_with('Z'), "{json}");
    }
    for key in ["setup_us", "commit_us"] {
        assert!(json[key].as_u64().unwrap() > 0, "{json}");
    }
    for key in ["user_us", "system_us", "max_rss"] {
        assert!(json["usage"][key].is_u64(), "{json}");
    }
    drop(env.line(&["--report", report], "kill -9 $$").run().code(137));
    assert_eq!(read()["signal"], 9);
    drop(env.sandbox(&["run", "--report", report, "--", "nonexistent"]).run().code(127));
    let json = read();
    assert!(json["error"].as_str().unwrap().contains("not found"), "{json}");
    assert!(json["exit"].is_null(), "no command ran: {json}");
    drop(
        env.sandbox(&["run", "--report", "/nonexistent/x", "--", "true"])
            .run()
            .fault(125, "report", ""),
    );
}

#[test]
fn every_way_to_mount_the_overlay() {
    let env = Env::filled();
    drop(env.line(&["--commit", "one"], "rm /opt/deep/a; echo one >/one").run().ok());
    drop(env.line(&["--from", "one", "--commit", "two"], "echo two >/two").run().ok());
    for way in ["fd", "fd-attached", "lowerdir+", "mount"] {
        let name = format!("by-{}", way.trim_end_matches('+'));
        let line = "cat /one /two; ls /opt/deep; echo three >/three";
        let flags = ["--overlay-way", way, "--from", "two", "--commit", &name];
        drop(env.line(&flags, line).run().ok().stdout("one\ntwo\nb\n"));
        drop(env.sandbox(&["diff", &name]).run().ok().stdout("A /three\n"));
    }
    drop(env.sandbox(&["run", "--overlay-way", "other", "--", "true"]).run().code(125));
}

#[test]
fn an_upper_in_memory() {
    let env = Env::filled();
    let state = env.state();
    drop(
        env.line(&["--upper", "tmpfs"], "rm -r /opt; echo x >/new; cat /new")
            .run()
            .ok()
            .stdout("x\n")
            .stderr(""),
    );
    let line = "dd if=/dev/zero of=/big bs=1M count=8 2>&1 | grep -c 'No space left'";
    drop(env.line(&["--upper", "tmpfs:2M"], line).run().ok().stdout("1\n"));
    assert_eq!(env.state(), state);
}

#[test]
fn streams_may_be_anything() {
    let env = Env::filled();
    let path = env.path("output");
    let words = env.sandbox(&["run", "--", "echo", "into a file"]).words();
    let status = std::process::Command::new(&words[0])
        .args(&words[1..])
        .stdin(Stdio::null())
        .stdout(fs::File::create(&path).unwrap())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fs::read_to_string(path).unwrap(), "into a file\n");
}

/// Places of PATH that are not there, that are no directory, and that lack the command.
#[test]
fn a_command_is_looked_for_in_all_of_path() {
    let env = Env::filled();
    let words = |path: &str, flags: &[&str], command: &[&str]| {
        let path = format!("PATH={path}");
        let flags = [&["run", "--env", &path], flags, &["--"], command].concat();
        env.sandbox(&flags).run()
    };
    let many = vec!["/none"; 300].join(":");
    let binds = env.folder("host");
    let bind = format!("{binds}:/mnt:rw");
    for path in [
        "/none:/bin",
        "/none:/etc/passwd:/root:/bin",
        "/etc/passwd:/bin:/none",
        "none:/bin",
        &format!("{many}:/bin"),
    ] {
        for flags in [&[][..], &["--bind", &bind], &["--as-user"], &["--workdir", "/tmp"]] {
            drop(words(path, flags, &["echo", "found"]).ok().stdout("found\n"));
        }
        drop(words(path, &[], &["nosuch"]).fault(127, "nosuch", ""));
    }
    drop(words(&many, &[], &["echo"]).fault(127, "echo", ""));
}
