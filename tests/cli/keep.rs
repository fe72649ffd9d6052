//! What a run keeps: commits, kept heads, kept failures, and coming back to them.

use crate::common::Env;

#[test]
fn a_commit_is_a_snapshot() {
    let env = Env::filled();
    let before = env.json(&["show", "postinit"]);
    let out =
        env.line(&["--commit", "devel"], "echo new >/etc/new; rm /opt/plain").run().ok().stdout("");
    drop(out.warns("devel"));
    assert_eq!(env.snapshots(), ["postinit", "devel"]);
    drop(
        env.line(&["--from", "devel"], "cat /etc/new; ls /opt")
            .run()
            .ok()
            .stdout("new\ndeep\ntype\n"),
    );
    // The head stays, and so does what it names.
    drop(env.line(&[], "cat /opt/plain; test ! -e /etc/new").run().ok().stdout("plain\n"));
    assert_eq!(env.json(&["show", "postinit"]), before);
    let shown = env.json(&["show", "devel"]);
    assert_eq!(shown["parent"], before["layer"]);
    assert_eq!(shown["argv"], serde_json::json!(["sh", "-c", "echo new >/etc/new; rm /opt/plain"]));
    assert_eq!(shown["exit"], 0);
    assert_eq!(shown["chain"], serde_json::json!([before["layer"], shown["layer"]]));
}

#[test]
fn an_existing_name_is_refused_before_the_command_starts() {
    let env = Env::filled();
    let bind = format!("{}:/host:rw", env.folder("host"));
    let out = env.line(&["--commit", "postinit", "--bind", &bind], "touch /host/ran").run();
    drop(out.fault(125, "postinit", "another name"));
    assert!(!env.path("host/ran").exists());
    let json = env
        .sandbox(&["run", "--json", "--commit", "postinit", "--", "true"])
        .run()
        .code(125)
        .json();
    assert_eq!(json["error"]["kind"], "conflict");
}

#[test]
fn a_failure_commits_nothing() {
    let env = Env::filled();
    let state = env.state();
    drop(
        env.line(&["--commit", "x"], "touch /new; exit 3")
            .run()
            .code(3)
            .stdout("")
            .warns("nothing kept"),
    );
    drop(env.line(&["--keep"], "touch /new; kill -9 $$").run().code(137).warns("nothing kept"));
    drop(env.sandbox(&["run", "--commit", "x", "--", "nonexistent"]).run().code(127).stdout(""));
    assert_eq!(env.state(), state);
}

#[test]
fn keep_moves_the_head() {
    let env = Env::filled();
    drop(env.line(&["--keep"], "echo 1 >/one").run().ok().stdout(""));
    drop(env.line(&["--keep"], "cat /one; echo 2 >/two").run().ok().stdout("1\n"));
    drop(env.sandbox(&["run", "--", "cat", "/one", "/two"]).run().ok().stdout("1\n2\n"));
    assert_eq!(env.snapshots(), ["postinit"]);
    assert_eq!(env.json(&["show"])["chain"].as_array().unwrap().len(), 3);
    // From elsewhere only with force.
    let state = env.state();
    let bind = format!("{}:/host:rw", env.folder("host"));
    let out = env.line(&["--keep", "--from", "postinit", "--bind", &bind], "touch /host/ran").run();
    drop(out.fault(125, "head", "--keep=force"));
    assert_eq!(env.state(), state);
    assert!(!env.path("host/ran").exists());
    drop(env.line(&["--keep=force", "--from", "postinit"], "echo 3 >/three").run().ok());
    drop(
        env.sandbox(&["run", "--", "sh", "-c", "cat /three; test ! -e /one"])
            .run()
            .ok()
            .stdout("3\n"),
    );
}

#[test]
fn a_kept_failure_can_be_looked_at_gone_on_with_and_recovered() {
    let env = Env::filled();
    let out = env.line(&["--keep-on-failure"], "echo half >/half; rm /opt/plain; exit 9").run();
    let out = out.code(9).stdout("").warns("sandbox shell --run r-");
    drop(out);
    let run = env.entries("runs").pop().unwrap();
    drop(env.sandbox(&["diff", "--run", &run]).run().ok().stdout("A /half\nD /opt/plain\n"));
    let json = env.json(&["diff", "--run", &run]);
    assert_eq!(json["to"], run.as_str());
    let out = env
        .sandbox(&["shell", "--run", &run])
        .input("cat /half; echo more >>/half; exit 4\n")
        .run();
    drop(out.code(4).says("half"));
    assert_eq!(env.entries("runs"), [run.as_str()]);
    drop(env.sandbox(&["gc"]).run().ok());
    assert_eq!(env.entries("runs"), [run.as_str()], "gc took a kept run");
    drop(env.sandbox(&["recover", &run, "--as", "postinit"]).run().fault(4, "postinit", ""));
    drop(env.sandbox(&["recover", &run, "--as", "saved"]).run().ok().says("saved: "));
    drop(
        env.sandbox(&["run", "--from", "saved", "--", "cat", "/half"])
            .run()
            .ok()
            .stdout("half\nmore\n"),
    );
    drop(env.sandbox(&["recover", &run, "--as", "again"]).run().fault(3, &run, ""));
    // Of the last process that worked in it.
    assert_eq!(env.json(&["show", "saved"])["exit"], 4);
}

