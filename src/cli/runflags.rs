//! The flags that `run` and `shell` share: what the command finds around itself.

use std::env;
use std::ffi::OsString;
#[cfg(test)]
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::changeflags::ChangeFlags;
use super::limitflags::LimitFlags;
use super::netflags::{self, NetFlags};
use super::parse;
use crate::fault::{Context, Fault, Result};
use crate::ops::in_time::{self, Until};
use crate::ops::run::{After, Bind, Memory, Net, RunOptions, TouchRpmdb, Upper};
use crate::rootfs::overlay::Way;

/// A parser of words that need not be UTF-8.
pub(super) fn words<T: Clone + Send + Sync + 'static>(
    parse: fn(&std::ffi::OsStr) -> Result<T>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |word| parse(&word))
}

/// What the command finds.
#[derive(Debug, Default, Args)]
pub(super) struct RunFlags {
    /// Show a host path inside, mode ro (default), rw or overlay (changes dropped); `\:` is a colon of a path
    #[arg(
        long,
        value_name = "SRC[:DST][:MODE]",
        value_parser = words(parse::bind),
        help_heading = "What the command finds"
    )]
    bind: Vec<Bind>,

    /// Mount an empty directory in memory, with size=SIZE at most, and a mode= (1777 if not)
    #[arg(
        long,
        value_name = "DST[:OPTIONS]",
        value_parser = words(parse::tmpfs),
        help_heading = "What the command finds"
    )]
    tmpfs: Vec<Memory>,

    /// Mount a directory that the box keeps between runs
    #[arg(
        long,
        value_name = "NAME:DST",
        value_parser = words(parse::cache),
        help_heading = "What the command finds"
    )]
    cache: Vec<(String, PathBuf)>,

    /// Copy a path to a host directory at the end, on success and on failure
    #[arg(
        long,
        value_name = "PATH:DIR",
        value_parser = words(parse::out),
        help_heading = "What the command finds"
    )]
    out: Vec<(PathBuf, PathBuf)>,

    /// Copy a file, or all files of a directory, up before the command starts, for databases that are mapped
    #[arg(
        long,
        value_name = "PATH",
        value_parser = parse::copy_up,
        help_heading = "What the command finds"
    )]
    copy_up: Vec<String>,

    /// Do so with rpm's database: always, mapped (what programs map of it), never [default: mapped]
    #[arg(
        long,
        value_name = "WHEN",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "always",
        value_parser = TouchRpmdb::from_str,
        help_heading = "What the command finds"
    )]
    touch_rpmdb: Option<TouchRpmdb>,

    /// Set a variable, or copy it from the caller
    #[arg(
        short,
        long,
        value_name = "K[=V]",
        value_parser = OsStringValueParser::new(),
        help_heading = "What the command finds"
    )]
    env: Vec<OsString>,

    /// Set the variables of a file of K=V lines
    #[arg(long, value_name = "FILE", help_heading = "What the command finds")]
    env_file: Vec<PathBuf>,

    /// Working directory inside [default: / for run, home with --as-user; the caller's for shell]
    #[arg(
        short,
        long,
        value_name = "DIR",
        value_parser = words(parse::workdir),
        help_heading = "What the command finds"
    )]
    workdir: Option<PathBuf>,

    /// User (and group) inside, by name or number [default: 0]
    #[arg(short, long, value_name = "USER[:GROUP]", help_heading = "What the command finds")]
    user: Option<String>,

    /// Be an ordinary user inside, uid and gid 1000, in every id mode: known by name, with a home to begin in
    #[arg(long, conflicts_with = "user", help_heading = "What the command finds")]
    as_user: bool,

    /// Host name inside [default: the name of the box]
    #[arg(
        long,
        value_name = "NAME",
        value_parser = parse::hostname,
        help_heading = "What the command finds"
    )]
    hostname: Option<String>,

    /// Network: none (only loopback), host, pasta or slirp4netns [default: the profile's]
    #[arg(
        long,
        value_name = "MODE",
        value_parser = netflags::net,
        help_heading = "What the command finds"
    )]
    net: Option<Net>,

    #[command(flatten)]
    network: NetFlags,

    /// Give it a store of its own, so that sandbox can be used inside; its snapshots are taken in at the end
    #[arg(long, help_heading = "What the command finds")]
    nest: bool,

    /// Leave a descriptor of the caller open, by its number; no directory, no terminal
    #[arg(
        long,
        value_name = "N",
        value_parser = clap::value_parser!(i32).range(3..),
        help_heading = "What the command finds"
    )]
    preserve_fd: Vec<i32>,

    /// Where changes are written: disk, or tmpfs[:SIZE] for memory [default: disk]
    #[arg(
        long,
        value_name = "WHERE",
        default_value = "disk",
        value_parser = parse::upper,
        hide_default_value = true,
        help_heading = "Limits and protection"
    )]
    upper: Upper,

    /// End the command after a time: 10, 10s, 5m, 1.5h; by SIGTERM, and GRACE later (5s) by SIGKILL
    #[arg(
        long,
        value_name = "T[:GRACE]",
        value_parser = parse::timeout,
        help_heading = "Limits and protection"
    )]
    timeout: Option<(Duration, Option<Duration>)>,

    /// Give up when the command has not begun after a time (0: wait for as long as it takes) [default: 30s]
    #[arg(
        long,
        value_name = "T",
        value_parser = parse::setup_timeout,
        help_heading = "Limits and protection"
    )]
    setup_timeout: Option<Duration>,

    #[command(flatten)]
    limits: LimitFlags,

    /// Profile: build, dev, strict or a JSON file [default: build for run, dev for shell]
    #[arg(long, value_name = "PROFILE", help_heading = "Limits and protection")]
    profile: Option<String>,

    /// Make the root read-only; /tmp, /var/tmp and /run are in memory, binds as given
    #[arg(long, help_heading = "Limits and protection")]
    read_only: bool,

    #[command(flatten)]
    changes: ChangeFlags,

    /// Refuse to start when this machine cannot give a protection
    #[arg(long, help_heading = "Limits and protection")]
    strict: bool,

    /// Check the layers before the start: every file of those with digests
    #[arg(long)]
    verify: bool,

    /// Write what happened to a file as JSON
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Write what happens to a descriptor of the caller, by its number, as lines of JSON
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    status_fd: Option<i32>,

    /// Print what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,

    /// Mount the overlay in one way only: fd, fd-attached, lowerdir+, mount
    #[arg(long, hide = true, value_name = "WAY")]
    overlay_way: Option<Way>,
}

