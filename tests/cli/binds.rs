//! Binds, memory, caches and results: what of the host is inside, and what comes out.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use crate::common::{Env, Ids, ids};

#[test]
fn a_bind_is_read_only_unless_asked_otherwise() {
    let env = Env::filled();
    let host = env.folder("host");
    env.file("host/file", "outside\n");
    let line = "cat /data/file; touch /data/new; echo x >/data/file; rm /data/file; mount -o remount,rw /data";
    for mode in ["", ":ro"] {
        let bind = format!("{host}:/data{mode}");
        let out = env.line(&["--bind", &bind], &format!("({line}) 2>&1; ls /data")).run().ok();
        let text = out.text();
        drop(out.check(text.starts_with("outside\n") && text.ends_with("\nfile\n"), "read-only"));
        assert_eq!(fs::read_to_string(env.path("host/file")).unwrap(), "outside\n");
    }
    // Without a target it is at its own place.
    drop(
        env.sandbox(&["run", "--bind", &host, "--", "cat", &format!("{host}/file")])
            .run()
            .ok()
            .stdout("outside\n"),
    );
}

#[test]
fn a_writable_bind() {
    let env = Env::filled();
    let host = env.folder("host");
    drop(
        env.line(&["--bind", &format!("{host}:/data:rw")], "echo in >/data/new")
            .run()
            .ok()
            .stderr(""),
    );
    assert_eq!(fs::read_to_string(env.path("host/new")).unwrap(), "in\n");
    let owner = fs::metadata(env.path("host/new")).unwrap().uid();
    let caller = rustix::process::geteuid().as_raw();
    assert_eq!(owner == caller, ids() != Ids::Range, "owner {owner}");
}

/// Only the caller's way to it counts: in `range` mode root inside could not go there.
#[test]
fn an_overlay_bind_may_lie_behind_a_closed_directory() {
    let env = Env::filled();
    let host = env.folder("closed/host");
    env.file("closed/host/file", "outside\n");
    fs::set_permissions(env.path("closed"), fs::Permissions::from_mode(0o700)).unwrap();
    let bind = format!("{host}:/data:overlay");
    drop(env.line(&["--bind", &bind], "cat /data/file").run().ok().stdout("outside\n"));
}

#[test]
fn a_file_is_no_directory() {
    let env = Env::filled();
    let (folder, file) = (env.folder("host"), env.file("file", ""));
    let hint = "a file is bound onto a file, a directory onto a directory";
    for (bind, what) in [
        (format!("{folder}:/etc/passwd"), "bind {} on /etc/passwd ro: invalid argument"),
        (
            format!("{folder}:/etc/passwd:overlay"),
            "bind {} on /etc/passwd overlay: invalid argument",
        ),
        (format!("{file}:/usr"), "on /usr ro: invalid argument"),
        (format!("{file}:/etc"), "mount target: /etc: it would be a file, and /etc/host"),
    ] {
        let what = what.replace("{}", &folder);
        drop(env.sandbox(&["run", "--bind", &bind, "--", "true"]).run().fault(125, &what, hint));
    }
    let cache = env.entries("store/cache");
    assert!(!cache.iter().any(|name| name.starts_with(".scaffold")), "{cache:?}");
}

#[test]
fn an_overlay_bind_keeps_the_host_as_it_is() {
    let env = Env::filled();
    let host = env.folder("host");
    env.file("host/file", "outside\n");
    env.file("host/dir/deep", "deep\n");
    let flags = ["--bind", &format!("{host}:/data:overlay"), "--commit", "x"];
    let line = "cat /data/file; rm /data/file; rm -r /data/dir; echo new >/data/new; ls /data";
    if ids() == Ids::Range {
        // Root's files are nobody's inside: they can be read, and new ones made.
        let flags = ["--bind", &format!("{host}:/data:overlay")];
        drop(env.line(&flags, "cat /data/file").run().ok().stdout("outside\n"));
        return;
    }
    drop(env.line(&flags, line).run().ok().stdout("outside\nnew\n"));
    assert_eq!(fs::read_to_string(env.path("host/file")).unwrap(), "outside\n");
    assert_eq!(fs::read_to_string(env.path("host/dir/deep")).unwrap(), "deep\n");
    assert!(!env.path("host/new").exists());
    // Dropped at the end: not in the commit either.
    drop(env.sandbox(&["diff", "postinit", "x"]).run().ok().stdout(""));
}