#[test]
fn a_success_keeps_no_run() {
    let env = Env::filled();
    drop(env.line(&["--keep-on-failure"], "echo x >/x").run().ok().stderr(""));
    drop(env.line(&["--keep-on-failure", "--commit", "y"], "echo y >/y").run().ok());
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn a_run_that_is_going_on_is_busy() {
    let env = Env::filled();
    let mut child = env.line(&[], "echo ready; read line").start();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    let run = env.entries("runs").pop().unwrap();
    drop(env.sandbox(&["recover", &run, "--as", "x"]).run().code(5).stdout("").warns(&run));
    drop(env.sandbox(&["diff", "--run", &run]).run().code(5).stdout("").warns(&run));
    drop(env.sandbox(&["shell", "--run", &run]).run().code(125).stdout("").warns(&run));
    // Neither is its layer taken away, nor itself.
    drop(env.line(&["--commit", "other"], "touch /x").run().ok());
    drop(env.sandbox(&["gc"]).run().ok());
    assert_eq!(env.entries("runs"), [run]);
    drop(child.stdin.take());
    assert!(!child.wait().unwrap().success());
}

/// A commit of nothing is a snapshot all the same: the user asked for the name. But it is no new layer.
#[test]
fn a_commit_without_a_change() {
    let env = Env::filled();
    let layers = env.entries("layers");
    let out = env.sandbox(&["run", "--commit", "same", "--", "true"]).run().ok();
    drop(out.warns("nothing changed"));
    drop(env.sandbox(&["diff", "postinit", "same"]).run().ok().stdout(""));
    assert_eq!(env.snapshots(), ["postinit", "same"]);
    assert_eq!(env.entries("layers"), layers);
    assert_eq!(env.json(&["show", "same"])["layer"], env.json(&["show", "postinit"])["layer"]);
}

#[test]
fn keeping_nothing_moves_nothing() {
    let env = Env::filled();
    let state = env.state();
    let report = env.path("report");
    let flags = ["run", "--keep", "--report", report.to_str().unwrap(), "--"];
    drop(env.sandbox(&flags).args(["true"]).run().ok().warns("nothing changed: head is not moved"));
    let text = std::fs::read_to_string(&report).unwrap();
    let told: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&told["committed"], &told["exit"]), (&serde_json::Value::Null, &0.into()));
    // Looking is no change either, nor is what comes and goes in the root directory.
    let look = "cat /opt/plain; ls -lR /opt >/dev/null; touch /x; rm /x; mkdir /y; rmdir /y";
    drop(env.line(&["--keep"], look).run().ok().warns("nothing changed"));
    assert_eq!(env.state(), state);
}

#[test]
fn the_root_directory_itself_is_a_change() {
    let env = Env::filled();
    drop(env.line(&["--keep"], "chmod 700 /").run().ok().warns("head -> "));
    assert_eq!(env.json(&["show"])["chain"].as_array().unwrap().len(), 2);
    // The next upper is a fresh one, whose root is nobody's change.
    let state = env.state();
    drop(env.line(&["--keep"], "true").run().ok().warns("nothing changed"));
    assert_eq!(env.state(), state);
}

#[test]
fn forced_to_keep_nothing_the_head_moves_all_the_same() {
    let env = Env::filled();
    drop(env.line(&["--keep"], "touch /x").run().ok());
    let out = env.line(&["--keep=force", "--from", "postinit"], "true").run().ok();
    drop(out.warns("no layer was made"));
    assert_eq!(env.json(&["show"])["layer"], env.json(&["show", "postinit"])["layer"]);
}

/// Also when it has ended: by its name, or by the beginning of its id.
#[test]
fn a_kept_run_goes_by_its_name() {
    let env = Env::filled();
    let words =
        ["start", "--name", "web", "--keep-on-failure", "--", "sh", "-c", "echo x >/x; exit 3"];
    drop(env.sandbox(&words).run().ok());
    drop(env.sandbox(&["wait", "web"]).run());
    let begins = env.entries("runs").pop().unwrap()[..8].to_owned();
    for word in ["web", &begins] {
        drop(env.sandbox(&["diff", "--run", word]).run().ok().stdout("A /x\n"));
        drop(
            env.sandbox(&["shell", "--run", word])
                .input("cat /x\nexit 5\n")
                .run()
                .code(5)
                .says("x"),
        );
    }
    for words in [&["diff", "--run", "nope"][..], &["recover", "nope", "--as", "x"]] {
        drop(env.sandbox(words).run().fault(3, "find run: nope: there is none", "sandbox ps"));
    }
    drop(env.sandbox(&["shell", "--run", "nope"]).run().fault(125, "nope", "sandbox ps"));
    drop(env.sandbox(&["recover", "web", "--as", "saved"]).run().ok().says("saved: "));
}

