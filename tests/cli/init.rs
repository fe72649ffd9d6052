//! `init`: sources, the second time, owners, and what a failure leaves.

use std::fs;

use crate::common::tree::{self, OWNED, Tar, compressed, tiny_source};
use crate::common::{Env, Ids, ids, tiny};

#[test]
fn a_tar_fills_a_box_once() {
    let env = Env::empty();
    let source = tiny_source();
    let out = env.init(&["--from", &source]).run().ok().stderr("");
    let first = out.text();
    let out = out.check(first.starts_with("box default: postinit is "), "the first line");
    let ends = format!("entries, ids: {}\n", ids().name());
    drop(out.check(first.lines().next().unwrap().ends_with(ends.trim_end()), "count and ids"));
    let state = env.state();
    assert_eq!(env.snapshots(), ["postinit"]);

    let same = format!("box default: already made from {source}: nothing changed\n");
    drop(env.init(&["--from", &source]).run().ok().stdout(&same).stderr(""));
    // The same file by another name is the same source; no --ids is the mode that the box has.
    fs::create_dir(env.path("d")).unwrap();
    std::os::unix::fs::symlink(tiny(), env.path("d/link.tar")).unwrap();
    let link = format!("tar:{}", env.path("d/link.tar").display());
    drop(env.sandbox(&["init", "--from", &link]).run().ok().stdout(&same));
    let json = env.json(&["init", "--from", &source]);
    assert_eq!((json["created"].as_bool(), json["box"].as_str()), (Some(false), Some("default")));
    drop(env.init(&["-q", "--from", &source]).run().ok().stdout("").stderr(""));

    let other = env.folder("other");
    drop(env.init(&["--from", &other]).run().fault(
        4,
        "it was filled from tar:",
        "sandbox init NAME",
    ));
    drop(env.init(&["--from", "scratch"]).run().fault(4, "box default", ""));
    assert_eq!(env.state(), state);
    let error = env.init(&["--from", "scratch", "--json"]).run().code(4).stderr("").json();
    assert_eq!(error["error"]["kind"], "conflict");
    assert!(error["error"]["message"].is_string() && error["error"]["hint"].is_string());
}

/// As podman's import has it; a pipe is another source each time.
#[test]
fn a_tar_comes_by_a_pipe() {
    let env = Env::empty();
    let tar = fs::read(tiny()).unwrap();
    drop(env.init(&["--from", "tar:-"]).input(tar.clone()).run().ok().stderr(""));
    let again = env.init(&["--from", "tar:-"]).input(tar.clone()).run();
    drop(again.fault(4, "default", ""));
    let other = env.init(&["other", "--from", "tar:/dev/stdin"]).input(tar).run();
    drop(other.ok().stderr(""));
    drop(env.init(&["none", "--from", "tar:-"]).input("no archive").run().fault(
        1,
        "it ends too early",
        "",
    ));
    assert_eq!(env.entries("boxes"), ["default", "other"]);
}

#[test]
fn another_id_mode_for_the_same_box_is_a_conflict() {
    let env = Env::empty();
    drop(env.init(&["--from", "scratch"]).run().ok());
    let other = if ids() == Ids::Single { "identity" } else { "single" };
    let out = env.sandbox(&["init", "--ids", other, "--from", "scratch"]).run();
    drop(out.fault(4, &format!("its ids are mapped by {}", ids().name()), "leave out --ids"));
}

#[test]
fn one_id_is_not_taken_because_of_a_moment() {
    if ids() != Ids::Subuid {
        return;
    }
    let env = Env::empty();
    let mut untried = 0;
    for limit in 8..32 {
        let name = format!("l{limit}");
        let init = env.sandbox(&["init", &name, "--from", "scratch"]).words();
        let line = "ulimit -n $0 && exec \"$@\"";
        let out = env.program("sh").args(["-c", line, &limit.to_string()]).args(init).run();
        if out.status.success() {
            drop(out.stderr("").says("ids: subuid\n"));
            continue;
        }
        if out.errors().contains("choose the id map subuid: ") {
            untried += 1;
            drop(out.fault(1, "open files", "`init --ids single`"));
        }
        drop(env.sandbox(&["box", "show", &name]).run().fault(3, "", ""));
    }
    assert!(untried > 0, "the limit is met while the mode is tried");
}

