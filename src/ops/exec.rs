//! `exec`: one more command in a run that stays, confined as its first one is.

use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, WaitOptions, getrlimit, set_child_subreaper, wait};

use super::run::{candidates, checks};
use crate::fault::{Fault, Result};
use crate::isolate::lost::Lost;
use crate::isolate::remember::programs;
use crate::isolate::vital;
use crate::rootfs::plan::MountPlan;
use crate::run::explain::Told;
use crate::run::join::Door;
use crate::run::launch::joined;
use crate::run::spec::{GRACE, Ordinary, RunSpec, Upper};
use crate::run::supervisor::ask::{Joined, Line};
use crate::run::supervisor::{Confinement, Held, held};
use crate::run::{terminal, user};
use crate::store::{RunState, Store};
use crate::sys::exec::Strings;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The run, by id or name.
    pub run: String,
    /// The command.
    pub argv: Vec<OsString>,
    /// Variables, over those of the run.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory inside; the run's if none.
    pub workdir: Option<PathBuf>,
    /// `USER[:GROUP]`; the run's if none.
    pub user: Option<String>,
    /// How long it may take until the command begins.
    pub setup_timeout: Option<Duration>,
    /// Whether the command must, or must not, have a terminal; if one of 0, 1, 2 is one otherwise.
    pub terminal: Option<bool>,
}

/// How it ended.
#[derive(Debug)]
pub struct Executed {
    /// Our exit code.
    pub code: u8,
    /// Lines for a person.
    pub messages: Vec<String>,
    /// Why it was not started, or went with its run.
    pub fault: Option<Fault>,
}

/// Runs the command to its end. It ends with the run, and with us.
///
/// # Errors
/// Not-found if there is no such run, or it has ended; conflict if it was not started to stay; what cannot be
/// joined. A command that is not found or cannot be executed is no fault.
pub fn exec(store: &Store, options: &ExecOptions) -> Result<Executed> {
    let joined = join(store, &options.run)?;
    let mut spec = spec(&joined.confinement, options)?;
    let told = Told::of(&spec);
    let Joined { mut held, line, .. } = joined;
    let journal = held.iter().position(|(what, _)| *what == Held::Journal);
    spec.journal = journal.map(|at| held.swap_remove(at).1);
    let door = door(held, joined.confinement.own_network).ok_or_else(|| line.odd())?;
    let done = reaping(|| joined::run(spec, door))?;
    // Until here: the run is not over before those who have joined it let go of it.
    drop(line);
    let messages = done.lost.iter().map(Lost::line).collect();
    let (code, fault) = match done.outcome.ended {
        Ok(ended) => (ended.exit_code(), None),
        Err(failure) => {
            let (code, fault) = told.explain(failure);
            (code, Some(fault))
        }
    };
    Ok(Executed { code, messages, fault })
}

/// If who minds the command is killed, the command dies, too, and is ours to reap: left to a process outside that reaps
/// nobody, it would keep the pid namespace of the run from ending.
fn reaping(job: impl FnOnce() -> Result<joined::Joined>) -> Result<joined::Joined> {
    let adopts = set_child_subreaper(Some(Pid::INIT)).is_ok();
    let done = job();
    if adopts {
        set_child_subreaper(None).ok();
    }
    let minded = done.as_ref().is_ok_and(|done| done.outcome.ended.is_ok());
    if adopts && !minded {
        // Whoever became us by execve(2) may have left children that do not end now.
        let begun = Instant::now();
        while let Ok(found) = wait(WaitOptions::NOHANG)
            && begun.elapsed() < PATIENCE
        {
            if found.is_none() {
                sleep(Duration::from_millis(5));
            }
        }
    }
    done
}

/// How long a process may take that was sent SIGKILL.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the supervisor of a live run gives to those who join it.
pub(super) fn join(store: &Store, word: &str) -> Result<Joined> {
    let (record, state) = store.find_run(word)?;
    let id = record.run;
    match state {
        RunState::Running => Line::new(id, store.connect_run(&id)?).join(),
        RunState::Kept => {
            Err(Fault::not_found(format!("join run: {id}: it has ended, and is kept"))
                .hint(format!("`sandbox shell --run {id}` goes on with what it left")))
        }
        RunState::Dead => {
            Err(Fault::not_found(format!("join run: {id}: its supervisor was killed"))
                .hint(format!("`sandbox recover {id} --as NAME` makes a snapshot of what it left")))
        }
    }
}