#[test]
fn targets_that_do_not_exist_leave_no_trace() {
    let env = Env::filled();
    let host = env.folder("host");
    let file = env.file("host/file", "outside\n");
    let flags = [
        "--bind",
        &format!("{host}:/new/deep/data"),
        "--bind",
        &format!("{file}:/etc/new.conf"),
        "--bind",
        &format!("{file}:/opt/deep/a"),
        "--bind",
        &format!("{file}:/run/file"),
        "--bind",
        &format!("{host}:/run/folder"),
        "--bind",
        &format!("{file}:/dev/file"),
        "--tmpfs",
        "/scratch/here",
        "--commit",
        "x",
    ];
    let line = "cat /new/deep/data/file /etc/new.conf /opt/deep/a /run/file /run/folder/file /dev/file; \
                echo x >/scratch/here/x; cat /opt/deep/b";
    let out = env.line(&flags, line).run().ok();
    drop(out.stdout(&format!("{}b\n", "outside\n".repeat(6))));
    drop(env.sandbox(&["diff", "postinit", "x"]).run().ok().stdout(""));
    assert_eq!(env.entries("layers").len(), 1, "nothing changed, so there is no layer");
    drop(env.line(&["--from", "x"], "ls -d /new /scratch /etc/new.conf 2>&1").run().code(2));
    drop(env.sandbox(&["run", "--", "cat", "/opt/deep/a"]).run().ok().stdout("a\n"));
}

#[test]
fn sources_that_are_none() {
    let env = Env::filled();
    let missing = env.path("missing");
    let run = |bind: &str| env.sandbox(&["run", "--bind", bind, "--", "true"]).run();
    drop(run(&format!("{}:/data", missing.display())).fault(125, "missing", ""));
    drop(run(":/data").code(125).stdout(""));
    drop(run("/etc:data").code(125).stdout("").warns("absolute"));
    drop(run("/etc:/data:xx").code(125).stdout("").warns("ro, rw, overlay"));
    drop(run("/etc:/a/../b").code(125).stdout("").warns(".."));
    drop(run("/etc:/").code(125).stdout(""));
    let file = env.file("file", "x");
    drop(run(&format!("{file}:/data:overlay")).fault(125, "only a directory", ""));
    // A file onto a directory that is there, and the other way around.
    drop(run(&format!("{file}:/opt")).code(125).stdout("").warns("/opt"));
    drop(
        run(&format!("{}:/etc/passwd", env.folder("dir")))
            .code(125)
            .stdout("")
            .warns("/etc/passwd"),
    );
    assert!(!missing.exists());
}

#[test]
fn the_store_is_out_of_reach() {
    let env = Env::filled();
    let store = env.base().to_str().unwrap();
    let link = env.path("link");
    symlink(env.base(), &link).unwrap();
    let parent = env.dir().to_str().unwrap();
    for source in [
        store,
        parent,
        "/",
        &format!("{store}/layers"),
        link.to_str().unwrap(),
        &format!("{store}/../store/boxes"),
    ] {
        for mode in ["ro", "rw", "overlay"] {
            let out = env
                .sandbox(&["run", "--bind", &format!("{source}:/data:{mode}"), "--", "true"])
                .run();
            drop(out.fault(125, "store", ""));
        }
    }
}

