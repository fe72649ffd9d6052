//! A sandbox inside the sandbox: what it finds, what comes back, and what its payload can reach of the store
//! around it. The program itself is bound in; what is run inside is a line for its shell.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::common::{Cmd, Env, Ids, binary, debian, ids, mode::real_root, packages};

/// `--bind` for the program and what it loads, and the same once more for use inside.
fn itself() -> (Vec<String>, String) {
    let program = binary().canonicalize().unwrap();
    let told = Command::new("ldd").arg(&program).output().expect("ldd");
    let told = String::from_utf8(told.stdout).unwrap();
    let libraries = told.split_whitespace().filter(|word| word.starts_with("/lib"));
    let mut binds = vec![format!("{}:/usr/local/bin/sandbox", program.display())];
    let mut inner = "--bind /usr/local/bin/sandbox:/usr/local/bin/sandbox".to_owned();
    for path in libraries {
        let real = Path::new(path).canonicalize().unwrap();
        binds.push(format!("{}:{path}", real.display()));
        inner.push_str(&format!(" --bind {path}:{path}"));
    }
    (binds.into_iter().flat_map(|bind| ["--bind".to_owned(), bind]).collect(), inner)
}

/// `sandbox run --nest FLAGS -- sh -c LINE`; in the line `$NEST` is what one more level wants.
pub(crate) fn nest(env: &Env, flags: &[&str], line: &str) -> Cmd {
    let (binds, inner) = itself();
    env.sandbox(&["run", "--nest"])
        .args(binds)
        .args(["--env", &format!("NEST=--nest {inner}"), "--env", "SANDBOX_BUDGET=off"])
        .args(flags)
        .args(["--", "sh", "-c", line])
}

/// A box in which `--nest` works. Where root inside is root of this machine it is refused, and that is all there is to
/// see.
pub(crate) fn filled() -> Option<Env> {
    let env = Env::filled();
    works(&env).then_some(env)
}

fn works(env: &Env) -> bool {
    let works = ids() != Ids::Identity || !real_root();
    if !works {
        let (state, why) = (env.state(), "root inside is root of this machine");
        drop(env.sandbox(&["run", "--nest", "--", "true"]).run().fault(125, why, "--ids range"));
        assert_eq!(env.state(), state);
    }
    works
}

/// What a snapshot says of its layer and its chain.
fn chain(env: &Env, name: &str) -> Vec<String> {
    let shown = env.json(&["show", name]);
    let chain = shown["chain"].as_array().unwrap();
    chain.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_made_inside_comes_out_at_the_end() {
    let Some(env) = filled() else { return };
    drop(env.line(&["--commit", "base"], "echo base >/base").run().ok());
    let line = "set -e; sandbox list --json | grep -q base; \
        sandbox run --from base --commit one -- sh -c 'cat /base; echo one >/one; rm /opt/plain'; \
        sandbox run --from one --commit two -- sh -c 'cat /one; mkfifo /two'; \
        sandbox diff two; sandbox gc --all; sandbox fsck; sandbox df >/dev/null; sandbox rm base";
    let out = nest(&env, &[], line).run().ok();
    let out = out.warns("one -> ").warns("two -> ");
    let text = out.text();
    assert!(text.starts_with("base\none\nA /two\n") && text.contains("whole"), "{text}");
    // What was done to outer names inside is nothing here.
    assert_eq!(env.snapshots(), ["postinit", "base", "one", "two"]);
    let (base, two) = (chain(&env, "base"), chain(&env, "two"));
    assert_eq!((two.len(), &two[..2]), (4, &base[..]));
    assert_eq!(two[2], chain(&env, "one")[2]);
    let shown = env.json(&["show", "one"]);
    assert_eq!(shown["argv"][2], "cat /base; echo one >/one; rm /opt/plain");
    assert_eq!((&shown["exit"], &shown["files"]), (&json!(0), &json!(3)), "{shown}");
    drop(
        env.line(&["--from", "two"], "cat /base /one; test -p /two && ls /opt")
            .run()
            .ok()
            .stdout("base\none\ndeep\ntype\n"),
    );
    let log = env.json(&["log"]);
    assert_eq!(log["entries"][0]["action"], "adopt", "{log}");
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.snapshots(), ["postinit", "base"]);
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 2);
    assert_eq!(env.json(&["fsck"])["ok"], true);
}