/// What was handed over, sorted; none if something is missing.
fn door(handed: Vec<(Held, OwnedFd)>, own_network: Option<bool>) -> Option<Door> {
    let has = |wanted: &Held| handed.iter().any(|(what, _)| what == wanted);
    if !held::needed(own_network.unwrap_or(false)).iter().all(has) {
        return None;
    }
    let (mut user, mut root, mut cgroup, mut others) = (None, None, None, Vec::new());
    for (what, fd) in handed {
        match what {
            Held::User => user = Some(fd),
            Held::Root => root = Some(fd),
            Held::Limits => cgroup = Some(fd),
            Held::Confinement => {}
            _ => others.push(fd),
        }
    }
    Some(Door { user: user?, root: root?, cgroup, others })
}

/// The payload's part of a spec.
fn spec(confinement: &Confinement, options: &ExecOptions) -> Result<RunSpec> {
    let argv = words(&options.argv)?;
    let typed = options.user.as_deref().or(confinement.user.as_deref());
    let user = typed.map(user::parse).transpose()?;
    checks::user(user.as_ref(), &confinement.map_inside())?;
    checks::no_directory(&[])?;
    vital::check(&confinement.seccomp.0, true)?;
    let terminal = match (options.terminal, terminal::inspect()) {
        (Some(false), _) => None,
        (Some(true), None) => {
            return Err(Fault::usage(
                "exec: --tty: none of stdin, stdout and stderr is a terminal",
            ));
        }
        (_, found) => found,
    };
    let environment = environment(confinement, options, terminal.is_some())?;
    Ok(RunSpec {
        nested: false,
        id_map: confinement.id_map.clone(),
        own_network: false,
        outside: None,
        wall: confinement.wall(),
        lowers: Vec::new(),
        scaffold: None,
        run_dir: String::new(),
        upper: Upper::Disk,
        way: None,
        read_only_root: false,
        plan: MountPlan::default(),
        copy_up: Vec::new(),
        prepared: Vec::new(),
        hostname: String::new(),
        candidates: candidates(&argv[0], &environment),
        argv: Strings::new(argv),
        environment,
        by_descriptor: true,
        workdir: options.workdir.clone().unwrap_or_else(|| confinement.workdir()),
        user,
        ordinary: ordinary(confinement, options),
        capabilities: confinement.capabilities(),
        last_capability: confinement.last_capability,
        seccomp: confinement.seccomp.0.clone(),
        remember: confinement
            .remember
            .then(|| programs(&confinement.id_map, &confinement.seccomp.0)),
        journal: None,
        limits: confinement.limits().into_iter().map(attainable).collect(),
        cgroup: None,
        preserve_fds: Vec::new(),
        terminal,
        may_lose: true,
        want_root: false,
        stays: false,
        heeds_exec: false,
        executing: None,
        timeout: None,
        setup_timeout: options.setup_timeout,
        grace: GRACE,
        output_limit: None,
        disk_limit: None,
        pipes: Default::default(),
        processors: Default::default(),
    })
}

/// What the run's own user needs, if nobody else was asked for.
fn ordinary(confinement: &Confinement, options: &ExecOptions) -> Option<Ordinary> {
    let at_home = confinement.at_home && options.workdir.is_none();
    let same = confinement.ordinary && options.user.is_none();
    same.then_some(Ordinary { at_home, home: None })
}

/// No more than we may have ourselves.
fn attainable((resource, limit): (Resource, Rlimit)) -> (Resource, Rlimit) {
    let most = getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let least =
        |value: Option<u64>| Some(value.unwrap_or(u64::MAX).min(most)).filter(|v| *v != u64::MAX);
    (resource, Rlimit { current: least(limit.current), maximum: least(limit.maximum) })
}

fn words(argv: &[OsString]) -> Result<Vec<CString>> {
    if argv.first().is_none_or(|word| word.is_empty()) {
        return Err(
            Fault::usage("exec: no command given").hint("`sandbox exec RUN -- COMMAND [ARGS]`")
        );
    }
    let word = |word: &OsString| {
        CString::new(word.clone().into_vec())
            .map_err(|_| Fault::usage("exec: a word of the command has a null byte"))
    };
    argv.iter().map(word).collect()
}

