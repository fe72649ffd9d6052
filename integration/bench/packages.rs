//! What it costs to install packages inside: `dpkg -i` against the same natively under eatmydata, and `apt-get install` with one id
//! against many. Prints Markdown.
//!
//! The packages are made from the tree itself: real files in their real number and size, in two places, with owners of their own
//! and a script each. The native peer is `eatmydata dpkg -i` on a plain directory with the same tree, by `unshare --map-root-user
//! --map-auto --mount` and chroot. apt takes them from a repository in a directory, so that no network is measured.
//!
//! `SANDBOX_BENCH_INSTALLS` (9 rounds).
#![expect(clippy::print_stdout, reason = "the tables are its output")]

#[expect(dead_code, reason = "the other benchmarks need the rest")]
mod common;
#[expect(dead_code, reason = "the other benchmarks need the rest")]
mod native;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Result, Sandbox, Scratch, Times, number, output, time};
use native::{Native, inside, prepare};

/// Of the native time, and of the time with many ids.
const DPKG_BAR: f64 = 1.05;
const APT_BAR: f64 = 1.1;

fn main() -> Result<()> {
    let scratch = Scratch::new("packages")?;
    let rounds = number("SANDBOX_BENCH_INSTALLS", 9)?;
    let native = Native::new(scratch.path())?;
    let packages = packages(scratch.path(), &native)?;
    let files = fs::read_to_string(native.tree.join("srv/files"))?;
    println!("## Installing {} packages of {} files, {rounds} rounds\n", SETS.len(), files.trim());
    println!("| what | lower quartile, ms | median, ms | ratios |\n| --- | --- | --- | --- |");
    let sandbox = Sandbox::new(scratch.path());
    let mut rivals = vec![Rival::native(&native)];
    if let Some(sandbox) = &sandbox {
        for ids in ["subuid", "single"] {
            prepare(sandbox, ids, &packages, PREPARE)?;
            rivals.push(Rival::dpkg(sandbox, ids));
        }
        for ids in ["subuid", "single"] {
            rivals.push(Rival::apt(sandbox, ids));
        }
    }
    let mut times = vec![Times::default(); rivals.len()];
    for round in 0..=rounds {
        for turn in 0..rivals.len() {
            let at = (turn + round) % rivals.len();
            let took = time(&mut rivals[at].work)?;
            output(&mut rivals[at].undo)?;
            // The first time, unmeasured, brings everything into memory.
            if round > 0 {
                times[at].add(took);
            }
        }
    }
    for (rival, own) in rivals.iter().zip(&times) {
        println!("{}", own.row(&rival.name, rival.peer.map(|peer| &times[peer])));
    }
    if sandbox.is_some() {
        let ratio = |own: usize, peer: usize| {
            times[own].quartile().as_secs_f64() / times[peer].quartile().as_secs_f64()
        };
        verdict("dpkg", DPKG_BAR, ratio(1, 0).max(ratio(2, 0)));
        verdict("apt", APT_BAR, ratio(4, 3));
    }
    Ok(())
}

fn verdict(what: &str, bar: f64, got: f64) {
    let word = if got <= bar { "reached" } else { "not reached" };
    println!("| bar of {what}: {bar} | | | {word}, {got:.2} |");
}

/// What is packaged: a directory of the tree, and the owner that its copy gets.
const SETS: [(&str, &str); 5] = [
    ("include", "root:root"),
    ("bin", "root:root"),
    ("sbin", "games:games"),
    ("share/doc", "root:root"),
    ("lib/x86_64-linux-gnu/gconv", "man:root"),
];

/// Makes the packages in the plain tree; the repository, as the host sees it.
fn packages(folder: &Path, native: &Native) -> Result<std::path::PathBuf> {
    let script = folder.join("make");
    fs::write(&script, MAKE)?;
    fs::copy(&script, native.tree.join("srv/make"))?;
    for (number, (directory, owner)) in SETS.iter().enumerate() {
        let name = format!("probe{number}");
        output(&mut native.command(&["sh", "-eu", "/srv/make", &name, directory, owner]))?;
    }
    Ok(native.tree.join("srv/repo"))
}

/// One package: NAME DIRECTORY OWNER. Low compression, because that changes only how long the making takes.
const MAKE: &str = r#"package=/srv/$1 repo=/srv/repo
mkdir -p $package/DEBIAN $package/opt/$1 $repo
cp -a /usr/$2/. $package/opt/$1/
chown -R "$3" $package/opt/$1
printf 'Package: %s\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: probe\n' \
    $1 >$package/DEBIAN/control
printf '#!/bin/sh\nset -e\nuseradd --system --no-create-home %s\nmkdir -p /var/lib/%s\nchown %s:games /var/lib/%s\n' \
    $1 $1 $1 $1 >$package/DEBIAN/postinst
printf '#!/bin/sh\nset -e\n[ "$1" != purge ] || { userdel %s; rm -rf /var/lib/%s; }\n' $1 $1 >$package/DEBIAN/postrm
chmod 0755 $package/DEBIAN/post*
find $package/opt -type f | wc -l >>/srv/counts
awk '{ sum += $1 } END { print sum }' /srv/counts >/srv/files
deb=$repo/$1.deb
dpkg-deb -Zxz -z1 -b $package $deb >/dev/null
rm -rf $package
{
    dpkg-deb -f $deb
    echo "Filename: ./$1.deb"
    echo "Size: $(stat -c %s $deb)"
    echo "SHA256: $(sha256sum $deb | cut -d' ' -f1)"
    echo
} >>$repo/Packages
"#;

/// What makes the snapshot that the packages are installed on: apt knows them and nothing else.
const PREPARE: &str = "cp -r /in /srv/repo
    rm -rf /etc/apt/sources.list.d/*
    echo 'deb [trusted=yes] file:/srv/repo ./' >/etc/apt/sources.list
    apt-get -q update";

/// One way to install them all.
#[derive(Debug)]
struct Rival {
    name: String,
    work: Command,
    /// Makes it possible once more.
    undo: Command,
    peer: Option<usize>,
}

impl Rival {
    fn native(native: &Native) -> Self {
        let work = native.command(&["sh", "-c", "exec eatmydata dpkg -i /srv/repo/*.deb"]);
        let undo = native.command(&[
            "sh",
            "-c",
            "exec eatmydata dpkg --purge $(cd /srv/repo && ls *.deb | sed s/.deb//)",
        ]);
        Self { name: "dpkg -i: natively, under eatmydata".to_owned(), work, undo, peer: None }
    }

    fn dpkg(sandbox: &Sandbox, ids: &str) -> Self {
        let name = format!("dpkg -i: sandbox run, {ids}");
        let work = inside(sandbox, ids, &["sh", "-c", "exec dpkg -i /srv/repo/*.deb"]);
        // What was thrown away is emptied now, and not beneath the next one.
        Self { name, work, undo: sandbox.command(["gc"]), peer: Some(0) }
    }

    fn apt(sandbox: &Sandbox, ids: &str) -> Self {
        let (name, peer) = match ids {
            "single" => ("apt-get install: sandbox run, single (to subuid)", Some(3)),
            _ => ("apt-get install: sandbox run, subuid", None),
        };
        let names = (0..SETS.len()).map(|number| format!("probe{number}"));
        let words: Vec<_> = ["apt-get", "-y", "-q", "install"]
            .map(str::to_owned)
            .into_iter()
            .chain(names)
            .collect();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let work = inside(sandbox, ids, &words);
        Self { name: name.to_owned(), work, undo: sandbox.command(["gc"]), peer }
    }
}
