//! What a durable commit of 10,000 new files costs, against `buildah commit` of the same change and against
//! what the disk itself takes: one syncfs and five fsyncs after writing the same files. Prints Markdown.
//!
//! `SANDBOX_BENCH_FILES` (10000), `SANDBOX_BENCH_COMMITS` (5).
#![expect(clippy::print_stdout, reason = "the tables are its output")]

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Result, Sandbox, Scratch, Times, has, number, output, time, variable};

fn main() -> Result<()> {
    let scratch = Scratch::new("commit")?;
    let files = number("SANDBOX_BENCH_FILES", 10_000)?;
    let rounds = number("SANDBOX_BENCH_COMMITS", 5)?;
    let sandbox = Sandbox::new(scratch.path());
    if let Some(sandbox) = &sandbox {
        sandbox.init("default", "auto")?;
    }
    let buildah = Buildah::new(scratch.path());
    if let Err(reason) = &buildah {
        println!("buildah is left out: {reason}\n");
    }
    let (mut disk, mut ours, mut whole) = (Times::default(), Times::default(), Times::default());
    let mut theirs = Times::default();
    for round in 0..rounds {
        disk.add(bare(scratch.path(), files)?);
        if let Some(sandbox) = &sandbox {
            let (commit, total) = commit(sandbox, scratch.path(), round, files)?;
            ours.add(commit);
            whole.add(total);
        }
        if let Ok(buildah) = &buildah {
            theirs.add(buildah.commit(round, files)?);
        }
    }
    println!("## Commit of {files} new files, {rounds} rounds\n");
    println!("| what | lower quartile, ms | median, ms | ratios |\n| --- | --- | --- | --- |");
    println!("{}", disk.row("syncfs and 5 fsync, same files, same disk", None));
    let peer = buildah.is_ok().then_some(&theirs);
    if let Some(theirs) = peer {
        println!("{}", theirs.row("buildah commit (not durable)", None));
    }
    if sandbox.is_some() {
        println!("{}", ours.row("sandbox: the commit (to buildah)", peer));
        println!("{}", whole.row("sandbox: run and commit", None));
        let bar = disk.quartile() + Duration::from_micros(3) * u32::try_from(files)?;
        println!(
            "| bar: syncfs, fsyncs and 3 us a file | {:.2} | | {:.2} |",
            bar.as_secs_f64() * 1e3,
            ours.quartile().as_secs_f64() / bar.as_secs_f64()
        );
    }
    Ok(())
}

/// The shell line that makes the files: directories of a hundred, with builtins only.
fn script(files: usize) -> String {
    format!(
        "d=0; while [ $d -lt {} ]; do mkdir -p /srv/new/$d; f=0; \
         while [ $f -lt 100 ]; do echo $d $f >/srv/new/$d/$f; f=$((f + 1)); done; d=$((d + 1)); done",
        files / 100
    )
}

/// What the disk takes: the same files, then one syncfs and five small files with an fsync each.
fn bare(folder: &Path, files: usize) -> Result<Duration> {
    let folder = folder.join("bare");
    for directory in 0..files / 100 {
        let path = folder.join(directory.to_string());
        fs::create_dir_all(&path)?;
        for file in 0..100 {
            fs::write(path.join(file.to_string()), format!("{directory} {file}\n"))?;
        }
    }
    let start = Instant::now();
    rustix::fs::syncfs(File::open(&folder)?)?;
    for file in 0..5 {
        let mut file = File::create(folder.join(format!("record{file}")))?;
        file.write_all(b"{}\n")?;
        file.sync_all()?;
    }
    let took = start.elapsed();
    fs::remove_dir_all(&folder)?;
    Ok(took)
}

/// One run that makes the files and commits them; the time of the commit by its report, and of the whole.
fn commit(
    sandbox: &Sandbox,
    folder: &Path,
    round: usize,
    files: usize,
) -> Result<(Duration, Duration)> {
    let report = folder.join("report.json");
    let mut command = sandbox.command(["run", "--from", "postinit", "--commit"]);
    command.arg(format!("c{round}")).arg("--report").arg(&report);
    let total = time(command.args(["--", "sh", "-c", &script(files)]))?;
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report)?)?;
    let commit = report["commit_us"].as_u64().ok_or("the report has no commit_us")?;
    Ok((Duration::from_micros(commit), total))
}

/// A buildah with storage of its own and an image made from the test tree.
struct Buildah {
    root: PathBuf,
    image: String,
}

impl Buildah {
    fn new(folder: &Path) -> Result<Self> {
        if !has("buildah") {
            return Err("it is not installed".into());
        }
        let buildah = Self { root: folder.join("buildah"), image: "base".to_owned() };
        fs::create_dir(&buildah.root)?;
        // An installation without recommended packages has no policy; ours takes what we make ourselves.
        fs::write(buildah.policy(), r#"{"default": [{"type": "insecureAcceptAnything"}]}"#)?;
        let container = buildah.call(&["from", "scratch"])?;
        buildah.call(&["add", "--quiet", &container, &variable("SANDBOX_TEST_TREE")?, "/"])?;
        buildah.save(&container, &buildah.image)?;
        buildah.call(&["rm", &container])?;
        Ok(buildah)
    }

    fn policy(&self) -> PathBuf {
        self.root.join("policy.json")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.root.join("root"));
        command.arg("--runroot").arg(self.root.join("run"));
        command.args(words).env("XDG_RUNTIME_DIR", &self.root);
        command
    }

    fn call(&self, words: &[&str]) -> Result<String> {
        Ok(output(&mut self.command(words))?.trim().to_owned())
    }

    fn save(&self, container: &str, image: &str) -> Result<Duration> {
        let policy = self.policy();
        let words = [
            "commit",
            "--quiet",
            "--signature-policy",
            &policy.to_string_lossy(),
            container,
            image,
        ];
        time(common::quiet(&mut self.command(&words)))
    }

    /// The time of `buildah commit` after the same files were made in a container of the image.
    fn commit(&self, round: usize, files: usize) -> Result<Duration> {
        let policy = self.policy();
        let policy = policy.to_string_lossy();
        let from = ["from", "--pull-never", "--signature-policy", &policy, &self.image];
        let container = self.call(&from)?;
        let script = script(files);
        self.call(&["run", "--isolation", "chroot", &container, "--", "sh", "-c", &script])?;
        let took = self.save(&container, &format!("c{round}"))?;
        self.call(&["rm", &container])?;
        Ok(took)
    }
}