#[test]
fn names_with_colons_and_links() {
    let env = Env::filled();
    let host = env.folder("a:b,c d\u{e4}");
    env.file("a:b,c d\u{e4}/file", "odd\n");
    let bind = format!("{}:/data", host.replace(':', "\\:"));
    drop(
        env.sandbox(&["run", "--bind", &bind, "--", "cat", "/data/file"])
            .run()
            .ok()
            .stdout("odd\n"),
    );
    // A link of the caller is followed; one of a layer leads nowhere outside of it.
    symlink(&host, env.path("link")).unwrap();
    let bind = format!("{}:/data", env.path("link").display());
    drop(
        env.sandbox(&["run", "--bind", &bind, "--", "cat", "/data/file"])
            .run()
            .ok()
            .stdout("odd\n"),
    );
    drop(env.line(&["--commit", "trap"], "ln -s /etc /trap").run().ok());
    let out = env
        .sandbox(&[
            "run",
            "--from",
            "trap",
            "--bind",
            &bind.replace(":/data", ":/trap/x"),
            "--",
            "true",
        ])
        .run();
    let code = out.status.code();
    drop(out.check(code == Some(0) || code == Some(125), "refused or inside"));
    assert!(!std::path::Path::new("/etc/x").exists());
    // Relative to the caller's directory.
    let out = env
        .sandbox(&["run", "--bind", "link:/data", "--", "cat", "/data/file"])
        .dir(env.dir())
        .run();
    drop(out.ok().stdout("odd\n"));
}

/// A read-only bind is read-only all the way down. Whoever made the mount beneath can mount, so this is done
/// as uid 0 of a user namespace.
#[test]
fn mounts_beneath_a_read_only_bind_are_read_only() {
    let env = Env::empty();
    let host = env.folder("host/sub");
    let host = host.trim_end_matches("/sub");
    let line = format!(
        "mount -t tmpfs none {host}/sub && echo seen >{host}/sub/file && chmod 777 {host}/sub && \
         \"$0\" --base-dir \"$1\" init --from \"$2\" >/dev/null && \
         \"$0\" --base-dir \"$1\" run --bind {host}:/data -- \
         sh -c 'cat /data/sub/file; (echo x >/data/sub/new) 2>&1; (echo x >/data/sub/file) 2>&1; ls /data/sub' && \
         \"$0\" --base-dir \"$1\" run --bind {host}:/data:rw -- \
         sh -c 'echo rw >/data/sub/new; cat /data/sub/new'"
    );
    let words = [
        crate::common::env::binary().into_os_string(),
        env.base().into(),
        crate::common::tree::tiny_source().into(),
    ];
    let out = env.program("unshare").args(["-rm", "sh", "-c", &line]).args(words).run().ok();
    let text = out.text();
    let lines: Vec<_> = text.lines().collect();
    let refused = lines.iter().filter(|line| line.contains("Read-only file system")).count();
    drop(out.check(
        lines[0] == "seen" && refused == 2 && lines[3..] == ["file", "rw"],
        "read-only beneath",
    ));
}

#[test]
fn memory_is_gone_afterwards() {
    let env = Env::filled();
    let flags = ["--tmpfs", "/opt", "--tmpfs", "/work", "--commit", "x"];
    drop(
        env.line(&flags, "ls /opt; echo x >/opt/x; echo x >/work/x; cat /opt/x")
            .run()
            .ok()
            .stdout("x\n"),
    );
    drop(env.sandbox(&["diff", "postinit", "x"]).run().ok().stdout(""));
    drop(env.line(&["--from", "x"], "ls /opt").run().ok().stdout("deep\nplain\ntype\n"));
    drop(env.sandbox(&["run", "--tmpfs", "rel", "--", "true"]).run().code(125).stdout(""));
    let flags = ["--tmpfs", "/work:size=64K,mode=1770"];
    let line =
        "stat -c %a /work; head -c 128K /dev/zero >/work/x 2>/dev/null || stat -c %s /work/x";
    drop(env.line(&flags, line).run().ok().stdout("1770\n65536\n"));
    let out = env.sandbox(&["run", "--tmpfs", "/work:uid=0", "--", "true"]).run();
    drop(out.fault(125, "uid=0: there is no such option", "size=SIZE"));
}