impl RunFlags {
    /// The options of a run of `argv` whose changes are dropped, with the profile that holds if none is
    /// named. The caller fills in the rest.
    ///
    /// # Errors
    /// Usage for a wrong variable; what went wrong with an env file.
    pub(super) fn options(
        self,
        default_profile: &'static str,
        argv: Vec<OsString>,
    ) -> Result<RunOptions> {
        let begun = Instant::now();
        let timeout = self.timeout.map(|(time, _)| time);
        // Whoever writes to a pipe that is given may be asked for a passphrase meanwhile: by default he has all his time.
        let asked = Until::setup(begun, self.setup_timeout);
        let until = Until::timeout(begun, timeout).into_iter().chain(asked).min();
        let env = variables(&self.env_file, &self.env, until)?;
        Ok(RunOptions {
            from: None,
            kept_run: None,
            after: After::Discard,
            keep_on_failure: false,
            digest: false,
            verify: self.verify,
            binds: self.bind.into_iter().chain(self.changes.binds()).collect(),
            tmpfs: self.tmpfs,
            caches: self.cache,
            outs: self.out,
            copy_up: self.copy_up,
            touch_rpmdb: self.touch_rpmdb,
            net: self.net,
            network: self.network.details(),
            nest: self.nest,
            env,
            workdir: self.workdir,
            user: self.user,
            as_user: self.as_user,
            hostname: self.hostname,
            timeout,
            setup_timeout: self.setup_timeout,
            begun,
            grace: self.timeout.and_then(|(_, grace)| grace),
            limits: self.limits.limits(),
            warn: None,
            report: self.report,
            preserve_fds: self.preserve_fd,
            upper: self.upper,
            profile: self.profile,
            default_profile,
            changes: self.changes.into(),
            read_only: self.read_only,
            status_fd: self.status_fd,
            strict: self.strict,
            ask: None,
            argv,
            overlay_way: self.overlay_way,
        })
    }

