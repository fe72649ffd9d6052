//! Runs that stay: started, found, asked, ended.

use std::io::{Read, Write};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::{Env, left};

/// Starts a line of the shell; the id of the run.
fn start(env: &Env, flags: &[&str], line: &str) -> String {
    env.sandbox(&["start"]).args(flags).args(["--", "sh", "-c", line]).run().ok().line()
}

/// Starts a line that says `ready` when it is, and waits for that.
fn start_ready(env: &Env, flags: &[&str], line: &str) -> String {
    let id = start(env, flags, line);
    logged(env, &id, "ready\n");
    id
}

/// Waits until the log has this text.
#[track_caller]
fn logged(env: &Env, run: &str, text: &str) {
    left::eventually(&format!("a log without {text:?}"), || {
        let log = env.sandbox(&["logs", run]).run().ok().text().replace("\r\n", "\n");
        if log.contains(text) { Vec::new() } else { vec![log] }
    });
}

fn listed(env: &Env) -> Vec<Value> {
    env.json(&["ps"])["runs"].as_array().unwrap().clone()
}

/// The only run there is.
#[track_caller]
fn only(env: &Env) -> Value {
    let all = listed(env);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].clone()
}

fn pid(run: &Value) -> Pid {
    Pid::from_raw(i32::try_from(run["pid"].as_i64().unwrap()).unwrap()).unwrap()
}

const FOR_EVER: &str = "echo ready; while :; do sleep 0.05; done";

