//! `shell`: the project directory, what is said at the end, and a terminal.

use std::fs;

use crate::common::Env;

#[test]
fn the_project_is_there_and_the_rest_is_dropped() {
    let env = Env::filled();
    let state = env.state();
    let project = env.folder("project");
    for folder in ["project/.git", "project/.git/hooks"] {
        env.folder(folder);
    }
    env.file("project/.git/config", "[core]\n");
    let typed = "pwd; echo made >made; touch /new; rm /opt/plain\n\
                 echo x >.git/hooks/evil; echo x >.git/config; echo ../evil >.git/commondir\n\
                 mv .git gone; rm -rf .git; mkdir -p .git/hooks && echo x >.git/hooks/evil; exit 3\n";
    let out = env.sandbox(&["shell"]).dir(&project).input(typed).run().code(3);
    drop(out.stdout(&format!("{project}\n")).warns("changed:\nA /new\nD /opt/plain\n"));
    assert_eq!(fs::read_to_string(env.path("project/made")).unwrap(), "made\n");
    // What git would run later is not for the shell to write.
    for made in [".git/hooks/evil", ".git/commondir", "gone"] {
        assert!(!env.path("project").join(made).exists(), "{made}");
    }
    assert_eq!(fs::read_to_string(env.path("project/.git/config")).unwrap(), "[core]\n");
    assert_eq!(env.state(), state);

    // Who wants to commit inside says so.
    let git = format!("{project}/.git:{project}/.git:rw");
    let typed = "echo x >.git/index\n";
    drop(env.sandbox(&["shell", "--bind", &git]).dir(&project).input(typed).run());
    assert!(env.path("project/.git/index").exists());
    // The file of a worktree; and a link, which nothing can be bound over.
    let tree = env.folder("tree");
    let pointer = env.file("tree/.git", "gitdir: elsewhere\n");
    let typed = "echo gitdir: here >.git; rm -f .git\n";
    drop(env.sandbox(&["shell"]).dir(&tree).input(typed).run());
    assert_eq!(fs::read_to_string(&pointer).unwrap(), "gitdir: elsewhere\n");
    fs::remove_file(&pointer).unwrap();
    std::os::unix::fs::symlink("/nowhere", &pointer).unwrap();
    let out = env.sandbox(&["shell"]).dir(&tree).input("pwd\n").run().ok();
    drop(out.stdout("/\n").warns("its .git is a symbolic link"));
}

/// A repository's own directory is all hooks and settings.
#[test]
fn a_git_directory_is_not_brought_along() {
    let env = Env::filled();
    for git in ["project/.git", "bare"] {
        env.file(&format!("{git}/HEAD"), "ref: refs/heads/main\n");
        for name in ["objects", "refs", "hooks"] {
            env.folder(&format!("{git}/{name}"));
        }
        for dir in [git.to_owned(), format!("{git}/hooks")] {
            let typed = "pwd; echo x >hooks/evil; echo x >evil\n";
            let out = env.sandbox(&["shell"]).dir(env.path(&dir)).input(typed).run();
            drop(out.stdout("/\n").warns("it lies in a git directory"));
        }
        assert_eq!(fs::read_dir(env.path(git).join("hooks")).unwrap().count(), 0);
    }
}

#[test]
fn a_home_is_not_brought_along() {
    let env = Env::filled();
    env.file("home/secret", "secret\n");
    let home = env.path("home");
    let typed = format!("pwd; cat {}/secret\n", home.display());
    let out = env.sandbox(&["shell"]).input(typed).run();
    drop(out.stdout("/\n").warns("the working directory is not bound"));
    // Nor is what holds the store.
    let out = env.sandbox(&["shell"]).dir(env.dir()).input("pwd\n").run().ok();
    drop(out.stdout("/\n").warns("is not bound"));
    drop(env.sandbox(&["shell"]).dir("/").input("exit 0\n").run().ok().warns("is not bound"));
}

#[test]
fn the_network_is_the_hosts_unless_asked_otherwise() {
    let env = Env::filled();
    let host = fs::read_link("/proc/self/ns/net").unwrap();
    let typed = "readlink /proc/self/ns/net\n";
    let host = format!("{}\n", host.display());
    drop(env.sandbox(&["shell"]).input(typed).run().ok().stdout(&host));
    let out = env.sandbox(&["shell", "--net", "none"]).input(typed).run().ok();
    let other = out.text() != host;
    drop(out.check(other, "the host's network"));
}

/// With script(1) as the terminal.
#[test]
fn a_terminal_of_its_own() {
    let env = Env::filled();
    let words = env
        .sandbox(&[
            "run",
            "--",
            "sh",
            "-c",
            "readlink /proc/self/fd/0; test -t 1 && echo tty; exit 6",
        ])
        .words();
    let line = words
        .iter()
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect::<Vec<_>>()
        .join(" ");
    let out = env.program("script").args(["-qefc", &line, "/dev/null"]).run().code(6);
    drop(out.says("/dev/pts/0\r\n").says("tty\r\n"));
    // The caller's own is not in reach.
    let words = env.sandbox(&["run", "--", "ls", "/dev/pts"]).words();
    let line = words
        .iter()
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect::<Vec<_>>()
        .join(" ");
    let out = env.program("script").args(["-qefc", &line, "/dev/null"]).run().ok();
    drop(out.says("0  ptmx\r\n"));
}