#[test]
fn one_id_for_want_of_helpers_is_said() {
    if ids() != Ids::Subuid {
        return;
    }
    let env = Env::empty();
    let init = env.sandbox(&["init", "--from", &tiny_source()]).words();
    let out = env.program("setpriv").arg("--no-new-privs").args(init).run().ok();
    let out = out.says("ids: single\n").warns("no_new_privs is set");
    let said = out.errors();
    let note = "ids: single, though /etc/subuid gives more: use newuidmap: ";
    drop(out.check(said.starts_with(note) && said.lines().count() == 1, "one line"));
}

#[test]
fn json_of_a_new_box() {
    let env = Env::empty();
    let json = env.init(&["mine", "--json", "--from", &tiny_source()]).run().ok().stderr("").json();
    assert_eq!(json["box"], "mine");
    assert_eq!(json["created"], true);
    assert_eq!(json["id_map"]["mode"], ids().name());
    assert_eq!(json["layer"].as_str().map(str::len), Some(26));
    assert!(json["totals"]["files"].as_u64().unwrap() > OWNED.len() as u64);
    let shown = env.json(&["show", "mine/postinit"]);
    assert_eq!(shown["layer"], json["layer"]);
}

#[test]
fn compressed_archives_are_the_same_tree() {
    let env = Env::empty();
    let tar = fs::read(tiny()).unwrap();
    let listing =
        "cd / && find bin opt var usr root tmp -exec stat -c '%n %a %u %g %s %Y' {} + | sort";
    let mut trees = Vec::new();
    for (program, name) in [("cat", "plain"), ("gzip", "gz"), ("xz", "xz"), ("zstd", "zst")] {
        let data = if program == "cat" { tar.clone() } else { compressed(program, &tar) };
        // The kind is told by the content, not by the name.
        let file = env.file(&format!("{name}.image"), data);
        drop(env.init(&[name, "--from", &format!("tar:{file}")]).run().ok().stderr(""));
        let out = env.sandbox(&["run", "-b", name, "--", "sh", "-c", listing]).run().ok();
        trees.push(out.stderr("").text());
    }
    assert!(trees[0].lines().count() > OWNED.len());
    assert!(trees.iter().all(|tree| *tree == trees[0]), "{trees:#?}");
}

#[test]
fn owners_of_an_archive_are_the_owners_inside() {
    let env = Env::filled();
    let line = "stat -c '%n %a %u %g' etc/shadow usr/bin/tty-owned var/spool var/spool/job var/spool/secret";
    let out = env.line(&[], &format!("cd / && {line}")).run().ok().stderr("");
    let expected = match ids().many() {
        true => {
            "etc/shadow 640 0 5\nusr/bin/tty-owned 2755 0 5\nvar/spool 750 1 5\n\
                 var/spool/job 640 1 5\nvar/spool/secret 0 1 1\n"
        }
        false => {
            "etc/shadow 640 0 0\nusr/bin/tty-owned 2755 0 0\nvar/spool 750 0 0\n\
                  var/spool/job 640 0 0\nvar/spool/secret 0 0 0\n"
        }
    };
    drop(out.stdout(expected));
}

#[test]
fn what_the_map_cannot_hold_is_counted_and_kept() {
    let env = Env::empty();
    let mut tar = Tar::new();
    tar.dir("dev/", 0o755, 0, 0);
    tar.device("dev/null", 1, 3);
    tar.device("dev/loop-control", 10, 237);
    tar.file("far", 0o644, 2_000_000_000, 2_000_000_000, b"far\n");
    tar.file("near", 0o644, 0, 0, b"near\n");
    let file = env.file("far.tar", tar.end());
    let out = env.init(&["--from", &format!("tar:{file}")]).run().ok().stderr("");
    // Root's own ids are all there are; devices are made in no mode.
    let number = if ids() == Ids::Identity && crate::common::mode::real_root() { 2 } else { 3 };
    let said = format!(
        "{number} files have owners or devices that this map cannot hold: kept in `owners`"
    );
    let said_it = out.text().contains(&said);
    drop(out.check(said_it == (number > 0), &said));
    let layer = env.layer("postinit");
    let owners = fs::read_to_string(layer.with_file_name("owners")).unwrap_or_default();
    assert_eq!(owners.lines().count(), number, "{owners}");
}