#[test]
fn a_command_that_cannot_be_executed_is_told_by_start_itself() {
    let env = Env::filled();
    let start = |words: &[&str]| env.sandbox(&["start"]).args(words).run();
    drop(start(&["--", "nosuch"]).fault(127, "nosuch: command not found", ""));
    drop(start(&["--", "/etc/passwd"]).fault(126, "not executable", ""));
    drop(start(&["--workdir", "/nowhere", "--", "true"]).fault(125, "/nowhere", ""));
    drop(start(&["--from", "nosuch", "--", "true"]).fault(125, "nosuch", ""));
    drop(start(&["--name", "r-x", "--", "true"]).fault(125, "ids of runs begin so", ""));
    drop(start(&["--name", "-", "--", "true"]).fault(125, "run name", ""));
    drop(start(&["--log-limit", "0", "--", "true"]).fault(125, "must be more than 0", ""));
    drop(start(&["--commit", "postinit", "--", "true"]).fault(125, "postinit", "another name"));
    drop(start(&["--dry-run", "--", "true"]).ok().says("argv"));
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn what_ends_by_itself_is_committed_as_it_was_told() {
    let env = Env::filled();
    let out = env.sandbox(&["start", "--commit", "made", "--", "touch", "/file"]).run().ok();
    assert!(out.line().starts_with("r-"), "{out:?}");
    left::eventually("the run", || env.entries("runs"));
    assert_eq!(env.snapshots(), ["postinit", "made"]);
    drop(env.sandbox(&["run", "--from", "made", "--", "ls", "/file"]).run().ok());
    let out = env.sandbox(&["start", "--json", "--name", "n", "--", "false"]).run().ok().json();
    assert_eq!(out["name"], "n");
    left::eventually("the run", || env.entries("runs"));
}

#[test]
fn a_run_is_listed_and_waited_for_and_its_log_read() {
    let env = Env::filled();
    let fifo = env.folder("shared");
    let bind = format!("{fifo}:/shared:rw");
    let line = "echo out; echo err >&2; until [ -e /shared/go ]; do sleep 0.02; done; exit 7";
    let id = start(&env, &["--name", "job", "--bind", &bind], line);
    let run = only(&env);
    assert_eq!((&run["run"], &run["name"]), (&id.clone().into(), &"job".into()));
    assert_eq!((&run["state"], &run["from"]), (&"running".into(), &"head".into()));
    assert_eq!(run["argv"][0], "sh");
    drop(env.sandbox(&["ps"]).run().ok().says("job").says("running"));
    logged(&env, "job", "out\nerr\n");
    let name = env.sandbox(&["start", "--name", "job", "--", "true"]).run();
    drop(name.fault(125, "has this name", "sandbox stop job"));
    let waiting = env.sandbox(&["wait", "job"]).start();
    let following = env.sandbox(&["logs", "-f", &id[..8]]).start();
    let told = env.sandbox(&["wait", "--json", &id]).start();
    sleep(Duration::from_millis(100));
    env.file("shared/go", "");
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(7));
    assert_eq!(following.wait_with_output().unwrap().stdout, b"out\nerr\n");
    let told: Value = serde_json::from_slice(&told.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((&told["exit"], &told["kept"]), (&7.into(), &false.into()));
    assert!(listed(&env).is_empty());
    drop(env.sandbox(&["rm", "--run", "job"]).run().ok().says(&id));
    // What is told of the end has the exit code of the run, else anything of ours is 125; the others tell what it is.
    for command in ["wait", "attach"] {
        drop(env.sandbox(&[command, "job"]).run().fault(125, "job: there is none", "sandbox ps"));
    }
    for command in ["stop", "kill", "logs"] {
        drop(env.sandbox(&[command, "job"]).run().fault(3, "job: there is none", "sandbox ps"));
    }
    drop(env.sandbox(&["rm", "--run", "job"]).run().fault(3, "job: there is none", "sandbox ps"));
}

/// The runs that are over, as `ps --all` tells of them.
fn over(env: &Env) -> Vec<Value> {
    let all = env.json(&["ps", "--all"])["runs"].as_array().unwrap().clone();
    all.into_iter().filter(|run| run["state"] == "ended").collect()
}

#[test]
fn a_run_that_is_over_has_left_its_log_and_how_it_ended() {
    let env = Env::filled();
    let line = "echo out; touch /file; exit $CODE";
    for code in ["0", "3"] {
        // At once: it may live, be about to end, or be over.
        for _ in 0..5 {
            let var = format!("CODE={code}");
            let id = start(&env, &["--name", "web", "--env", &var], line);
            drop(env.sandbox(&["wait", "web"]).run().code(code.parse().unwrap()));
            drop(env.sandbox(&["logs", "web"]).run().ok().stdout("out\n"));
            drop(env.sandbox(&["logs", "-f", &id]).run().ok().stdout("out\n"));
        }
    }
    assert!(listed(&env).is_empty());
    drop(env.sandbox(&["ps", "-a"]).run().ok().says("ended (3)"));
    // One of a name: each took away what that before had left.
    let [last] = over(&env).try_into().unwrap();
    assert_eq!(
        (&last["name"], &last["exit"], &last["pid"]),
        (&"web".into(), &3.into(), &Value::Null)
    );
    assert!(last["ended"].is_string() && last["argv"][2] == line, "{last}");
    let id = last["run"].as_str().unwrap();
    for word in ["web", id, &id[..8]] {
        let why = format!("{id}: it has ended with exit code 3");
        let hint = "sandbox logs web";
        for words in [&["attach", word][..], &["exec", word, "--", "true"]] {
            drop(env.sandbox(words).run().fault(125, &why, hint));
        }
        let path = format!("{word}:/etc");
        for words in [
            &["stop", word][..],
            &["kill", word],
            &["cp", &path, "out"],
            &["diff", "--run", word],
            &["recover", word, "--as", "n"],
        ] {
            drop(env.sandbox(words).run().fault(3, &why, hint));
        }
        drop(env.sandbox(&["shell", "--run", word]).run().code(125).warns(&why));
    }
    drop(env.sandbox(&["fsck"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    let told = env.sandbox(&["wait", "--json", "web"]).run().code(3).json();
    assert_eq!(
        (&told["run"], &told["exit"], &told["kept"]),
        (&id.into(), &3.into(), &false.into())
    );
    // A kept one is there, and comes before it.
    let kept = start(&env, &["--keep-on-failure", "--env", "CODE=4"], line);
    drop(env.sandbox(&["wait", &kept]).run().code(4));
    assert_eq!(over(&env).len(), 1);
    drop(env.sandbox(&["rm", "--run", "web", "--run", &kept]).run().ok());
    assert!(env.json(&["ps", "--all"])["runs"].as_array().unwrap().is_empty());
    assert_eq!(env.entries("cache").iter().filter(|name| name.contains("ended")).count(), 0);
}

#[test]
fn what_was_said_at_the_end_is_said_again() {
    let env = Env::filled();
    drop(start(&env, &["--name", "a", "--commit", "made"], "touch /file"));
    for _ in 0..2 {
        drop(env.sandbox(&["wait", "a"]).run().ok().warns("made -> "));
    }
    assert_eq!(
        env.sandbox(&["wait", "--json", "a"]).run().ok().json()["committed"]
            .as_str()
            .unwrap()
            .len(),
        26
    );
    drop(start(&env, &["--name", "b", "--timeout", "3s"], "sleep 1000"));
    for _ in 0..2 {
        drop(env.sandbox(&["wait", "b"]).run().code(143).warns("ended after 3 s: --timeout"));
    }
    for (name, how, code) in [("c", &["stop", "-t", "0", "c"][..], 137), ("d", &["kill", "d"], 137)]
    {
        start_ready(&env, &["--name", name], FOR_EVER);
        drop(env.sandbox(how).run().ok());
        drop(env.sandbox(&["wait", name]).run().code(code));
        drop(env.sandbox(&["logs", name]).run().ok().stdout("ready\n"));
    }
    let out = env.folder("out");
    let flag = format!("/nosuch:{out}/x");
    drop(start(&env, &["--name", "e", "--out", &flag], "true"));
    for _ in 0..2 {
        drop(env.sandbox(&["wait", "e"]).run().fault(125, "/nosuch", ""));
    }
    // Whoever started it has heard of one that never began.
    drop(env.sandbox(&["start", "--name", "f", "--", "nosuch"]).run().fault(127, "nosuch", ""));
    drop(env.sandbox(&["wait", "f"]).run().fault(125, "there is none", ""));
}

#[test]
fn a_store_without_room_for_it_says_so_and_the_run_ends_as_it_did() {
    let env = Env::filled();
    let started = env.sandbox(&["start", "--name", "s", "--", "sh", "-c", "sleep 0.5; exit 3"]);
    drop(started.env("SANDBOX_FAIL", "ended.temp.before:ENOSPC").run().ok());
    let out = env.sandbox(&["wait", "s"]).run().code(3);
    drop(out.warns("its log is not left for later"));
    left::eventually("the run", || env.entries("runs"));
    assert!(over(&env).is_empty());
}

#[test]
fn a_run_that_is_stopped_is_kept_or_dropped_as_is_said() {
    let env = Env::filled();
    let line = format!("touch /file; {FOR_EVER}");
    let begin = |flags: &[&str]| start_ready(&env, flags, &line);
    let stop = |words: &[&str]| env.sandbox(&["stop", "s"]).args(words).run();
    begin(&["--name", "s"]);
    drop(stop(&["--commit", "postinit"]).fault(4, "postinit", "another name"));
    assert_eq!(only(&env)["state"], "running");
    drop(stop(&["--commit", "one"]).ok().warns("one -> "));
    begin(&["--name", "s", "--commit", "two"]);
    drop(stop(&[]).ok().warns("nothing kept: the command ended with 143"));
    begin(&["--name", "s", "--commit", "two"]);
    drop(stop(&["--discard"]).ok().stderr(""));
    let id = begin(&["--name", "s", "--keep-on-failure"]);
    drop(stop(&[]).ok().warns("kept as"));
    assert_eq!(only(&env)["state"], "kept");
    drop(env.sandbox(&["wait", "s"]).run().code(143));
    drop(env.sandbox(&["logs", "s"]).run().ok().says("ready\nsandbox: kept as"));
    drop(env.sandbox(&["stop", "s"]).run().fault(3, "it has ended", "recover"));
    drop(env.sandbox(&["recover", &id, "--as", "kept"]).run().ok());
    begin(&["--name", "s", "--from", "one"]);
    drop(stop(&["--keep"]).fault(4, "one: is not the head", "--keep=force"));
    drop(stop(&["--keep=force"]).ok().warns("head"));
    begin(&["--name", "s"]);
    drop(env.sandbox(&["stop", "s", "--keep"]).run().ok());
    begin(&["--name", "s", "--upper", "tmpfs"]);
    drop(stop(&["--commit", "two"]).fault(2, "in memory", ""));
    drop(stop(&["-t", "0"]).ok());
    assert_eq!(env.snapshots(), ["postinit", "one", "kept"]);
    for name in ["one", "kept", "head"] {
        drop(env.sandbox(&["run", "--from", name, "--", "ls", "/file"]).run().ok());
    }
}

#[test]
fn two_who_stop_one_run() {
    let env = Env::filled();
    let line = "trap 'sleep 1; exit 0' TERM; touch /file; echo ready; while :; do sleep 0.05; done";
    start_ready(&env, &["--name", "s"], line);
    let first = env.sandbox(&["stop", "s", "--commit", "a"]).start();
    sleep(Duration::from_millis(300));
    drop(env.sandbox(&["stop", "s", "--discard"]).run().fault(4, "in another way", ""));
    drop(env.sandbox(&["stop", "s"]).run().ok());
    assert!(first.wait_with_output().unwrap().status.success());
    assert_eq!(env.snapshots(), ["postinit", "a"]);
}

#[test]
fn one_that_does_not_heed_is_killed_with_all_that_it_has_started() {
    let env = Env::filled();
    let line = "trap '' TERM; setsid sleep 1000 & echo ready; while :; do sleep 0.05; done";
    start_ready(&env, &["--name", "s"], line);
    drop(env.sandbox(&["stop", "-t", "0.2", "s"]).run().ok());
    assert!(listed(&env).is_empty());
    start_ready(&env, &["--name", "s"], line);
    drop(env.sandbox(&["kill", "-s", "TERM", "s"]).run().ok());
    drop(env.sandbox(&["kill", "-s", "nosuch", "s"]).run().code(2));
    assert_eq!(only(&env)["state"], "running");
    let waiting = env.sandbox(&["wait", "s"]).start();
    sleep(Duration::from_millis(100));
    drop(env.sandbox(&["kill", "s"]).run().ok());
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(137));
}

#[test]
fn who_is_attached_types_and_reads() {
    let env = Env::filled();
    start_ready(&env, &["--name", "cat", "-i"], "printf 'ready\n> '; cat; exit 5");
    let mut clients =
        [&["attach", "cat"][..], &["attach", "cat"], &["attach", "--no-stdin", "cat"]]
            .map(|words| env.sandbox(words).start());
    for client in &mut clients {
        // From the start of the last line on.
        let mut prompt = [0; 2];
        client.stdout.as_mut().unwrap().read_exact(&mut prompt).unwrap();
        assert_eq!(&prompt, b"> ");
    }
    let [mut first, mut second, looks] = clients;
    first.stdin.as_mut().unwrap().write_all(b"from the first\n").unwrap();
    logged(&env, "cat", "from the first");
    // The end of one's input is the end of the command's.
    second.stdin.as_mut().unwrap().write_all(b"from the second\n").unwrap();
    for mut child in [second, first, looks] {
        drop(child.stdin.take());
        let out = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(text, "from the first\nfrom the second\n");
        assert_eq!(out.status.code(), Some(5), "{out:?}");
    }
}

#[test]
fn who_is_attached_and_does_not_read_is_in_nobodys_way() {
    let env = Env::filled();
    let line = "echo ready; read go; i=0; while [ $i -lt 20000 ]; do echo 0123456789012345678901234567890123456789 $i; \
                i=$((i+1)); done; exit 3";
    start_ready(&env, &["--name", "s", "-i"], line);
    let stuck = env.sandbox(&["attach", "--no-stdin", "s"]).start();
    let mut killed = env.sandbox(&["attach", "s"]).start();
    let waiting = env.sandbox(&["wait", "s"]).start();
    sleep(Duration::from_millis(200));
    kill_process(Pid::from_child(&stuck), Signal::STOP).unwrap();
    killed.stdin.take().unwrap().write_all(b"go\n").unwrap();
    sleep(Duration::from_millis(50));
    kill_process(Pid::from_child(&killed), Signal::KILL).unwrap();
    killed.wait().unwrap();
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(3));
    kill_process(Pid::from_child(&stuck), Signal::CONT).unwrap();
    let out = stuck.wait_with_output().unwrap();
    assert!(out.stdout.ends_with(b"789 19999\n"), "{}", out.stdout.len());
    assert_eq!(out.status.code(), Some(3));
}

#[test]
fn the_log_is_bounded() {
    let env = Env::filled();
    let line = "i=0; while [ $i -lt 30000 ]; do echo 0123456789012345678901234567890123456789 $i; i=$((i+1)); done; echo ready; \
                while :; do sleep 0.05; done";
    let id = start_ready(&env, &["--name", "s", "--log-limit", "128K"], line);
    let out = env.sandbox(&["logs", "s"]).run().ok();
    assert!(out.stdout.len() >= 128 << 10 && out.stdout.len() < 1 << 20, "{}", out.stdout.len());
    drop(out.says("789 29999\nready\n"));
    use std::os::unix::fs::MetadataExt;
    let log = std::fs::metadata(env.base().join(format!("runs/{id}/log"))).unwrap();
    assert!(log.len() > 1 << 20 && log.blocks() * 512 < 1 << 19, "{log:?}");
    drop(env.sandbox(&["stop", "s"]).run().ok());
}

#[test]
fn who_has_joined_lets_go_before_the_commit_or_is_named() {
    let env = Env::filled();
    let join = || {
        let mut child =
            env.sandbox(&["exec", "s", "--", "sh", "-c", "echo in; sleep 1000"]).start();
        let mut word = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
        child
    };
    let line = format!("touch /file; {FOR_EVER}");
    start_ready(&env, &["--name", "s"], &line);
    let child = join();
    drop(env.sandbox(&["stop", "s", "--commit", "one"]).run().ok());
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(137));
    let id = start_ready(&env, &["--name", "s"], &line);
    let child = join();
    kill_process(Pid::from_child(&child), Signal::STOP).unwrap();
    let held = format!("held by process {}", child.id());
    drop(env.sandbox(&["stop", "s", "--commit", "two"]).run().fault(5, &held, "sandbox recover"));
    kill_process(Pid::from_child(&child), Signal::CONT).unwrap();
    child.wait_with_output().unwrap();
    drop(env.sandbox(&["recover", &id, "--as", "two"]).run().ok());
    for name in ["one", "two"] {
        drop(env.sandbox(&["run", "--from", name, "--", "ls", "/file"]).run().ok());
    }
}

#[test]
fn too_much_output_ends_it() {
    let env = Env::filled();
    for flags in [&["--name", "s"][..], &["--name", "s", "-t"]] {
        let limit = [flags, &["--output-limit", "64K", "--keep-on-failure"]].concat();
        let line = "echo ready; sleep 0.3; while :; do echo 0123456789012345678901234567890123456789; done";
        let id = start_ready(&env, &limit, line);
        let out = env.sandbox(&["wait", &id]).run().code(137);
        drop(out.warns("ended: it wrote more than 65536 bytes: --output-limit"));
        let log = env.sandbox(&["logs", &id]).run().ok().stdout;
        assert!(log.len() > 65536 && log.len() < 66000, "{}", log.len());
        drop(env.sandbox(&["recover", &id, "--as", &format!("n{}", flags.len())]).run().ok());
    }
}

#[test]
fn others_work_beside_a_run_that_stays() {
    let env = Env::filled();
    drop(env.line(&["--commit", "base"], "touch /base").run().ok());
    start_ready(&env, &["--name", "s", "--from", "base"], FOR_EVER);
    drop(env.sandbox(&["rm", "base"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    drop(env.sandbox(&["clean"]).run().ok());
    drop(env.line(&["--keep"], "touch /kept").run().ok());
    drop(env.sandbox(&["fsck"]).run().ok());
    assert_eq!(only(&env)["state"], "running");
    // Its layer lives as long as it does.
    drop(env.sandbox(&["stop", "s", "--commit", "saved"]).run().ok());
    drop(env.sandbox(&["run", "--from", "saved", "--", "ls", "/base"]).run().ok());
    start_ready(&env, &["--name", "s"], FOR_EVER);
    drop(env.sandbox(&["scrub", "--all"]).run().ok().says("runs go on"));
    assert_eq!(only(&env)["state"], "running");
    drop(env.sandbox(&["stop", "s", "--commit", "x"]).run().code(3));
    drop(env.sandbox(&["stop", "s"]).run().ok());
}

#[test]
fn a_killed_supervisor_takes_all_with_it_and_leaves_what_can_be_recovered() {
    let env = Env::filled();
    for signal in [Signal::KILL, Signal::ABORT] {
        let id = start_ready(&env, &["--name", "s"], &format!("touch /file; {FOR_EVER}"));
        let waiting = env.sandbox(&["wait", "s"]).start();
        sleep(Duration::from_millis(100));
        kill_process(pid(&only(&env)), signal).unwrap();
        let out = waiting.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(125), "{out:?}");
        left::eventually("processes", || left::processes(env.dir()));
        let dead = only(&env);
        assert_eq!((&dead["state"], &dead["pid"]), (&"dead".into(), &Value::Null));
        drop(env.sandbox(&["attach", "s"]).run().fault(125, "was killed", "recover"));
        drop(env.sandbox(&["logs", "s"]).run().ok().stdout("ready\n"));
        let name = format!("saved{}", signal.as_raw());
        drop(env.sandbox(&["recover", &id, "--as", &name]).run().ok());
        drop(env.sandbox(&["run", "--from", &name, "--", "ls", "/file"]).run().ok());
        // The name is free again, and other commands leave alone what nobody has recovered yet.
        let id = start_ready(&env, &["--name", "s", "--from", &name], FOR_EVER);
        kill_process(pid(&only(&env)), signal).unwrap();
        left::eventually("processes", || left::processes(env.dir()));
        drop(env.sandbox(&["rm", &name]).run().ok());
        for words in [&["list"][..], &["run", "--", "true"], &["gc", "--all"], &["df"], &["fsck"]] {
            drop(env.sandbox(words).run().ok());
            assert_eq!(only(&env)["state"], "dead", "{words:?}");
        }
        drop(env.sandbox(&["scrub", "--all"]).run().fault(4, &id, "recover"));
        drop(env.sandbox(&["logs", "s"]).run().ok().stdout("ready\n"));
        drop(env.sandbox(&["recover", &id, "--as", &name]).run().ok());
        drop(env.sandbox(&["run", "--from", &name, "--", "ls", "/file"]).run().ok());
        // After a week since that was seen, or when it is told to, it goes.
        for rm in [true, false] {
            let id = start_ready(&env, &["--name", "s"], FOR_EVER);
            kill_process(pid(&only(&env)), signal).unwrap();
            left::eventually("processes", || left::processes(env.dir()));
            drop(env.sandbox(&["list"]).run().ok());
            let seen = std::fs::File::open(env.base().join(format!("runs/{id}/dead"))).unwrap();
            if rm {
                drop(env.sandbox(&["rm", "--run", "s"]).run().ok());
            } else {
                let days = Duration::from_secs(8 * 24 * 60 * 60);
                seen.set_modified(std::time::SystemTime::now() - days).unwrap();
                drop(env.sandbox(&["list"]).run().ok());
            }
            assert!(listed(&env).is_empty());
        }
    }
}

#[test]
fn a_stopped_supervisor_comes_back_and_a_killed_payload_is_told() {
    let env = Env::filled();
    start_ready(&env, &["--name", "s"], "echo ready; sleep 1000; :");
    let supervisor = pid(&only(&env));
    kill_process(supervisor, Signal::STOP).unwrap();
    drop(env.sandbox(&["wait", "s"]).run().fault(125, "is stopped", "kill -CONT"));
    kill_process(supervisor, Signal::CONT).unwrap();
    let waiting = env.sandbox(&["wait", "s"]).start();
    sleep(Duration::from_millis(100));
    kill_process(supervisor, Signal::STOP).unwrap();
    drop(env.sandbox(&["kill", "s"]).run().ok());
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(137));
}

/// Whoever asks late hears what those heard who waited.
#[test]
fn a_commit_that_failed_is_told_afterwards_too() {
    let env = Env::filled();
    let line = "echo ready; while [ ! -e /go ]; do sleep 0.05; done; echo x >/file";
    start_ready(&env, &["--name", "s", "--commit", "x"], line);
    let waiting = env.sandbox(&["wait", "s"]).start();
    drop(env.line(&["--commit", "x"], "echo y >/other").run().ok());
    drop(env.sandbox(&["exec", "s", "--", "touch", "/go"]).run());
    assert_eq!(waiting.wait_with_output().unwrap().status.code(), Some(125));
    drop(env.sandbox(&["wait", "s"]).run().fault(125, "exists already", "recover"));
    let id = only(&env)["run"].as_str().unwrap().to_owned();
    // What goes on from there ends as it ends.
    drop(env.sandbox(&["shell", "--run", &id]).input("exit 3\n").run().code(3));
    drop(env.sandbox(&["wait", &id]).run().code(3));
    drop(env.sandbox(&["rm", "--run", &id]).run().ok());
}

/// Of several that had a name the last is meant, whatever became of it.
#[test]
fn the_last_of_a_name_tells_how_it_went() {
    let env = Env::filled();
    let run = |line: &str, code: i32| {
        drop(
            env.sandbox(&["start", "--name", "s", "--keep-on-failure", "--", "sh", "-c", line])
                .run()
                .ok(),
        );
        let lives = |one: &&Value| one["state"] == "running";
        left::eventually("runs", || {
            listed(&env).iter().filter(lives).map(Value::to_string).collect()
        });
        drop(env.sandbox(&["wait", "s"]).run().code(code));
    };
    run("echo first; exit 7", 7);
    run("echo second", 0);
    drop(env.sandbox(&["logs", "s"]).run().ok().stdout("second\n"));
    run("echo third; exit 5", 5);
    drop(env.sandbox(&["logs", "s"]).run().ok().says("third\n"));
    for one in listed(&env) {
        drop(env.sandbox(&["rm", "--run", one["run"].as_str().unwrap()]).run().ok());
    }
}

#[test]
fn a_run_that_was_not_started_to_stay_says_so() {
    let env = Env::filled();
    let mut child = env.line(&[], "echo ready; read line").start();
    let mut word = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut word).unwrap();
    let id = only(&env)["run"].as_str().unwrap().to_owned();
    drop(env.sandbox(&["stop", &id]).run().fault(4, "cannot be asked", "sandbox start"));
    drop(env.sandbox(&["logs", &id]).run().fault(3, "it has none", "sandbox start"));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn nothing_of_the_caller_is_held() {
    let env = Env::filled();
    let lock = env.file("lock", "");
    let line = format!(
        "exec 9<{lock}; flock 9; {} >/dev/null; exec 9<&-; flock -n {lock} true",
        shell_words(&env.sandbox(&["start", "--name", "s", "--", "sleep", "1000"]).words())
    );
    drop(env.program("bash").args(["-c", &line]).run().ok());
    // Whoever reads the output of `start` to its end does not wait for the run.
    assert_eq!(only(&env)["state"], "running");
    drop(env.sandbox(&["stop", "s"]).run().ok());
}

fn shell_words(words: &[std::ffi::OsString]) -> String {
    words.iter().map(|word| format!("'{}' ", word.display())).collect()
}
