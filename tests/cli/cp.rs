//! Files into and out of snapshots and runs.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use crate::common::{Env, Ids, ids, left};

fn cp(env: &Env, words: &[&str]) -> crate::common::Out {
    env.sandbox(&["cp"]).args(words).run()
}

/// Starts `sleep` as the run `web`.
fn started(env: &Env) {
    drop(env.sandbox(&["start", "--name", "web", "--", "sleep", "1000"]).run().ok());
}

fn ended(env: &Env) {
    drop(env.sandbox(&["exec", "web", "kill -9 2"]).run());
    left::eventually("the run", || env.entries("runs"));
}

/// A directory of the host with one of everything.
fn tree(env: &Env) -> String {
    let dir = env.folder("tree");
    let at = |name: &str| Path::new(&dir).join(name);
    fs::create_dir_all(at("sub/empty")).unwrap();
    fs::write(at("sub/file"), "content\n").unwrap();
    fs::hard_link(at("sub/file"), at("second")).unwrap();
    symlink("sub/file", at("link")).unwrap();
    fs::set_permissions(at("sub/file"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::set_permissions(at("sub/empty"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::File::open(at("sub/file"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_600_000_000, 123_456_789))
        .unwrap();
    dir
}

#[test]
fn out_of_a_snapshot_by_dockers_rules() {
    let env = Env::filled();
    let tree = "mkdir -p /srv/d/e && echo one >/srv/d/one && echo two >/srv/d/e/two && ln -s one /srv/d/l && chmod 4711 /srv/d/one";
    drop(env.line(&["--commit", "s"], tree).run().ok());
    let to = env.folder("to");
    let there =
        |name: &str| fs::read_to_string(env.path(&format!("to/{name}"))).unwrap_or_default();
    // A file: into what is a directory, or under a new name, or over a file.
    drop(cp(&env, &["s:/srv/d/one", &to]).ok());
    drop(cp(&env, &["s:srv/d/one", &format!("{to}/renamed")]).ok());
    drop(cp(&env, &["s:/srv/d/e/two", &format!("{to}/renamed")]).ok());
    assert_eq!((there("one"), there("renamed")), ("one\n".into(), "two\n".into()));
    let stat = fs::metadata(env.path("to/one")).unwrap();
    assert_eq!(stat.mode() & 0o7777, 0o711, "set-id bits stay inside");
    assert_eq!(stat.uid(), rustix::process::geteuid().as_raw());
    // A directory: into a directory, as a new one, or what is in it.
    drop(cp(&env, &["s:/srv/d", &to]).ok());
    drop(cp(&env, &["s:/srv/d", &format!("{to}/new")]).ok());
    drop(cp(&env, &["s:/srv/d/.", &to]).ok());
    for name in ["d/e/two", "new/e/two", "e/two"] {
        assert_eq!(there(name), "two\n", "{name}");
    }
    assert_eq!(fs::read_link(env.path("to/d/l")).unwrap(), Path::new("one"));
    drop(cp(&env, &["-L", "s:/srv/d/l", &format!("{to}/followed")]).ok());
    assert_eq!(there("followed"), "one\n");
    // What cannot be.
    let refused = |words: &[&str], code: i32, why: &str| drop(cp(&env, words).fault(code, why, ""));
    refused(&["s:/nope", &to], 3, "copy: /nope: no such file");
    refused(&["s:/srv/d/one/", &to], 1, "copy: /srv/d/one/: not a directory");
    refused(&["s:/srv/d/one", &format!("{to}/none/")], 3, "no such directory");
    refused(&["s:/srv/d/one", &format!("{to}/none/x")], 3, "no such directory");
    refused(&["s:/srv/d", &format!("{to}/renamed")], 4, "it is no directory");
    refused(&["nosuch:/x", &to], 3, "nosuch");
    refused(&[&to, &to], 2, "neither end is a snapshot or a run");
    refused(&["s:/a", "s:/b"], 2, "both ends are inside");
    refused(&[&to, "s:/srv"], 2, "it does not change any more");
    refused(&["--as", "x", "s:/srv", &to], 2, "nothing is copied into a snapshot");
    assert_eq!(env.snapshots(), ["postinit", "s"]);
}

#[test]
fn into_a_snapshot_makes_another_one() {
    let env = Env::filled();
    let tree = tree(&env);
    let made = cp(&env, &["--json", "--as", "with", &tree, "head:/root"]).ok().json();
    assert_eq!((&made["name"], &made["entries"]), (&"with".into(), &6.into()), "{made}");
    let list = "cd /root/tree && stat -c '%n %a %u:%g %F %h %y' . link second sub sub/empty sub/file && cat link";
    let out = env.line(&["--from", "with"], list).run().ok();
    let text = out.text();
    assert!(
        text.contains("second 4750 0:0 regular file 2 2020-09-13 12:26:40.123456789"),
        "{text}"
    );
    assert!(text.contains("sub/empty 700 0:0 directory"), "{text}");
    assert!(text.contains("link 777 0:0 symbolic link") && text.ends_with("content\n"), "{text}");
    // On top of what is there, and nothing else changes.
    drop(cp(&env, &["--as", "more", &format!("{tree}/sub/."), "with:/root/tree"]).ok());
    let changes = env.sandbox(&["diff", "more"]).run().ok();
    drop(changes.stdout("A /root/tree/empty\nA /root/tree/file\n"));
    drop(cp(&env, &["--as", "more", &tree, "with:/"]).fault(4, "more: exists already", ""));
    drop(cp(&env, &["--as", "other", &tree, "with:/nope/deep"]).fault(
        3,
        "/nope: no such directory",
        "",
    ));
    drop(cp(&env, &["--as", "other", "/nonexistent", "with:/"]).fault(3, "/nonexistent", ""));
    assert_eq!(env.snapshots(), ["postinit", "with", "more"]);
    assert_eq!(env.entries("runs"), [""; 0]);
}

#[test]
fn into_and_out_of_a_run_while_it_runs() {
    let env = Env::filled();
    let tree = tree(&env);
    started(&env);
    drop(cp(&env, &[&tree, "web:/root/"]).ok());
    let list = "cd /root/tree && stat -c '%n %a %u:%g %F %h %y' second sub/empty link && cat /root/tree/link";
    let text = env.sandbox(&["exec", "web", list]).run().ok().text();
    assert!(
        text.contains("second 4750 0:0 regular file 2 2020-09-13 12:26:40.123456789"),
        "{text}"
    );
    assert!(text.contains("sub/empty 700 0:0 directory") && text.ends_with("content\n"), "{text}");
    drop(env.sandbox(&["exec", "web", "echo changed >/root/tree/sub/file"]).run().ok());
    let to = env.folder("to");
    drop(cp(&env, &["web:/root/tree", &to]).ok());
    assert_eq!(fs::read_to_string(env.path("to/tree/second")).unwrap(), "changed\n");
    let inode = |name: &str| fs::metadata(env.path(&format!("to/tree/{name}"))).unwrap().ino();
    assert_eq!(inode("second"), inode("sub/file"));
    // Onto what lives: replaced, not written into.
    drop(env.sandbox(&["exec", "web", "ln -s /etc/passwd /root/trap"]).run().ok());
    drop(cp(&env, &[&format!("{tree}/second"), "web:/root/trap"]).ok());
    drop(
        env.sandbox(&["exec", "web", "test -L /root/trap || cat /root/trap"])
            .run()
            .ok()
            .stdout("content\n"),
    );
    drop(env.sandbox(&["exec", "web", "grep -c root /etc/passwd"]).run().ok().stdout("1\n"));
    drop(cp(&env, &["--as", "x", &tree, "web:/root"]).fault(3, "web", "without it"));
    ended(&env);
    drop(cp(&env, &["web:/root", &to]).fault(3, "it has ended with exit code", "sandbox logs web"));
}

#[test]
fn archives_go_both_ways() {
    let env = Env::filled();
    started(&env);
    drop(
        env.sandbox(&[
            "exec",
            "web",
            "mkdir -p /root/a/b && echo x >/root/a/b/c && chmod 600 /root/a/b/c",
        ])
        .run()
        .ok(),
    );
    let out = cp(&env, &["web:/root/a", "-"]).ok();
    let archive = out.stdout.clone();
    let file = env.file("a.tar", &archive);
    let listed = env.program("tar").args(["-tvf", &file]).run().ok().text();
    assert!(listed.contains("a/b/c") && listed.contains("-rw-------"), "{listed}");
    let back = |words: &[&str]| env.sandbox(&["cp"]).args(words).input(archive.clone()).run();
    drop(back(&["-", "web:/tmp"]).ok());
    drop(env.sandbox(&["exec", "web", "cat /tmp/a/b/c"]).run().ok().stdout("x\n"));
    drop(back(&["--as", "s", "-", "head:/root"]).ok());
    drop(env.line(&["--from", "s"], "cat /root/a/b/c").run().ok().stdout("x\n"));
    drop(back(&["-", "web:/nope"]).fault(3, "/nope: no such directory", ""));
    let broken = env.sandbox(&["cp", "-", "web:/tmp"]).input("no archive").run();
    drop(broken.code(1));
    let both = cp(&env, &["--json", "web:/root/a", "-"]).code(2);
    assert!(both.text().contains("do not go to one place"), "{both:?}");
    // The owners of the inside.
    if ids() != Ids::Single {
        drop(env.sandbox(&["exec", "web", "chown 7:8 /root/a/b/c"]).run().ok());
        let out = cp(&env, &["web:/root/a", "-"]).ok();
        let file = env.file("b.tar", &out.stdout);
        let listed = env.program("tar").args(["--numeric-owner", "-tvf", &file]).run().ok().text();
        assert!(listed.contains(" 7/8 "), "{listed}");
    }
    ended(&env);
}

/// A hostile run exchanges a directory for a link to the host's paths while it is copied, in both directions.
#[test]
fn a_symlink_that_is_swapped_leads_nowhere() {
    let env = Env::filled();
    let canary = env.file("canary/secret", "canary\n");
    let outside = Path::new(&canary).parent().unwrap().to_str().unwrap().to_owned();
    fs::set_permissions(&outside, fs::Permissions::from_mode(0o777)).unwrap();
    let swap = format!(
        "mkdir -p /srv/d /srv/real; echo inside >/srv/real/secret; ln -s {outside} /srv/out; \
         ln -s /proc/1/root{outside} /srv/magic; echo up >/srv/up; \
         while :; do mv -T /srv/d /srv/x; mv -T /srv/out /srv/d; mv -T /srv/d /srv/out; \
         mv -T /srv/magic /srv/d; mv -T /srv/d /srv/magic; mv -T /srv/x /srv/d; done 2>/dev/null"
    );
    drop(env.sandbox(&["start", "--name", "web", "--", "sh", "-c", &swap]).run().ok());
    let up = || match env.sandbox(&["exec", "web", "cat /srv/up 2>/dev/null"]).run().text().as_str()
    {
        "up\n" => Vec::new(),
        _ => vec!["not up".to_owned()],
    };
    left::eventually("the run", up);
    let plant = env.file("plant", "planted\n");
    for turn in 0..40 {
        let to = env.folder(&format!("to{turn}"));
        // Whatever comes of it: what is outside is neither read nor written.
        drop(cp(&env, &["web:/srv", &to]));
        drop(cp(&env, &["web:/srv/d/secret", &format!("{to}/one")]));
        drop(cp(&env, &["-L", "web:/srv/d/secret", &format!("{to}/two")]));
        drop(cp(&env, &[&plant, "web:/srv/d/planted"]));
        drop(cp(&env, &[&plant, "web:/srv/d"]));
        let read = env.program("grep").args(["-rs", "canary", &to]).run();
        assert!(!read.text().contains("canary\n"), "turn {turn}: {read:?}");
    }
    let there: Vec<_> = left::names(outside.as_ref());
    assert_eq!(there, ["secret"], "something was planted");
    assert_eq!(fs::read_to_string(&canary).unwrap(), "canary\n");
    drop(env.sandbox(&["exec", "web", "kill -9 2"]).run());
    left::eventually("the run", || env.entries("runs"));
}

#[test]
fn a_copy_ends_with_its_run() {
    let env = Env::filled();
    started(&env);
    drop(
        env.sandbox(&[
            "exec",
            "web",
            "for n in 1 2 3 4; do dd if=/dev/zero of=/big$n bs=1M count=8 2>/dev/null; done",
        ])
        .run()
        .ok(),
    );
    // Nobody reads: it is in the middle when the run ends.
    let mut child = env.sandbox(&["cp", "web:/", "-"]).start();
    let busy = || {
        let path = format!("/proc/{}/task/{0}/children", child.id());
        let helper = fs::read_to_string(path).unwrap_or_default();
        if helper.trim().is_empty() { vec!["not there".to_owned()] } else { vec![] }
    };
    left::eventually("no copy", busy);
    drop(env.sandbox(&["exec", "web", "kill -9 2"]).run());
    // Still nobody reads.
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let out = child.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&out.stderr);
    assert!(told.contains("the run has ended, and the copy with it"), "{told}");
    left::eventually("the run", || env.entries("runs"));
}

#[test]
fn odd_files_are_left_out_and_counted() {
    let env = Env::filled();
    started(&env);
    let dir = env.folder("odd");
    let _socket = std::os::unix::net::UnixListener::bind(Path::new(&dir).join("s")).unwrap();
    fs::write(Path::new(&dir).join("f"), "x").unwrap();
    let out = cp(&env, &[&dir, "web:/root"]).ok();
    assert!(out.errors().contains("sockets left out: 1"), "{out:?}");
    drop(env.sandbox(&["exec", "web", "ls /root/odd"]).run().ok().stdout("f\n"));
    // One by itself is refused: nothing would come of it.
    let refused = |words: &[&str], why: &str| cp(&env, words).fault(1, why, "");
    let to_zero = env.path("zero").to_str().unwrap().to_owned();
    drop(refused(&["web:/dev/zero", &to_zero], "copy: /dev/zero: it is a device, which is not"));
    drop(refused(&["/dev/null", "web:/root/n"], "copy: /dev/null: it is a device, which is not"));
    let socket = format!("{dir}/s");
    drop(refused(&[&socket, "web:/root/s"], "it is a socket, which is not copied"));
    drop(refused(&["-L", "web:/dev/zero", &to_zero], "neither a file nor a directory"));
    assert!(!env.path("zero").exists());
    // The path of an error is the one that was asked for, not the name that it would have got.
    drop(refused(&["web:/proc/1/environ", &format!("{dir}/e")], ": /proc/1/environ: "));
    let sysctl = "web:/proc/sys/kernel/hostname";
    let out = refused(&["/etc/hostname", sysctl], "copy to: /proc/sys/kernel/hostname: ");
    assert!(!out.errors().contains("--base-dir"), "{out:?}");
    // /dev and /proc are no files of the run: what is mounted beneath is left out.
    let to = env.folder("to");
    let out = cp(&env, &["web:/", &format!("{to}/root")]).ok();
    assert!(out.errors().contains("mount points copied empty: "), "{out:?}");
    assert!(left::names(&env.path("to/root/proc")).is_empty());
    assert!(env.path("to/root/etc/passwd").exists());
    ended(&env);
}