/// The acceptance: a package at the innermost of three, asked for outside.
#[test]
fn three_levels_deep_a_package_is_installed() {
    let (store, own) = (debian(), Env::empty());
    if !works(store) {
        return;
    }
    let rpm = packages::rpm(&own);
    let bind = format!("{rpm}:/probe.rpm");
    let line = "sandbox run --quiet $NEST --bind /probe.rpm:/probe.rpm --env NEST --env SANDBOX_BUDGET -- sh -c '\
        sandbox run --quiet --bind /probe.rpm:/probe.rpm --commit nested-rpm -- rpm -i --nodeps /probe.rpm'";
    let flags = ["--from", "postinit", "--bind", &bind];
    drop(nest(store, &flags, line).run().ok().stdout(""));
    let ask = ["run", "--from", "nested-rpm", "--", "rpm", "-q", "probe"];
    drop(store.sandbox(&ask).run().ok().stdout("probe-1.0-1.noarch\n"));
    // Owners as they are meant: on disk, or remembered by the innermost.
    let line = "stat -c '%a %u %g' /usr/bin/probe /var/lib/probe/state";
    let expected = if ids().many() { "2755 0 8\n640 33 33\n" } else { "2755 0 0\n640 0 0\n" };
    drop(store.line(&["--from", "nested-rpm"], line).run().ok().stdout(expected));
    if ids() == Ids::Single {
        let layer = store.layer("nested-rpm");
        let owners = fs::read_to_string(layer.parent().unwrap().join("owners")).unwrap();
        assert!(owners.contains("\"path\":\"var/lib/probe/state\",\"uid\":33"), "{owners}");
    }
    assert_eq!(chain(store, "nested-rpm").len(), chain(store, "postinit").len() + 1);
}

#[test]
fn what_could_reach_further_is_refused() {
    let Some(env) = filled() else { return };
    let state = env.state();
    let refused = |flags: &[&str], on: &str, hint: &str| {
        let run = env.sandbox(&["run", "--nest"]).args(flags).args(["--", "true"]).run();
        drop(run.fault(125, on, hint));
    };
    refused(&["--profile", "strict"], "profile: strict", "--profile build");
    let cap = env.sandbox(&["run", "--nest", "--cap-add", "sys_admin", "--", "true"]).run();
    drop(cap.code(125).warns("CAP_SYS_ADMIN"));
    let user = env.sandbox(&["run", "--nest", "--user", "0", "--", "true"]).run();
    drop(user.code(125).warns("--user"));
    refused(&["--strict"], "masked-proc", "--strict");
    assert_eq!(env.state(), state);
    // Without the flag there is no store, and no namespace to make one in.
    let line = "test ! -e /run/sandbox && test -z \"$SANDBOX_BASE_DIR\" && ! unshare --user true 2>/dev/null";
    drop(env.line(&[], line).run().ok());
}