#[test]
fn a_cache_lasts_and_is_in_no_commit() {
    let env = Env::filled();
    let flags = ["--cache", "pkgs:/var/cache/pkgs"];
    let line = "cat /var/cache/pkgs/n 2>/dev/null; echo x >>/var/cache/pkgs/n; chown 1:5 /var/cache/pkgs/n";
    drop(env.line(&flags, line).run().ok().stdout(""));
    drop(env.line(&[&flags[..], &["--commit", "c"]].concat(), line).run().ok().stdout("x\n"));
    drop(env.line(&flags, &format!("{line}; exit 3")).run().code(3).stdout("x\nx\n"));
    drop(env.line(&[], "ls /var/cache 2>/dev/null").run().code(2));
    drop(env.sandbox(&["diff", "postinit", "c"]).run().ok().stdout(""));
    drop(env.sandbox(&["gc"]).run().ok());
    drop(env.line(&["--cache", "pkgs:/elsewhere"], "wc -l </elsewhere/n").run().ok().stdout("3\n"));
    // Each box has its own.
    drop(env.init(&["second", "--from", &crate::common::tree::tiny_source()]).run().ok());
    drop(env.line(&["-b", "second", "--cache", "pkgs:/c"], "ls /c").run().ok().stdout(""));
    for bad in ["pkgs", "../x:/c", "pkgs:c", ":/c", "a b:/c", "pkgs:/"] {
        drop(env.sandbox(&["run", "--cache", bad, "--", "true"]).run().code(125).stdout(""));
    }
}

#[test]
fn results_come_out_on_success_and_on_failure() {
    let env = Env::filled();
    let out = env.folder("out");
    let flag = format!("/work/result:{out}");
    let line =
        "mkdir /work; echo one >/work/result; chmod 640 /work/result; chown 1:5 /work/result";
    drop(env.line(&["--out", &flag], line).run().ok().stdout("").warns("copied out"));
    let result = env.path("out/result");
    assert_eq!(fs::read_to_string(&result).unwrap(), "one\n");
    let meta = fs::metadata(&result).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (rustix::process::geteuid().as_raw(), 0o640));
    let line = "mkdir /work; echo two >/work/result; exit 8";
    drop(env.line(&["--out", &flag], line).run().code(8));
    assert_eq!(fs::read_to_string(&result).unwrap(), "two\n", "an existing file is replaced");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "temporary files are left over");
    // A missing result is an error of ours, and keeps what was there.
    drop(env.line(&["--out", &flag], "true").run().fault(125, "no such file inside", ""));
    assert_eq!(fs::read_to_string(&result).unwrap(), "two\n");
    // Nor does a directory stay that was made for nothing.
    let fresh = env.path("fresh");
    let flag = format!("/nowhere:{}", fresh.display());
    drop(env.line(&["--out", &flag], "true").run().fault(125, "no such file inside", ""));
    assert!(!fresh.exists());
}

/// As long as the file system lets names be, and nothing that was there is touched.
#[test]
fn results_have_any_name() {
    let env = Env::filled();
    let out = env.path("o");
    let long = "x".repeat(255);
    let line = format!("cd /tmp; echo 1 >{long}; mkdir d; mv {long} d/; cp d/* .");
    let (file, dir) =
        (format!("/tmp/{long}:{}", out.display()), format!("/tmp/d:{}", out.display()));
    drop(env.line(&["--out", &file, "--out", &dir], &line).run().ok());
    assert_eq!(fs::read_to_string(out.join("d").join(&long)).unwrap(), "1\n");
    let line = format!("cd /tmp; mkdir {long}; echo 2 >{long}/f");
    drop(env.line(&["--out", &file], &line).run().fault(125, "exists already", "empty directory"));
    fs::remove_file(out.join(&long)).unwrap();
    drop(env.line(&["--out", &file], &line).run().ok());
    assert_eq!(fs::read_to_string(out.join(&long).join("f")).unwrap(), "2\n");
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2);
}

