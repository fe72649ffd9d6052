//! `--as-user`: an ordinary user inside, in every id mode.

use crate::common::mode::real_root;
use crate::common::{Env, Ids, debian, ids, left};

/// A tree with a passwd and a group that know no 1000, as the head of the box.
fn bare() -> Env {
    let env = Env::filled();
    drop(env.line(&["--keep"], "sed -i /1000/d /etc/passwd /etc/group").run().ok());
    env
}

fn as_user(env: &Env, line: &str) -> crate::common::Out {
    env.line(&["--as-user"], line).run()
}

const WHO: &str = "echo $(id -u):$(id -g):$(id -G) $(id -un):$(id -gn) $HOME $USER $LOGNAME; pwd";

#[test]
fn a_user_without_an_account_is_known_and_has_a_home() {
    let env = bare();
    let out = as_user(&env, WHO).ok();
    drop(out.stdout("1000:1000:1000 user:user /home/user user user\n/home/user\n"));
    drop(as_user(&env, "echo x >made && cat ~/made && echo y >/tmp/y && : >/dev/shm/z").ok());
    // Who is known already stays, by name; a home that is not there is none.
    let env = Env::filled();
    let out = as_user(&env, WHO).ok();
    drop(out.stdout("1000:1000:1000 builder:builder /home/user builder builder\n/home/user\n"));
    drop(env.line(&["--keep"], "mkdir -p /home/builder && chown 1000:1000 /home/builder").run());
    let out = as_user(&env, "echo $HOME; pwd; touch x && echo written").ok();
    drop(out.stdout("/home/builder\n/home/builder\nwritten\n"));
    // A name that somebody else has, a file without its last line feed.
    let env = bare();
    drop(env.line(&["--keep"], "printf user:x:5:5::/:/bin/sh >>/etc/passwd").run().ok());
    drop(as_user(&env, "id -un; id -gn; id -u user").ok().stdout("user1000\nuser\n5\n"));
}

#[test]
fn nothing_is_a_change_that_the_user_did_not_make() {
    let env = bare();
    let head = env.json(&["log"])["entries"][0]["new"].clone();
    drop(env.line(&["--as-user", "--keep"], "cat ~/none /etc/passwd; ls -la ~ /home; id").run());
    let out = env.line(&["--as-user", "--keep"], "ls ~ && id").run().ok();
    drop(out.warns("nothing changed"));
    assert_eq!(env.json(&["log"])["entries"][0]["new"], head);
    drop(env.line(&[], "grep -c 1000 /etc/passwd; ls /home").run().warns("/home"));
    drop(env.line(&["--as-user", "--keep"], "echo x >file").run().ok());
    let out = env.sandbox(&["diff", "postinit", "head"]).run().ok();
    let lines: Vec<String> = out.text().lines().map(str::to_owned).collect();
    // The tree had been changed before.
    assert_eq!(
        lines,
        ["M /etc/group", "M /etc/passwd", "A /home", "A /home/user", "A /home/user/file"]
    );
}

#[test]
fn what_the_user_makes_has_its_owner_on_disk_and_serves_later_runs() {
    let env = bare();
    drop(env.line(&["--as-user", "--commit", "made"], "mkdir d && echo x >d/f").run().ok());
    // With one id it is the caller's: root inside, for who is root there.
    let owner = if ids().many() { "1000:1000" } else { "0:0" };
    let look = "stat -c %u:%g /home/user /home/user/d/f; cat /home/user/d/f";
    let out = env.line(&["--from", "made"], look).run().ok();
    drop(out.stdout(&format!("{owner}\n{owner}\nx\n")));
    let out = env.line(&["--from", "made"], "rm -r /home/user/d && touch /etc/x && id -u").run();
    drop(out.ok().stdout("0\n"));
    let flags = ["--from", "made", "--as-user", "--commit", "more"];
    drop(env.line(&flags, "echo y >>d/f && rm -f none").run().ok());
    drop(env.line(&["--from", "more"], "cat /home/user/d/f").run().ok().stdout("x\ny\n"));
    drop(env.sandbox(&["fsck", "--seal"]).run().ok());
    for name in ["made", "more"] {
        drop(env.sandbox(&["rm", name]).run().ok());
    }
    drop(env.sandbox(&["gc", "--all"]).run().ok());
    drop(as_user(&env, "touch x; stat -c %u:%g x ~").ok().stdout("1000:1000\n1000:1000\n"));
}