    /// The first reason why changes of this run cannot be kept.
    ///
    /// # Errors
    /// Usage if they are in memory only, or there can be none.
    pub(super) fn can_keep(&self) -> Result<()> {
        if self.read_only {
            return Err(Fault::usage("--read-only: nothing changes that could be kept")
                .hint("leave out --read-only, or --commit, --keep and --keep-on-failure"));
        }
        match self.upper {
            Upper::Disk => Ok(()),
            Upper::Tmpfs(_) => Err(Fault::usage("--upper tmpfs: changes in memory cannot be kept")
                .hint("leave out --upper, or --commit, --keep and --keep-on-failure")),
        }
    }
}

/// What an `--env-file` may hold: more than the kernel gives to a program has no use (ARG_MAX).
const MOST_VARIABLES: u64 = 2 << 20;

/// A file or a pipe (`--env-file <(pass show env)`) of variables; not endless ones.
fn env_file(file: &Path, until: Option<Until>) -> Result<Vec<u8>> {
    let content = match until {
        Some(until) => in_time::read_file_until(file, MOST_VARIABLES, until).map_err(|fault| {
            Fault { message: fault.message.replacen("read:", "read env file:", 1), ..fault }
        })?,
        None => {
            in_time::read_file(file, MOST_VARIABLES).context("read env file", file.display())?
        }
    };
    if content.len() as u64 > MOST_VARIABLES {
        let message = format!("read env file: {}: larger than 2 MiB", file.display());
        return Err(Fault::usage(message).hint("a line of it is K=V, or K"));
    }
    Ok(content)
}

/// The variables of the files in their order, then those of the flags; the last word on a name holds. What has not come
/// `until` then is a fault.
pub(super) fn variables(
    files: &[PathBuf],
    words: &[OsString],
    until: Option<Until>,
) -> Result<Vec<(OsString, OsString)>> {
    let caller = |key: &std::ffi::OsStr| env::var_os(key);
    let mut pairs = Vec::new();
    for file in files {
        let content = env_file(file, until)?;
        let found = parse::env_file(&content, caller).map_err(|fault| {
            Fault::usage(format!("read env file: {}: {}", file.display(), fault.message))
        })?;
        pairs.extend(found);
    }
    for word in words {
        let found = parse::env(word, caller).map_err(|fault| {
            Fault::usage(format!("--env: {}: {}", word.display(), fault.message))
        })?;
        pairs.extend(found);
    }
    let mut last: Vec<(OsString, OsString)> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        match last.iter_mut().find(|(known, _)| *known == key) {
            Some(known) => known.1 = value,
            None => last.push((key, value)),
        }
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_word_on_a_variable_holds() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        fs::write(&file, "A=1\nB=2\n").unwrap();
        let found = variables(&[file], &["B=3".into(), "C=4".into(), "C=5".into()], None).unwrap();
        let expected = [("A", "1"), ("B", "3"), ("C", "5")];
        assert_eq!(found, expected.map(|(key, value)| (key.into(), value.into())));
    }

    #[test]
    fn mistakes_name_their_place() {
        let fault = variables(&[], &["=x".into()], None).unwrap_err();
        assert_eq!(fault.message, "--env: =x: a variable is written K=V or K");
        let fault = variables(&["/nonexistent".into()], &[], None).unwrap_err();
        assert_eq!(fault.message, "read env file: /nonexistent: no such file or directory");
    }
}
