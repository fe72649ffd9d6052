//! Environment, working directory, user, host name and network.

use std::net::{TcpListener, TcpStream};

use crate::common::{Env, Ids, ids};

#[test]
fn the_environment_is_clean() {
    let env = Env::filled();
    let out = env
        .sandbox(&["run", "--", "env"])
        .env("SSH_AUTH_SOCK", "/tmp/agent")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("LD_PRELOAD", "")
        .env("DBUS_SESSION_BUS_ADDRESS", "x")
        .env("XDG_RUNTIME_DIR", "/run/user/1")
        .env("http_proxy", "http://proxy")
        .env("LC_ALL", "C")
        .run()
        .ok()
        .stderr("");
    let text = out.text();
    let mut seen: Vec<_> = text.lines().collect();
    seen.sort_unstable();
    // With one id there is nobody that apt could become.
    if !ids().many() {
        assert_eq!(seen.remove(0), "APT_CONFIG=/run/sandbox-apt.conf");
    }
    let expected = [
        "HOME=/root",
        "LANG=C.UTF-8",
        "LC_ALL=C",
        "LOGNAME=root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL=/bin/sh",
        "TERM=dumb",
        "USER=root",
        "container=sandbox",
        "http_proxy=http://proxy",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn variables_by_flag_and_by_file() {
    let env = Env::filled();
    let file = env
        .file("vars", "# a comment\n\nA=1\nB=two words\nC='quoted'\nHOST_ONE\nNOT_SET\n  D=4\r\n");
    let other = env.file("more", "A=9\n");
    let flags = [
        "run",
        "--env-file",
        &file,
        "--env-file",
        &other,
        "-e",
        "B=3",
        "--env",
        "E=a=b",
        "-e",
        "EMPTY=",
        "-e",
        "HOST_TWO",
        "--",
        "sh",
        "-c",
    ];
    let line = "echo \"$A|$B|$C|$D|$E|${EMPTY-none}|$HOST_ONE|$HOST_TWO|${NOT_SET-none}\"";
    let out = env.sandbox(&flags).arg(line).env("HOST_ONE", "h1").env("HOST_TWO", "h2").run();
    drop(out.ok().stderr("").stdout("9|3|'quoted'|4|a=b||h1|h2|none\n"));
    drop(env.sandbox(&["run", "-e", "=x", "--", "true"]).run().fault(125, "K=V", ""));
    drop(env.sandbox(&["run", "--env-file", "/nonexistent", "--", "true"]).run().fault(
        125,
        "/nonexistent",
        "",
    ));
    let bad = env.file("bad", "A=1\n=2\n");
    drop(env.sandbox(&["run", "--env-file", &bad, "--", "true"]).run().fault(125, "line 2", ""));
    // Of what does not end, no more is read than can be of use.
    let endless = ["run", "--env-file", "/dev/zero", "--", "true"];
    drop(env.sandbox(&endless).run().fault(125, "/dev/zero: larger than 2 MiB", "K=V"));
    // What a flag says holds over what we set, and PATH decides where the command is found.
    drop(
        env.sandbox(&["run", "-e", "HOME=/x", "--", "sh", "-c", "echo $HOME"])
            .run()
            .ok()
            .stdout("/x\n"),
    );
    drop(env.sandbox(&["run", "-e", "PATH=/nowhere", "--", "true"]).run().code(127));
}

#[test]
fn working_directory() {
    let env = Env::filled();
    drop(env.sandbox(&["run", "--", "pwd"]).run().ok().stdout("/\n"));
    drop(env.sandbox(&["run", "-w", "/opt/deep", "--", "pwd"]).run().ok().stdout("/opt/deep\n"));
    drop(env.sandbox(&["run", "--workdir", "/", "--", "pwd"]).run().ok().stdout("/\n"));
    drop(env.sandbox(&["run", "-w", "/nope", "--", "true"]).run().fault(125, "/nope", "--workdir"));
    drop(env.sandbox(&["run", "-w", "/etc/passwd", "--", "true"]).run().fault(
        125,
        "/etc/passwd",
        "",
    ));
    drop(
        env.sandbox(&["run", "-w", "rel", "--", "true"])
            .run()
            .code(125)
            .stdout("")
            .warns("absolute"),
    );
    drop(env.sandbox(&["run", "-w", "/a/../b", "--", "true"]).run().code(125).stdout(""));
    let host = env.folder("host");
    let out =
        env.sandbox(&["run", "--bind", &format!("{host}:/src"), "-w", "/src", "--", "pwd"]).run();
    drop(out.ok().stdout("/src\n"));
}

#[test]
fn users() {
    let env = Env::filled();
    let line = "echo $(id -u):$(id -g):$(id -G) $HOME $USER";
    let run = |user: &str| env.line(&["--user", user], line).run();
    drop(run("0").ok().stdout("0:0:0 /root root\n"));
    drop(run("root").ok().stdout("0:0:0 /root root\n"));
    if ids().many() {
        drop(run("1").ok().stdout("1:1:1 5 /var/spool daemon\n"));
        drop(run("daemon").ok().stdout("1:1:1 5 /var/spool daemon\n"));
        drop(run("daemon:tty").ok().stdout("1:5:5 /var/spool daemon\n"));
        drop(run("1:0").ok().stdout("1:0:0 /var/spool daemon\n"));
        drop(run("builder").ok().says("1000:1000:1000 1001 /home/builder builder\n"));
        drop(run("4321").ok().stdout("4321:4321:4321 /\n"));
        // What was asked for stays.
        let out = env.line(&["--user", "daemon", "-e", "HOME=/opt", "-e", "USER=me"], line).run();
        drop(out.ok().stdout("1:1:1 5 /opt me\n"));
        // Not a user that may do what root may.
        let out =
            env.line(&["--user", "daemon"], "grep -E 'Cap(Eff|Prm|Amb)' /proc/self/status").run();
        let zero = out.text().lines().all(|line| line.ends_with("\t0000000000000000"));
        drop(out.ok().check(zero, "a plain user has capabilities"));
        drop(env.line(&["--user", "daemon"], "touch /etc/x 2>&1").run().code(1));
    } else {
        drop(run("1").fault(125, "the id map", "single mode has uid 0 only"));
        drop(run("daemon").fault(125, "daemon", ""));
    }
    drop(run("nobody-here").fault(125, "nobody-here", ""));
    for bad in [
        "-1",
        "",
        "0x0",
        "1:2:3",
        "4294967295",
        "4294967296",
        "1:",
        ":1",
        "+1",
        "1 ",
        "a b",
        "1:-1",
    ] {
        let out = env.line(&[&format!("--user={bad}")], line).run();
        drop(out.code(125).stdout("").warns("user: "));
    }
}

/// The message names the user as it was typed.
#[test]
fn an_unknown_user_is_named_as_typed() {
    let env = Env::filled();
    let out = env.sandbox(&["run", "--user", "nobody-here", "--", "true"]).run();
    drop(out.code(125).stderr("sandbox: user: nobody-here: not in the passwd or group inside\n"));
    if !ids().many() {
        let out = env.sandbox(&["run", "--user", "1:5", "--", "true"]).run().code(125);
        drop(out.warns("sandbox: user: 1:5: the id map (single) does not hold it\n"));
    }
}

#[test]
fn host_name() {
    let env = Env::filled();
    let read = "hostname; cat /etc/hostname; grep -q \"$(hostname)\" /etc/hosts && echo known";
    drop(env.line(&[], read).run().ok().stdout("default\ndefault\nknown\n"));
    drop(
        env.line(&["--hostname", "build-1.example"], read)
            .run()
            .ok()
            .stdout("build-1.example\nbuild-1.example\nknown\n"),
    );
    for bad in ["", "a b", "-x", "a\nb", &"x".repeat(65)] {
        drop(
            env.sandbox(&["run", &format!("--hostname={bad}"), "--", "true"])
                .run()
                .code(125)
                .stdout(""),
        );
    }
    // Not the host's, and not to be changed.
    drop(env.line(&["--commit", "x"], "hostname other 2>&1").run().code(1));
    drop(env.line(&["--commit", "y"], "cat /etc/hostname").run().ok());
    drop(env.sandbox(&["diff", "postinit", "y"]).run().ok().stdout(""));
}

#[test]
fn a_network_of_its_own_has_loopback_only() {
    let env = Env::filled();
    let lines = "tail -n +3 /proc/net/dev | sed 's/:.*//; s/ //g'; cat /proc/net/fib_trie | grep -c 127.0.0.1";
    let out = env.line(&[], lines).run().ok();
    let up = out.text().lines().nth(1).is_some_and(|count| count != "0");
    drop(out.says("lo\n").check(up, "lo is down"));
    drop(env.line(&["--net", "none"], "tail -n +3 /proc/net/dev | wc -l").run().ok().stdout("1\n"));
    let own = "readlink /proc/self/ns/net";
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let host = format!("{}\n", host.display());
    let out = env.line(&[], own).run().ok();
    let apart = out.text() != host;
    drop(out.check(apart, "the host's network"));
    drop(env.line(&["--net", "host"], own).run().ok().stdout(&host));
    drop(
        env.sandbox(&["run", "--net", "bridge", "--", "true"])
            .run()
            .code(125)
            .stdout("")
            .warns("none, host"),
    );
}

/// With a real program that connects: perl of the Debian tree.
#[test]
fn only_the_hosts_network_reaches_the_host() {
    let env = crate::common::debian();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let connect = format!(
        "use Socket; socket(S, PF_INET, SOCK_STREAM, 0) or die $!; \
         connect(S, sockaddr_in({port}, inet_aton('127.0.0.1'))) or do {{ print \"$!\\n\"; exit 1 }}; print \"yes\\n\""
    );
    let run = |net: &str| env.sandbox(&["run", "--net", net, "--", "perl", "-e", &connect]).run();
    drop(run("none").code(1).stdout("Connection refused\n"));
    drop(run("host").ok().stdout("yes\n"));
    drop(listener);
    let own = "use Socket; socket(L, PF_INET, SOCK_STREAM, 0); bind(L, sockaddr_in(7777, INADDR_LOOPBACK)) or die $!; \
               listen(L, 1) or die $!; socket(S, PF_INET, SOCK_STREAM, 0); \
               connect(S, sockaddr_in(7777, INADDR_LOOPBACK)) or die $!; print \"own\\n\"";
    drop(env.sandbox(&["run", "--", "perl", "-e", own]).run().ok().stdout("own\n"));
    assert!(TcpStream::connect("127.0.0.1:7777").is_err());
}

#[test]
fn inside_ids_are_those_of_the_mode() {
    let env = Env::filled();
    let out = env.line(&[], "cat /proc/self/uid_map").run().ok();
    let map: Vec<u64> = out.text().split_whitespace().map(|word| word.parse().unwrap()).collect();
    let caller = u64::from(rustix::process::geteuid().as_raw());
    match ids() {
        Ids::Single => assert_eq!(map, [0, caller, 1]),
        Ids::Subuid => assert_eq!(map[..3], [0, caller, 1]),
        Ids::Range => assert!(map[0] == 0 && map[1] > 1000 && map[2] > 1, "{map:?}"),
        Ids::Identity => assert_eq!(map[..2], [0, 0]),
    }
}