/// That of the run, with the kind of our terminal, and what was typed over it.
fn environment(
    confinement: &Confinement,
    options: &ExecOptions,
    terminal: bool,
) -> Result<Vec<CString>> {
    let mut lines = confinement.environment();
    let mut set = |key: &OsString, value: OsString| -> Result<()> {
        let mut line = key.clone();
        line.push("=");
        let start = line.clone().into_vec();
        line.push(value);
        let line = CString::new(line.into_vec())
            .map_err(|_| Fault::usage("exec: --env: a variable has a null byte"))?;
        match lines.iter_mut().find(|known| known.as_bytes().starts_with(&start)) {
            Some(known) => *known = line,
            None => lines.push(line),
        }
        Ok(())
    };
    if let Some(kind) = std::env::var_os("TERM").filter(|_| terminal) {
        set(&"TERM".into(), kind)?;
    }
    for (key, value) in &options.env {
        set(key, value.clone())?;
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Extent, IdMap, Mode};
    use crate::run::supervisor::held::Bytes;

    fn confinement() -> Confinement {
        let only = vec![Extent { inside: 0, outside: 1000, count: 1 }];
        Confinement {
            id_map: IdMap { mode: Mode::Single, uids: only.clone(), gids: only },
            capabilities: 5,
            last_capability: 40,
            seccomp: Bytes(vec![1]),
            remember: true,
            environment: [b"PATH=/bin".to_vec(), b"A=1".to_vec()].map(Bytes).to_vec(),
            workdir: Bytes(b"/work".to_vec()),
            user: None,
            ordinary: false,
            at_home: false,
            limits: vec![
                (Resource::Core as u32, Some(0), Some(0)),
                (Resource::Nofile as u32, None, None),
            ],
            scoped: false,
            own_network: Some(true),
        }
    }

    fn options(words: &[&str]) -> ExecOptions {
        ExecOptions {
            run: "r".into(),
            argv: words.iter().map(Into::into).collect(),
            env: vec![("A".into(), "2".into()), ("B".into(), "=".into())],
            workdir: None,
            user: None,
            setup_timeout: None,
            terminal: Some(false),
        }
    }

    #[test]
    fn a_command_is_confined_as_the_run_is() {
        let spec = spec(&confinement(), &options(&["x"])).unwrap();
        assert_eq!(spec.environment, [c"PATH=/bin".into(), c"A=2".into(), CString::from(c"B==")]);
        assert_eq!(spec.candidates, [CString::from(c"/bin/x")]);
        assert_eq!((spec.capabilities.0, &spec.seccomp), (5, &vec![1]));
        assert_eq!(spec.workdir, PathBuf::from("/work"));
        assert_eq!(spec.limits[0].1, Rlimit { current: Some(0), maximum: Some(0) });
        // Not above our own.
        assert_eq!(spec.limits[1].1.maximum, getrlimit(Resource::Nofile).maximum);
        assert!(spec.terminal.is_none());
    }

    #[test]
    fn wrong_requests_are_refused_before_anything_is_joined() {
        let refused = |change: &dyn Fn(&mut ExecOptions)| {
            let mut options = options(&["x"]);
            change(&mut options);
            spec(&confinement(), &options).unwrap_err().to_string()
        };
        assert!(refused(&|o| o.argv.clear()).contains("no command"));
        assert!(refused(&|o| o.argv = vec!["a\0".into()]).contains("null byte"));
        assert!(refused(&|o| o.user = Some("-1".into())).contains("user: -1"));
        assert!(refused(&|o| o.user = Some("7".into())).contains("id map"));
    }

    #[test]
    fn a_door_without_a_namespace_is_none() {
        let fd = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let all = held::needed(true);
        for own_network in [Some(true), Some(false), None] {
            let without = |one: Option<Held>| {
                let handed = all.iter().filter(|what| Some(**what) != one);
                door(handed.map(|what| (*what, fd())).collect(), own_network)
            };
            assert!(without(None).is_some());
            for one in &all {
                let whole = *one == Held::Network && own_network != Some(true);
                assert_eq!(without(Some(*one)).is_some(), whole, "{one:?} {own_network:?}");
            }
        }
    }
}