#[test]
fn a_taken_name_keeps_the_run() {
    let Some(env) = filled() else { return };
    drop(env.line(&["--commit", "other"], "touch /other").run().ok());
    // The inner store does not know what is named meanwhile.
    let flag = format!("{}:/host:rw", env.folder("host"));
    let line = "sandbox run --quiet --commit one -- touch /one; touch /host/ready; \
        while test ! -e /host/go; do sleep 0.1; done";
    let run = nest(&env, &["--bind", &flag], line).start();
    while !env.path("host/ready").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let id = env.entries("runs").remove(0);
    drop(env.sandbox(&["adopt", &id]).run().fault(5, "still running", "sandbox stop"));
    drop(env.line(&["--commit", "one"], "touch /first").run().ok());
    // What it was lent lives, whatever becomes of the names.
    drop(env.sandbox(&["rm", "other"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 3);
    fs::write(env.path("host/go"), "").unwrap();
    let out = run.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.code(), Some(125), "{told}");
    let hint = format!(" adopt {id} --as PREFIX`");
    assert!(told.contains("snapshot one exists already") && told.contains(&hint), "{told}");
    drop(env.sandbox(&["adopt", &id]).run().fault(4, "one exists already", "--as PREFIX"));
    let adopted = env.json(&["adopt", &id, "--as", "in"]);
    assert_eq!(adopted["snapshots"][0]["name"], "in-one", "{adopted}");
    drop(env.line(&["--from", "in-one"], "test -e /one && test ! -e /first").run().ok());
    // Its own changes stay, and what was lent may go.
    drop(env.sandbox(&["adopt", &id]).run().fault(4, &id, "--nest"));
    drop(env.sandbox(&["recover", &id, "--as", "rest"]).run().ok());
    drop(env.sandbox(&["gc", "--all", "--wait-trash"]).run());
    assert_eq!(env.json(&["fsck"])["ok"], true);
    assert_eq!(env.entries("runs"), Vec::<String>::new());
}

#[test]
fn a_failure_takes_nothing_in_unless_it_is_kept() {
    let Some(env) = filled() else { return };
    let line = "sandbox run --quiet --commit one -- touch /one; exit 3";
    drop(nest(&env, &[], line).run().code(3));
    assert_eq!(env.snapshots(), ["postinit"]);
    assert_eq!(env.entries("runs"), Vec::<String>::new());
    drop(nest(&env, &["--keep-on-failure"], line).run().code(3));
    let id = env.entries("runs").remove(0);
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    // The store of a run is of no use outside of it.
    let inner = env.base().join("runs").join(&id).join("nest");
    if ids() != Ids::Range {
        let out = env.bare().arg("--base-dir").arg(inner).arg("list").run();
        drop(out.fault(2, "inner store of a run", "adopt"));
    }
    // By the beginning of its id, as everywhere.
    drop(env.sandbox(&["adopt", &id[..8]]).run().ok());
    assert_eq!(env.snapshots(), ["postinit", "one"]);
    drop(env.line(&["--from", "one"], "test -e /one").run().ok());
    env.drop_kept(&[&id]);
}

#[test]
fn a_commit_and_a_kept_head_go_with_it() {
    let Some(env) = filled() else { return };
    let line = "touch /own; sandbox run --quiet --commit one -- touch /one; sandbox run --quiet --keep -- touch /lost";
    let report = env.path("report");
    let flags = ["--commit", "own", "--report", report.to_str().unwrap()];
    let out = nest(&env, &flags, line).run().ok();
    drop(out.warns("head: what was kept inside has no name"));
    assert_eq!(env.snapshots(), ["postinit", "one", "own"]);
    drop(env.line(&["--from", "own"], "test -e /own && test ! -e /one").run().ok());
    let told: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(told["adopted"][0]["name"], "one", "{told}");
}

/// Everything of the store around that a payload could wish to change, as itself and as root of namespaces of
/// its own.
#[test]
fn nothing_around_can_be_changed() {
    let Some(env) = filled() else { return };
    drop(env.line(&["--commit", "other"], "echo other >/other").run().ok());
    let before = tree_of(&env);
    let attempts = "cd /run/sandbox || exit 9
        try() { if \"$@\" 2>/dev/null; then echo \"could: $*\"; fi; }
        for fs in layers/*/fs; do
            try touch $fs/made; try rm $fs/opt/plain; try chmod 777 $fs; try mv $fs $fs.away; try rmdir $fs
            try sh -c \"echo x >$fs/opt/type\"; try ln layers $fs/link; try mknod $fs/pipe p
            try mount -o remount,rw,bind $fs; try mount -o remount,rw $fs; try umount $fs; try umount -l $fs
            try ln $fs/opt/type /run/sandbox/stolen
        done
        test -r layers/$BASE/fs/opt || echo unreadable
        for up in .. ../.. ../../.. /run/sandbox/../..; do
            for name in box.json refs runs cache trash lock format.json boxes; do
                test ! -e $up/$name || test $up/$name -ef ./$name || echo \"sees $up/$name\"
            done
        done
        touch own && rm own && echo ran";
    let inside = format!(
        "cat >/tmp/attempts <<'END'\n{attempts}\nEND\nsh /tmp/attempts; \
         unshare --user --map-root-user --mount --pid --fork sh /tmp/attempts"
    );
    let base = format!("BASE={}", chain(&env, "postinit")[0]);
    let out = nest(&env, &["--env", &base], &inside).run().ok().text();
    assert_eq!(out, "ran\nran\n");
    assert_eq!(tree_of(&env), before);
    assert_eq!(env.json(&["fsck"])["ok"], true);
}

/// All of the store that is not a run, as names, modes, times and contents of our own files.
fn tree_of(env: &Env) -> Vec<String> {
    let find = "find . -path ./runs -prune -o -path ./trash -prune -o -path ./cache -prune -o -printf '%p %y %m %U %G %s %T@\\n' | sort";
    let out = env.program("sh").args(["-c", find]).dir(env.base()).run();
    out.text().lines().filter(|line| !line.starts_with(". ")).map(str::to_owned).collect()
}

/// However the kernel is handed the layers, and whichever command asks.
#[test]
fn each_way_and_each_command_finds_the_outer_layers() {
    let Some(env) = filled() else { return };
    drop(env.line(&["--commit", "base"], "echo base >/base").run().ok());
    let line = "set -e; for way in fd fd-attached lowerdir+ mount; do \
        sandbox run --quiet --from base --overlay-way $way --commit w-$way -- sh -c 'cat /base >/copy'; done; \
        sandbox cp base:/base /tmp/base; cat /tmp/base; \
        sandbox unshare --from base -- sh -c 'cat $SANDBOX_ROOT/base'; sandbox diff postinit base";
    let out = nest(&env, &[], line).run().ok();
    let text = out.text();
    assert!(text.starts_with("base\n") && text.ends_with("base\nA /base\n"), "{text}");
    for way in ["fd", "fd-attached", "lowerdir+", "mount"] {
        let from = format!("w-{way}");
        drop(env.line(&["--from", &from], "cat /copy").run().ok().stdout("base\n"));
    }
}

#[test]
fn a_run_that_stays_takes_in_what_exec_has_made() {
    let Some(env) = filled() else { return };
    let (binds, _) = itself();
    let start = env.sandbox(&["start", "--nest", "--name", "web"]).args(&binds);
    drop(start.args(["--env", "SANDBOX_BUDGET=off", "--", "sleep", "600"]).run().ok());
    let line = "sandbox run --quiet --commit one -- touch /one";
    drop(env.sandbox(&["exec", "web", "--", "sh", "-c", line]).run().ok());
    drop(env.sandbox(&["stop", "web", "--keep"]).run().ok());
    assert_eq!(env.snapshots(), ["postinit", "one"]);
    drop(env.line(&["--from", "one"], "test -e /one").run().ok());
}

/// What lies in the store inside is written to the same disk, and counts; what was lent does not.
#[test]
fn the_store_inside_counts_for_disk() {
    let Some(env) = filled() else { return };
    for n in 0..8 {
        let name = format!("n{n}");
        drop(env.line(&["--keep"], &format!("echo {n} >/opt/n")).run().ok());
        drop(env.sandbox(&["snapshot", &name]).run().ok());
    }
    let state = env.state();
    let flags = ["--disk", "8M"];
    let writes = |mib: u32, more: &str| {
        format!(
            "sandbox run --commit inner -- sh -c 'head -c {} /dev/urandom >/opt/f'{more}",
            mib << 20
        )
    };
    // While it goes on: in a kept run, in a layer; and by one that was faster than who measures.
    for more in ["; sleep 1000", ""] {
        let out = nest(&env, &flags, &writes(12, more)).run();
        drop(out.code(137).warns("its changes take more than 8388608 bytes: --disk"));
        assert_eq!(env.state(), state, "{more}");
    }
    let line = format!("{} && head -c 5000000 /dev/urandom >/opt/g", writes(5, ""));
    drop(nest(&env, &flags, &line).run().code(137).warns("--disk"));
    assert_eq!(env.state(), state, "together");
    drop(nest(&env, &["--disk", "32K"], ":").run().ok());
    drop(nest(&env, &["--disk", "6M"], &writes(5, "")).run().ok());
    drop(env.line(&["--from", "inner"], "[ $(wc -c </opt/f) = 5242880 ]").run().ok());
}

/// A chain as long as one may be is folded when it is taken in. What was lent cannot be folded inside, so there it may
/// grow a little longer, and what has no room is refused before its command begins.
#[test]
fn long_chains_are_folded_when_they_are_taken_in() {
    const LONGEST: usize = 6;
    let Some(env) = filled() else { return };
    let limit = format!("SANDBOX_LONGEST_CHAIN={LONGEST}");
    let short = |cmd: Cmd| cmd.env("SANDBOX_LONGEST_CHAIN", LONGEST.to_string());
    let more = |from: &str, names: &str| {
        format!(
            "set -e; p={from}; for n in {names}; do \
                sandbox run -q --from $p --commit $n -- sh -c \"echo $n >/opt/$n; rm -f /opt/$p\"; p=$n; \
            done"
        )
    };
    let holds = |name: &str, wanted: &str| {
        let out = env.line(&["--from", name], "cd /opt; echo *").run().ok().text();
        let here: Vec<_> = out.split_whitespace().filter(|one| one.len() == 2).collect();
        assert_eq!(here.join(" "), wanted, "{name}");
        assert!(chain(&env, name).len() <= LONGEST, "{name}");
    };
    // All of it made inside, where it was folded, too.
    let names = "a1 a2 a3 a4 a5 a6 a7 a8 a9";
    drop(short(nest(&env, &["--env", &limit], &more("postinit", names))).run().ok());
    names.split(' ').for_each(|name| holds(name, name));
    drop(env.sandbox(&["undo"]).run().ok());
    assert_eq!(env.snapshots(), ["postinit"]);
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 1);
    // The same when gc has left only the fold layer of what was beneath.
    let gone = "for n in a1 a2 a4 a5 a6 a7 a8; do sandbox rm -q $n; done; sandbox gc -q --all";
    let line = format!("{}; {gone}", more("postinit", names));
    drop(short(nest(&env, &["--env", &limit], &line)).run().ok());
    assert_eq!(env.snapshots(), ["postinit", "a3", "a9"]);
    for name in ["a3", "a9"] {
        holds(name, name);
    }
    drop(env.sandbox(&["diff", "postinit", "a9"]).run().ok().stdout("A /opt/a9\n"));
    assert_eq!(env.json(&["fsck"])["ok"], true);
    drop(env.sandbox(&["undo"]).run().ok());
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    assert_eq!(env.entries("layers").len(), 1);
    // Folded twice, and the older of two that are left has kept what the younger one's chain no longer has.
    for (older, younger) in [("y", "z"), ("z", "y")] {
        let made = more("postinit", &format!("e1 e2 e3 e4 e5 e6 {older} {younger}"));
        let gone = "for n in e1 e2 e3 e4 e5 e6; do sandbox rm -q $n; done; sandbox gc -q --all";
        let limit = "SANDBOX_LONGEST_CHAIN=4";
        let line = format!("{made}; {gone}; sandbox fsck");
        drop(short(nest(&env, &["--env", limit], &line)).run().ok());
        for name in [older, younger] {
            let out = env.line(&["--from", name], "cd /opt; ls").run().ok().text();
            assert_eq!(
                out.split_whitespace().filter(|one| one.len() < 3).collect::<Vec<_>>(),
                [name]
            );
        }
        assert_eq!(env.json(&["fsck"])["ok"], true);
        drop(env.sandbox(&["undo"]).run().ok());
        drop(env.sandbox(&["gc", "--all"]).run().ok());
    }
    // On a chain with room for one.
    for n in 1..LONGEST - 1 {
        drop(short(env.line(&["--keep"], &format!("echo {n} >/opt/b{n}"))).run().ok());
    }
    drop(env.sandbox(&["snapshot", "tip"]).run().ok());
    assert_eq!(chain(&env, "tip").len(), LONGEST - 1);
    // Five times as many, of which the scaffold is none.
    let inside: Vec<_> = (1..=LONGEST * 5 - (LONGEST - 1)).map(|n| format!("c{n}")).collect();
    let last = inside.last().expect("some");
    let refused =
        format!("sandbox run --from {last} --commit more -- sh -c 'echo begun' && exit 9; true");
    let line = format!("{}; {refused}", more("tip", &inside.join(" ")));
    let out = short(nest(&env, &["--env", &limit], &line)).run().ok();
    assert!(!out.text().contains("begun"));
    drop(out.warns("cannot be folded in here").warns("hint: end the command around with 0"));
    holds("c1", "b1 b2 b3 b4 c1");
    holds("c2", "b1 b2 b3 b4 c2");
    assert_eq!(env.snapshots().len(), 2 + inside.len());
    // And on that again, by adopt.
    let line = format!("{}; exit 3", more("c2", "d1"));
    let flags = ["--env", &limit, "--keep-on-failure"];
    drop(short(nest(&env, &flags, &line)).run().code(3));
    let kept = env.entries("runs").pop().expect("a kept run");
    drop(short(env.sandbox(&["adopt", &kept])).run().ok());
    holds("d1", "b1 b2 b3 b4 d1");
    drop(env.sandbox(&["diff", "tip", "d1"]).run().ok().stdout("A /opt/d1\n"));
    assert_eq!(env.json(&["fsck"])["ok"], true);
    env.drop_kept(&[&kept]);
}