#[test]
fn a_kept_run_without_a_change_is_recovered_as_a_name() {
    let env = Env::filled();
    drop(env.line(&["--keep-on-failure"], "exit 1").run().code(1));
    let run = env.entries("runs").pop().unwrap();
    let out = env.sandbox(&["recover", &run, "--as", "same"]).run().ok();
    drop(out.says("nothing had changed"));
    assert_eq!(env.json(&["show", "same"])["layer"], env.json(&["show", "postinit"])["layer"]);
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn a_snapshot_of_another_box() {
    let env = Env::filled();
    drop(env.init(&["empty", "--from", "scratch"]).run().ok());
    let flags = ["run", "-b", "empty", "--from", "default/postinit", "--commit", "taken", "--"];
    drop(env.sandbox(&flags).args(["touch", "/new"]).run().ok());
    drop(
        env.sandbox(&["-b", "empty", "run", "--from", "taken", "--", "ls", "/new"])
            .run()
            .ok()
            .stdout("/new\n"),
    );
    assert_eq!(env.snapshots(), ["postinit"]);
}

#[test]
fn a_kept_run_is_thrown_away() {
    let env = Env::filled();
    let keep = || drop(env.line(&["--keep-on-failure"], "echo x >/x; exit 1").run().code(1));
    keep();
    keep();
    let runs = env.entries("runs");
    let [first, second] = runs.as_slice() else { panic!("{runs:?}") };
    // All of them or none.
    let words = ["rm", "postinit", "--run", first, "--run", "r-00000000000000"];
    drop(env.sandbox(&words).run().fault(3, "r-00000000000000", ""));
    drop(env.sandbox(&["rm", "nothing", "--run", first]).run().fault(3, "nothing", ""));
    drop(env.sandbox(&["rm"]).run().code(2));
    drop(env.sandbox(&["stop", "--discard", first]).run().fault(3, "has ended", "rm --run"));
    assert_eq!((env.entries("runs"), env.snapshots()), (runs.clone(), vec!["postinit".to_owned()]));
    drop(env.sandbox(&["rm", "--run", first]).run().ok().stdout(&format!("removed run {first}\n")));
    let told = env.json(&["rm", "--run", &second[..8], "--run", second]);
    assert_eq!(told, serde_json::json!({"removed": [], "runs": [second]}));
    // One that goes on does not go.
    drop(env.sandbox(&["start", "--name", "web", "--", "sleep", "1000"]).run().ok());
    drop(env.sandbox(&["rm", "--run", "web"]).run().fault(5, "still running", ""));
    drop(env.sandbox(&["stop", "-t", "0", "web"]).run().ok());
}

/// To be killed is a failure: what was to be kept then is, whatever command comes next.
#[test]
fn what_is_kept_on_failure_outlives_its_supervisor() {
    let env = Env::filled();
    let line = "echo half >/half; echo ready; exec sleep 1000";
    let mut child = env.line(&["--keep-on-failure", "--commit", "never"], line).start();
    let mut ready = [0; 6];
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut ready).unwrap();
    assert_eq!(env.json(&["ps"])["runs"][0]["state"], "running");
    child.kill().unwrap();
    child.wait().unwrap();
    crate::common::left::eventually("processes", || crate::common::left::processes(env.dir()));
    drop(env.sandbox(&["list"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    let runs = env.entries("runs");
    assert_eq!(env.json(&["ps"])["runs"][0]["state"], "kept");
    drop(env.sandbox(&["recover", &runs[0], "--as", "half"]).run().ok());
    drop(env.line(&["--from", "half"], "cat /half").run().ok().stdout("half\n"));
    // Nor is anything lost when it is killed while it commits.
    for step in ["publish.rename.before", "publish.rename.after", "publish.layers.fsync.after"] {
        let flags = ["--keep-on-failure", "--commit", "never"];
        let command = env.line(&flags, "echo done >/done");
        drop(command.env("SANDBOX_FAIL", format!("{step}:kill")).run());
        drop(env.sandbox(&["list"]).run().ok());
        let runs = env.entries("runs");
        let name = step.replace('.', "-");
        drop(env.sandbox(&["recover", &runs[0], "--as", &name]).run().ok());
        drop(env.line(&["--from", &name], "cat /done").run().ok().stdout("done\n"));
    }
    // One that ended well is no failure.
    drop(env.line(&["--keep-on-failure"], "echo x >/x; sleep 0.1").run().ok());
    drop(env.line(&["--keep-on-failure"], "sleep 0.1").run().ok());
    assert_eq!(env.entries("runs"), [""; 0]);
}
