//! mmdebstrap(1) as a source: it writes the tar of a Debian tree to a pipe that [`super::tar::extract`]
//! reads.
//!
//! It always runs in its mode `unshare`. Run by a plain user that mode makes a user namespace from
//! /etc/subuid. Run by uid 0 it makes mount, pid, ipc and uts namespaces, but no user namespace, and would
//! install packages as that very root. So where this process is uid 0, mmdebstrap is started by a child that
//! is already uid 0 of the box's user namespace, with all capabilities there and a range of ids: the inside
//! root can do no more than the payload of a run. Devices cannot be made there; mmdebstrap notices, binds
//! the outer ones while it works and writes the true nodes into the tar. Packages can only be installed with
//! a range of ids (their files have several owners): a map of one id is not enough in either place.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::fault::{Context, Fault, Result, printable};

/// How much of what mmdebstrap said is told when it fails, in lines and in bytes.
const TAIL_LINES: usize = 6;
const TAIL_BYTES: u64 = 4096;

/// Where mmdebstrap looks for its helpers, and what it may use of the caller's environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const KEPT: [&str; 7] = [
    "TMPDIR",
    "SOURCE_DATE_EPOCH",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
];

/// The command that writes the tree of `suite` with the packages `include` to its standard output.
///
/// `home` is the caller's home directory, for the apt configuration of a user. `temporary` is the directory
/// for temporary files, which must belong to whom the command runs as (in a user namespace: to the inside
/// root) and be searchable for others, because apt downloads as a user of its own; `None`: that of the
/// caller's environment, else /tmp. The trees built there are of the size of the result.
pub fn command(suite: &str, include: &[String], home: &Path, temporary: Option<&Path>) -> Command {
    let mut command = Command::new("mmdebstrap");
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8").env("HOME", home);
    for name in KEPT {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    if let Some(temporary) = temporary {
        command.env("TMPDIR", temporary);
    }
    command.arg("--mode=unshare");
    command.args(["--variant=minbase", "--format=tar"]);
    if !include.is_empty() {
        command.arg(format!("--include={}", include.join(",")));
    }
    command.arg(OsStr::new(suite)).arg("-").current_dir("/");
    command
}

/// A program that writes an archive to a pipe. Dropped before its end it is killed.
#[derive(Debug)]
pub struct Writer {
    child: Child,
    name: &'static str,
    /// What it says goes to a file: no thread is needed to keep a pipe from filling up.
    said: File,
}

impl Writer {
    /// Starts [`command`]'s result; nothing reads its standard input.
    ///
    /// # Errors
    /// `Host`, with the package to install, if the program is missing; what the system says.
    pub fn start(command: &mut Command) -> Result<Self> {
        let said =
            tempfile::tempfile().context("create temporary file", "mmdebstrap's messages")?;
        let stderr = said.try_clone().context("create temporary file", "mmdebstrap's messages")?;
        // The scripts of packages are not to find what our caller had open.
        crate::sys::exec::mark_from(3).context("close descriptors", "of mmdebstrap")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(stderr));
        let child = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                Fault::host("run mmdebstrap: mmdebstrap: the program is not installed")
                    .hint("apt install mmdebstrap")
            }
            _ => Fault::host(format!("run mmdebstrap: mmdebstrap: {error}")),
        })?;
        Ok(Self { child, name: "mmdebstrap", said })
    }

    /// The end of the pipe to read the archive from; `None` the second time.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits for its end. To be called also when reading its output failed: its own failure is the cause
    /// then.
    ///
    /// # Errors
    /// `Failed` with the last lines it said, if it did not end well.
    pub fn finish(mut self) -> Result<()> {
        // Closed first, so that it cannot wait for a reader.
        drop(self.child.stdout.take());
        let status = self.child.wait().context("wait for", self.name)?;
        if status.success() {
            return Ok(());
        }
        let name = self.name;
        let tail = self.tail().context("read the messages of", name)?;
        Err(Fault::failed(format!("run {name}: {status}: {tail}"))
            .hint("check the name of the suite, the packages and the network"))
    }

    /// The last lines that the program said.
    fn tail(&mut self) -> io::Result<String> {
        let end = self.said.seek(SeekFrom::End(0))?;
        self.said.seek(SeekFrom::Start(end.saturating_sub(TAIL_BYTES)))?;
        let mut said = Vec::new();
        self.said.by_ref().take(TAIL_BYTES).read_to_end(&mut said)?;
        let said = String::from_utf8_lossy(&said);
        let mut lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        lines.drain(..lines.len().saturating_sub(TAIL_LINES));
        Ok(printable(&lines.join("; ")))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