#[test]
fn a_directory_is_copied_with_its_owners() {
    let env = Env::empty();
    let source = env.folder("root");
    env.file("root/etc/motd", "hello\n");
    std::os::unix::fs::symlink("etc/motd", env.path("root/link")).unwrap();
    fs::hard_link(env.path("root/etc/motd"), env.path("root/hard")).unwrap();
    drop(env.init(&["--from", &source]).run().ok().stderr(""));
    let layer = env.layer("postinit");
    assert_eq!(env.json(&["show"])["source"], source);
    let shown: Vec<_> = env.json(&["diff"])["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|change| {
            format!(
                "{} {} {}",
                change["kind"].as_str().unwrap(),
                change["type"].as_str().unwrap(),
                change["path"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        shown,
        ["added dir etc", "added file etc/motd", "added file hard", "added symlink link"]
    );
    // Not a link to the source: what is done there later changes no layer.
    fs::write(env.path("root/etc/motd"), "changed\n").unwrap();
    if ids() == Ids::Single {
        assert_eq!(fs::read_to_string(layer.join("etc/motd")).unwrap(), "hello\n");
    }
}

/// Of a directory, too, whose owners have no number inside: 33 is 33 there, or remembered.
#[test]
fn a_directory_of_others_keeps_their_owners() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let env = Env::empty();
    let source = if crate::common::mode::real_root() {
        let source = env.folder("root");
        for (name, uid) in [("a", 0), ("b", 33), ("c", 65534), ("d", 70000)] {
            env.file(&format!("root/{name}"), "");
            let path = env.path("root").join(name);
            chown(&path, Some(uid), Some(8)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        }
        source
    } else {
        // What a plain user finds: it belongs to root and to a group that is not his.
        fs::canonicalize("/var/mail").unwrap().to_str().unwrap().to_owned()
    };
    let gid = fs::metadata(&source).unwrap().gid();
    let out = env.init(&["--from", &source]).run().ok();
    assert!(!out.errors().contains("now of root inside") && !out.text().contains("now of root"));
    let archive = env.sandbox(&["cp", "postinit:/", "-"]).run().ok().stdout.clone();
    let file = env.file("out.tar", &archive);
    let listed = env.program("tar").args(["--numeric-owner", "-tvf", &file]).run().ok().text();
    let owners: Vec<_> = listed
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .collect();
    if crate::common::mode::real_root() {
        for who in ["0/8", "33/8", "65534/8", "70000/8"] {
            let one = format!("-rwsr-xr-x {who}");
            assert!(owners.contains(&one), "{one}: {listed}");
        }
        return;
    }
    assert_ne!(gid, 0);
    let layer = env.layer("postinit");
    match ids() {
        Ids::Single => {
            let owners = fs::read_to_string(layer.with_file_name("owners")).unwrap();
            assert!(owners.contains(&format!("\"gid\":{gid}")), "{owners}");
        }
        // In another user namespace nobody knows whose it is.
        Ids::Identity => {}
        _ => {
            let own = fs::metadata(env.dir()).unwrap().gid();
            let found = fs::metadata(layer).unwrap().gid();
            assert!(![0, own, gid].contains(&found), "{found}");
        }
    }
}

#[test]
fn scratch_is_an_empty_tree() {
    let env = Env::empty();
    drop(env.init(&["--from", "scratch"]).run().ok().says("postinit is"));
    drop(env.sandbox(&["diff"]).run().ok().stdout(""));
    let out = env.sandbox(&["run", "--", "true"]).run();
    drop(out.code(127).stdout("").warns("true: command not found"));
    assert_eq!(env.snapshots(), ["postinit"]);
}

#[test]
fn sources_that_are_none() {
    let env = Env::empty();
    let file = env.file("file", "x");
    let cases = [
        ("tar:/nonexistent/x.tar".to_owned(), 3, "no such file or directory", ""),
        ("/nonexistent/dir".to_owned(), 3, "no such file or directory", ""),
        ("oci:dir".to_owned(), 2, "oci: is not supported yet", "use a directory, tar:FILE"),
        ("docker://debian".to_owned(), 2, "docker:// is not supported yet", "tar:FILE"),
        ("s3://bucket".to_owned(), 2, "s3 is not a source", "tar:FILE"),
        ("".to_owned(), 2, "--from: it is empty", "tar:FILE"),
        ("tar:".to_owned(), 2, "a file name is missing", "tar:FILE"),
        (file.clone(), 2, "is not a directory", &format!("tar:{file}")),
        (format!("tar:{}", env.dir().display()), 2, "is a directory", ""),
        ("tar:/dev/zero".to_owned(), 2, "neither a file nor a pipe", "tar:FILE"),
        ("tar:/dev/null".to_owned(), 2, "neither a file nor a pipe", "tar:FILE"),
        ("mmdebstrap:../x".to_owned(), 2, "not the name of a suite", ""),
        ("mmdebstrap:bookworm?include=--x".to_owned(), 2, "not the name of a package", ""),
    ];
    for (source, code, what, hint) in cases {
        drop(env.init(&["--from", &source]).run().fault(code, what, hint));
        assert!(!env.base().exists(), "{source}: the store is left over");
    }
}

#[test]
fn mmdebstrap_without_sub_ids_names_the_way_out() {
    if ids() != Ids::Single || crate::common::mode::is_root() {
        // With many ids it works: integration/demo.sh does it, as it takes a network.
        return;
    }
    let env = Env::empty();
    let out = env.init(&["--from", "mmdebstrap:bookworm"]).run();
    drop(out.fault(6, "mmdebstrap", "tar:"));
    assert!(!env.base().exists());
}

#[test]
fn many_inits_at_once_make_one_box() {
    let env = Env::empty();
    let source = tiny_source();
    let children: Vec<_> =
        (0..4).map(|_| env.init(&["--wait=60", "--from", &source]).start()).collect();
    let mut made = 0;
    for child in children {
        let out = child.wait_with_output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
        assert!(out.status.success(), "{text}");
        made += usize::from(text.contains("postinit is"));
        assert!(text.contains("postinit is") || text.contains("nothing changed"), "{text}");
    }
    assert_eq!(made, 1);
    assert_eq!(env.entries("boxes"), ["default"]);
    assert_eq!(env.entries("layers").len(), 1);
    drop(env.sandbox(&["run", "--", "true"]).run().ok());
}

/// A home, for one, has the store in it: that is not copied into itself.
#[test]
fn a_source_that_holds_the_store() {
    let env = Env::empty();
    env.file("tree/etc/hosts", "127.0.0.1\n");
    // In `range` mode inside root is a stranger here.
    let tree = env.folder("tree");
    let base = format!("{tree}/store");
    let init = |source: &str| {
        let words = ["--base-dir", &base, "init", "--ids", ids().name(), "--from", source];
        env.bare().args(words).run()
    };
    drop(init(&tree).ok().says("left empty: other mounts, or this store"));
    let sandbox = |words: &[&str]| env.bare().args(["--base-dir", &base]).args(words).run().ok();
    assert!(sandbox(&["cp", "postinit:/etc/hosts", "-"]).text().contains("127.0.0.1"));
    assert!(!sandbox(&["cp", "postinit:/store", "-"]).text().contains("layers"));
    drop(sandbox(&["fsck"]));
    let out = env.bare().args(["--base-dir", &base, "init", "again", "--from", &base]).run();
    drop(out.fault(2, "it is the store", ""));
    let runs = format!("{base}/runs");
    let out = env.bare().args(["--base-dir", &base, "init", "runs", "--from", &runs]).run();
    assert!(matches!(out.status.code(), Some(0 | 1)), "{out:?}");
    tree::remove(&env.path("tree"));
}