/// What cannot be copied out hides nothing of how the command ended, and nothing is committed for it.
#[test]
fn a_result_that_is_missing_is_told_beside_how_the_command_ended() {
    let env = Env::filled();
    let (path, missing) = (env.path("report.json"), format!("/nope:{}", env.path("o").display()));
    let report = path.to_str().unwrap();
    let read = || serde_json::from_slice::<serde_json::Value>(&fs::read(&path).unwrap()).unwrap();
    let run = |flags: &[&str], line: &str| {
        let flags = [&["--report", report, "--out", &missing], flags].concat();
        env.line(&flags, line).run().warns("copy out: /nope: no such file inside")
    };
    // The command has failed: its own exit code, and all that there is to say.
    drop(run(&[], "exit 3").code(3));
    let json = read();
    assert!(json["run"].as_str().unwrap().starts_with("r-"), "{json}");
    assert_eq!((&json["exit"], &json["error"]), (&3.into(), &serde_json::Value::Null));
    assert_eq!(json["out_error"], "copy out: /nope: no such file inside");
    drop(run(&["--timeout", "1"], "sleep 1000").code(143).warns("--timeout"));
    assert_eq!((&read()["signal"], &read()["error"]), (&15.into(), &"timeout".into()));
    drop(run(&["--commit", "made"], "exit 4").code(4).warns("nothing kept: the command ended"));
    drop(env.sandbox(&["run", "--out", &missing, "--", "nosuch"]).run().code(127).warns("nosuch"));
    drop(run(&["--keep-on-failure"], "exit 3").code(3).warns("kept as r-"));
    // It has not, and nothing is committed for that.
    for flags in [&["--commit", "made"][..], &["--keep"], &["--keep=force"]] {
        let line = "nothing kept: a result could not be copied out";
        drop(run(flags, "touch /qq").code(125).warns(line));
        let json = read();
        assert_eq!((&json["exit"], &json["kind"]), (&0.into(), &"not-found".into()), "{json}");
        assert!(json["run"].is_string() && json["committed"].is_null(), "{json}");
        assert_eq!(json["error"], json["out_error"]);
        assert_eq!(env.snapshots(), ["postinit"]);
    }
    let id = only_kept(&env);
    drop(env.sandbox(&["rm", "--run", &id]).run().ok());
    drop(
        run(&["--commit", "made", "--keep-on-failure"], "touch /qq").code(125).warns("kept as r-"),
    );
    let id = only_kept(&env);
    assert_eq!(read()["run"], id.as_str());
    drop(env.sandbox(&["recover", &id, "--as", "made"]).run().ok());
    drop(env.sandbox(&["run", "--from", "made", "--", "ls", "/qq"]).run().ok());
}

/// The id of the one run that is there.
fn only_kept(env: &Env) -> String {
    let all = env.json(&["ps"]);
    assert_eq!(all["runs"].as_array().unwrap().len(), 1, "{all}");
    assert_eq!(all["runs"][0]["state"], "kept");
    all["runs"][0]["run"].as_str().unwrap().to_owned()
}