/// As the configure of tar and coreutils does.
#[test]
fn builds_that_refuse_root_build() {
    let env = bare();
    let script = "#!/bin/sh\nset -e\nif [ \"$(id -u)\" = 0 ]; then echo 'not as root' >&2; exit 1; fi\n\
        mkdir conftest && chmod 0 conftest && ! ls conftest/ 2>/dev/null\n\
        rmdir conftest && echo done >result\n";
    let source = env.file("src/configure", script);
    let source = format!("{source}:/configure");
    let run = |flags: &[&str]| {
        env.sandbox(&["run", "--bind", &source]).args(flags).args(["--", "sh", "/configure"]).run()
    };
    drop(run(&[]).code(1).warns("not as root"));
    drop(run(&["--as-user", "--commit", "built"]).ok());
    drop(env.line(&["--from", "built"], "cat /home/user/result").run().ok().stdout("done\n"));
}

#[test]
fn the_user_is_not_root_in_any_way() {
    let env = bare();
    let out = as_user(&env, "grep -E 'Cap(Eff|Prm|Inh|Amb)' /proc/self/status").ok();
    let none = out.text().lines().all(|line| line.ends_with("\t0000000000000000"));
    drop(out.check(none, "an ordinary user has capabilities"));
    let line = "touch f; chown 0 f 2>/dev/null || echo chown; chown 5 f 2>/dev/null || echo chown; \
        chgrp 5 f 2>/dev/null || echo chgrp; mknod d c 1 3 2>/dev/null || echo mknod; \
        mount -t tmpfs none /tmp 2>/dev/null || echo mount; \
        chmod 0 f; cat f 2>/dev/null || echo mode; stat -c %u:%g f";
    let out = as_user(&env, line).ok();
    drop(out.stdout("chown\nchown\nchgrp\nmknod\nmount\nmode\n1000:1000\n"));
    let written = if ids().many() { 1 } else { 0 };
    drop(as_user(&env, "touch /etc/x 2>/dev/null").code(written));
}

#[test]
fn where_there_can_be_no_home_the_user_begins_in_tmp() {
    let env = bare();
    let home = "echo $HOME; pwd; touch x && echo written";
    let out = env.line(&["--as-user", "--read-only"], home).run().ok();
    drop(out.stdout("/tmp\n/tmp\nwritten\n"));
    let out = env.line(&["--as-user", "--profile", "strict"], home).run();
    match ids() {
        Ids::Identity if real_root() => drop(out.fault(125, "root of this machine", "range")),
        _ => drop(out.ok().stdout("/tmp\n/tmp\nwritten\n")),
    }
    drop(env.line(&["--keep"], "rm -rf /home && ln -s nowhere /home").run().ok());
    drop(as_user(&env, home).ok().stdout("/tmp\n/tmp\nwritten\n"));
    // Neither is what a layer has in the place of accounts waited for, or followed.
    drop(env.line(&["--keep"], "rm /etc/passwd /etc/group; mkfifo /etc/passwd").run().ok());
    drop(as_user(&env, "id -u; id -g; echo $HOME").ok().stdout("1000\n1000\n/tmp\n"));
    drop(env.line(&["--keep"], "rm /etc/passwd; ln -s /proc/self/fd/0 /etc/passwd").run().ok());
    drop(as_user(&env, "id -u").ok().stdout("1000\n"));
    // What was asked for stays.
    let flags = ["--as-user", "-w", "/opt", "-e", "HOME=/opt", "-e", "USER=me"];
    drop(env.line(&flags, "echo $HOME $USER; pwd").run().ok().stdout("/opt me\n/opt\n"));
}

