//! `--status-fd` and `--read-only`.

use serde_json::Value;

use crate::common::Env;

/// The events of `sandbox run FLAGS --status-fd 9 -- sh -c LINE`.
fn events(env: &Env, flags: &[&str], line: &str, code: i32) -> Vec<Value> {
    let path = env.path("events");
    let words = env.line(&[flags, &["--status-fd", "9"]].concat(), line).words();
    let shell = env.program("sh").args(["-c", r#"file=$1; shift; exec "$@" 9>"$file""#, "sh"]);
    drop(shell.arg(&path).args(words).run().code(code));
    let text = std::fs::read_to_string(&path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_program_is_told_what_happens() {
    let env = Env::filled();
    let told = events(&env, &["--commit", "a"], "echo x >/etc/new", 0);
    let names: Vec<_> = told.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["started", "exited", "committed"], "{told:?}");
    assert!(told[0]["run"].as_str().unwrap().starts_with("r-"));
    assert!(told[0]["pid"].as_u64().unwrap() > 1 && told[0]["child-pid"] == told[0]["pid"]);
    assert_eq!((&told[1]["code"], &told[1]["exit-code"]), (&0.into(), &0.into()));
    assert_eq!(told[2]["name"], "a");
    assert_eq!(told[2]["layer"], env.json(&["show", "a"])["layer"]);

    let told = events(&env, &["--keep"], "echo y >/etc/new", 0);
    assert_eq!(told[2]["name"], Value::Null, "{told:?}");
    let told = events(&env, &[], "kill -9 $$", 137);
    let exited =
        serde_json::json!({"event": "exited", "code": null, "signal": 9, "exit-code": 137});
    assert_eq!(told[1..], [exited]);
}

#[test]
fn a_run_that_cannot_begin_is_an_event() {
    let env = Env::filled();
    let told = events(&env, &["--workdir", "/nowhere"], "true", 125);
    assert_eq!((told.len(), &told[0]["event"]), (1, &"failed".into()), "{told:?}");
    assert!(told[0]["message"].as_str().unwrap().contains("/nowhere"), "{told:?}");
    let words = env.sandbox(&["run", "--status-fd", "9", "--", "nosuch"]).words();
    let shell = env.program("sh").args(["-c", r#"exec "$@" 9>&1"#, "sh"]).args(words);
    let out = shell.run().code(127).text();
    assert!(out.starts_with(r#"{"event":"failed","message":"run command: nosuch"#), "{out}");
}

/// The supervisor goes on telling when `start` has returned.
#[test]
fn a_run_that_stays_tells_on() {
    let env = Env::filled();
    let path = env.path("events");
    let words =
        env.sandbox(&["start", "--commit", "a", "--status-fd", "9", "--", "touch", "/new"]).words();
    let shell = env.program("sh").args(["-c", r#"file=$1; shift; exec "$@" 9>"$file""#, "sh"]);
    drop(shell.arg(&path).args(words).run().ok());
    crate::common::left::eventually("the run", || env.entries("runs"));
    let text = std::fs::read_to_string(&path).unwrap();
    let names: Vec<_> = text
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(names, ["started", "exited", "committed"], "{text}");
}

#[test]
fn the_descriptor_is_not_the_commands() {
    let env = Env::filled();
    let told = events(&env, &[], "(echo forged >&9) 2>/dev/null; true", 0);
    assert_eq!(told.len(), 2, "{told:?}");
    for (number, why) in [("99", "status descriptor: 99: it is not open"), ("1", "1 is not in 3..")]
    {
        drop(env.line(&["--status-fd", number], "true").run().fault(125, why, ""));
    }
    let both = env.line(&["--status-fd", "9", "--preserve-fd", "9"], "true").words();
    let shell = env.program("sh").args(["-c", r#""$@" 9>/dev/null"#, "sh"]).args(both);
    drop(shell.run().fault(125, "--preserve-fd gives it to the command", ""));
}

#[test]
fn a_reader_that_is_gone_ends_nothing() {
    let env = Env::filled();
    let words = env.line(&["--status-fd", "9"], "sleep 0.2; echo done").words();
    let line = r#"mkfifo p; exec 8<>p 9>p 8>&-; rm p; "$@""#;
    // Written to a pipe that nobody reads any more.
    drop(env.program("sh").args(["-c", line, "sh"]).args(words).run().ok().stdout("done\n"));
}

#[test]
fn a_read_only_root_takes_no_change() {
    let env = Env::filled();
    let dir = env.folder("data");
    let bind = format!("{dir}:/data:rw");
    let line = "for d in / /etc /var /root; do (echo x >$d/new) 2>/dev/null && echo wrote $d; done; \
                (rm /etc/passwd) 2>/dev/null && echo removed; \
                for d in /tmp /var/tmp /run /data; do echo x >$d/new || echo not $d; done; exit 0";
    drop(env.line(&["--read-only", "--bind", &bind], line).run().ok().stdout(""));
    assert_eq!(std::fs::read_to_string(env.path("data/new")).unwrap(), "x\n");
    drop(env.line(&[], "test -e /tmp/new || cat /etc/passwd >/dev/null").run().ok());
    for keeps in [&["--commit", "x"][..], &["--keep"], &["--keep-on-failure"]] {
        let refused = env.line(&[keeps, &["--read-only"]].concat(), "true").run();
        drop(refused.fault(125, "--read-only: nothing changes that could be kept", "--commit"));
    }
}