/// What is in the way of a result is said before the command has worked for it.
#[test]
fn a_directory_in_the_way_of_a_result_is_said_first() {
    let env = Env::filled();
    let (out, host) = (env.folder("out"), env.folder("host"));
    env.folder("out/tree");
    env.file("file", "");
    let bind = format!("{host}:/host:rw");
    let in_way = [format!("/work/tree:{out}"), format!("/work/x:{}", env.path("file").display())];
    for (flag, why) in in_way.iter().zip(["exists already", "not a directory"]) {
        let flags = ["--bind", &bind, "--out", flag];
        drop(env.line(&flags, "touch /host/ran").run().fault(125, why, ""));
        assert!(!env.path("host/ran").exists());
        let words = ["run", "--dry-run", "--out", flag, "--", "true"];
        drop(env.sandbox(&words).run().fault(125, why, ""));
    }
    // One that appears meanwhile is found as well.
    let place = format!("{out}/new:/new:rw");
    env.folder("out/new");
    let flag = format!("/work/sub:{out}/new");
    let line = "mkdir -p /work/sub; mkdir /new/sub";
    let flags = ["--bind", &place, "--out", &flag, "--commit", "made"];
    drop(env.line(&flags, line).run().code(125).warns("sub exists already"));
    assert_eq!(env.snapshots(), ["postinit"]);
}

#[test]
fn a_directory_comes_out_and_links_lead_nowhere() {
    let env = Env::filled();
    let out = env.folder("out");
    let line = "mkdir -p /work/tree/sub; echo x >/work/tree/sub/file; ln -s /etc/passwd /work/tree/link; \
                chmod 0700 /work/tree/sub; ln -s /etc/passwd /work/evil; mkfifo /work/fifo";
    drop(env.line(&["--out", &format!("/work/tree:{out}")], line).run().ok());
    assert_eq!(fs::read_to_string(env.path("out/tree/sub/file")).unwrap(), "x\n");
    assert_eq!(fs::read_link(env.path("out/tree/link")).unwrap().to_str(), Some("/etc/passwd"));
    drop(env.line(&["--out", &format!("/work/tree:{out}")], line).run().fault(
        125,
        "exists already",
        "",
    ));
    // A link of the payload is read in its own root.
    drop(env.line(&["--out", &format!("/work/evil:{out}")], line).run().ok());
    assert!(fs::read_to_string(env.path("out/evil")).unwrap().contains("/var/spool"));
    drop(env.line(&["--out", &format!("/work/fifo:{out}")], line).run().fault(
        125,
        "neither a file",
        "",
    ));
    // The directory is made; from a place in memory nothing is left when the command has ended.
    drop(env.line(&["--out", &format!("/etc/passwd:{out}/new/dir")], "true").run().ok());
    assert!(env.path("out/new/dir/passwd").exists());
}

/// Most trees have /var/run and /var/lock as links into /run, which is empty at first.
#[test]
fn places_that_a_link_leads_to_are_made_in_run() {
    let env = Env::filled();
    let line = "rm -rf /var/run /var/lock; mkdir -p /srv; ln -s /run /var/run; \
        ln -s ../run/lock /var/lock; ln -s /run/nowhere/else /srv/link";
    drop(env.line(&["--commit", "linked"], line).run().ok());
    let dir = env.folder("dir");
    let file = env.file("dir/file", b"of the host\n");
    let binds = [
        format!("{dir}:/var/run/a/b"),
        format!("{file}:/var/run/a.sock"),
        format!("{dir}:/var/lock/c"),
        format!("{file}:/srv/link"),
    ];
    let mut flags = vec!["--from", "linked", "--tmpfs", "/var/run/mine", "--commit", "after"];
    for bind in &binds {
        flags.extend(["--bind", bind]);
    }
    let line = "cat /run/a/b/file /run/a.sock /run/lock/c/file /run/nowhere/else; \
        stat -f -c %T /run/mine; touch /run/mine/x";
    let shown = "of the host\n".repeat(4) + "tmpfs\n";
    drop(env.line(&flags, line).run().ok().stdout(&shown).warns("nothing changed"));
    // What is bound into /run is the host's: nothing is made there.
    let (bind, within) = (format!("{dir}:/run/theirs:rw"), format!("{dir}:/var/run/theirs/x"));
    let flags = ["--from", "linked", "--bind", &bind, "--bind", &within];
    drop(env.line(&flags, "true").run().code(125).warns("/var/run/theirs/x"));
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
}