#[test]
fn flags_beside_it() {
    let env = bare();
    let out = env.line(&["--as-user", "--user", "0"], "true").run();
    drop(out.code(125).stdout("").warns("cannot be used with"));
    drop(env.sandbox(&["box", "set", "user=root"]).run().ok());
    drop(as_user(&env, "id -u").ok().stdout("1000\n"));
    let plan = env.sandbox(&["run", "--json", "--as-user", "--dry-run", "--", "true"]).run().ok();
    let plan = plan.json();
    assert_eq!((&plan["user"], &plan["workdir"]), (&"1000:1000".into(), &"~".into()));
    let first = if ids().many() { 0 } else { 1000 };
    assert_eq!(plan["id_map"]["uids"][0]["inside"], first);
    // A program by its relative name is one of the home directory.
    let line = "printf '#!/bin/sh\\necho mine\\n' >mine && chmod 755 mine";
    drop(env.line(&["--as-user", "--keep"], line).run().ok());
    drop(env.sandbox(&["run", "--as-user", "--", "./mine"]).run().ok().stdout("mine\n"));
    let result = env.folder("result");
    let out = ["run", "--as-user", "--out", &format!("/home/user/mine:{result}"), "--", "true"];
    drop(env.sandbox(&out).run().ok());
    assert!(env.path("result/mine").exists());
    for net in ["pasta", "slirp4netns"] {
        let out = env.sandbox(&["run", "--as-user", "--net", net, "--", "id", "-u"]).run();
        drop(out.ok().stdout("1000\n"));
    }
}

#[test]
fn commands_that_join_are_the_same_user() {
    let env = bare();
    let start = ["start", "--name", "web", "--as-user", "--tty", "--", "sleep", "1000"];
    drop(env.sandbox(&start).run().ok());
    let exec = |words: &[&str]| env.sandbox(&["exec"]).args(words).run();
    drop(
        exec(&["web", WHO])
            .ok()
            .stdout("1000:1000:1000 user:user /home/user user user\n/home/user\n"),
    );
    drop(exec(&["-w", "/etc", "web", "pwd; echo x >~/x"]).ok().stdout("/etc\n"));
    let root = exec(&["--user", "0", "web", "id -u; echo $HOME"]);
    if ids().many() {
        drop(root.ok().stdout("0\n/root\n"));
    } else {
        drop(root.fault(125, "user: 0: the id map (single)", "--as-user"));
    }
    let file = env.file("in", "in\n");
    drop(env.sandbox(&["cp", &file, "web:/home/user/in"]).run().ok());
    drop(exec(&["web", "cat in x"]).ok().stdout("in\nx\n"));
    let out = env.path("out");
    drop(env.sandbox(&["cp", "web:/home/user/x", out.to_str().unwrap()]).run().ok());
    assert_eq!(std::fs::read_to_string(out).unwrap(), "x\n");
    drop(env.sandbox(&["stop", "web", "--commit", "served"]).run().ok());
    left::eventually("the run", || env.entries("runs"));
    drop(env.line(&["--from", "served"], "cat /home/user/x").run().ok().stdout("x\n"));
}

/// Directories for mounts are for everybody, whatever the caller takes away from files of his own.
#[test]
fn the_callers_umask_does_not_matter() {
    let env = bare();
    let program = env.sandbox(&["run", "--as-user", "--bind", "/etc/hosts:/srv/a/b"]).words();
    let mut words = vec!["sh".into(), "-c".into(), "umask 077; exec \"$@\"".into(), "sh".into()];
    words.extend(program);
    words.extend(["--", "cat", "/srv/a/b"].map(Into::into));
    let (first, rest) = words.split_first().unwrap();
    drop(env.program(first.to_str().unwrap()).args(rest).run().ok().says("localhost"));
}

/// A real tree: name services of glibc, and a package's tests as users run them.
#[test]
fn a_distribution_knows_the_user() {
    let env = debian();
    let run = |line: &str| env.line(&["--as-user"], line).run();
    drop(run("whoami; id; getent passwd 1000; cd ~ && touch a && ls -l a").ok().says("user user"));
    drop(run("perl -e '$> = 0; exit($> == 0)'; perl -e '$< = 0; exit($< == 0)'").ok());
    if ids() == Ids::Single {
        drop(run("stat -c %U /etc/passwd").ok().stdout("user\n"));
    }
}
