//! The calls without which nothing runs: what a filter makes of them is looked at before anything is begun, because who is
//! refused an exec under it may not even be able to say so.

use super::profile::Profile;
use super::{bpf, compile};
use crate::fault::{Fault, Result};

/// A call by its name and its number.
pub(super) type Call = (&'static str, libc::c_long);

const EXECVE: Call = ("execve", libc::SYS_execve);
const EXECVEAT: Call = ("execveat", libc::SYS_execveat);
const EXIT: Call = ("exit", libc::SYS_exit);
const EXIT_GROUP: Call = ("exit_group", libc::SYS_exit_group);

#[cfg(target_arch = "x86_64")]
const POLL: Call = ("poll", libc::SYS_poll);
#[cfg(not(target_arch = "x86_64"))]
const POLL: Call = ("ppoll", libc::SYS_ppoll);

/// What our own processes inside make under the filter: until the exec, and until the end.
const OURS: [Call; 9] = [
    POLL,
    EXIT_GROUP,
    ("read", libc::SYS_read),
    ("sendmsg", libc::SYS_sendmsg),
    ("recvmsg", libc::SYS_recvmsg),
    ("wait4", libc::SYS_wait4),
    ("rt_sigprocmask", libc::SYS_rt_sigprocmask),
    ("chdir", libc::SYS_chdir),
    ("kill", libc::SYS_kill),
];

/// SECCOMP_RET_ALLOW and SECCOMP_RET_LOG.
const PERMITS: [u32; 2] = [0x7fff_0000, 0x7ffc_0000];

/// Whether a program never lets this call through, whatever its arguments are.
pub(super) fn refuses(program: &[u8], (_, number): Call) -> bool {
    let Some(arch) = compile::native() else { return false };
    let verdict =
        u32::try_from(number).ok().and_then(|number| bpf::constant(program, arch, number));
    verdict.is_some_and(|verdict| !PERMITS.contains(&(verdict & 0xffff_0000)))
}

/// Refuses a program under which no command can be executed, or could end by itself. `by_descriptor`: whether it is
/// execveat(2) that executes it.
///
/// # Errors
/// `usage` that names the call.
pub fn check(program: &[u8], by_descriptor: bool) -> Result<()> {
    let exec = if by_descriptor { EXECVEAT } else { EXECVE };
    let why = if refuses(program, exec) {
        format!("it does not allow {}: no command can be executed", exec.0)
    } else if refuses(program, EXIT) && refuses(program, EXIT_GROUP) {
        "it allows neither exit nor exit_group: no command could end".to_owned()
    } else {
        return Ok(());
    };
    Err(Fault::usage(format!("seccomp: {why}")).hint(
        "allow execve, execveat, exit and exit_group in it; `sandbox profile check FILE` tells",
    ))
}

/// [`check`] of a profile's program, and the file that it comes from.
///
/// # Errors
/// As [`check`].
pub fn check_profile(profile: &Profile, program: &[u8], by_descriptor: bool) -> Result<()> {
    check(program, by_descriptor).map_err(|fault| profile.blame(fault))
}

/// A line for each of the calls that a program refuses, and what that means.
pub fn notes(program: &[u8]) -> Vec<String> {
    let refused = [
        (EXECVE, "no command can be executed"),
        (
            EXECVEAT,
            "no command can be executed beside what others may write (binds, caches), nor by `exec`",
        ),
        (EXIT, "no thread can end by itself"),
        (EXIT_GROUP, "no program can end by itself"),
    ];
    let refused = refused.into_iter().filter(|(call, _)| refuses(program, *call));
    refused.map(|((name, _), what)| format!("seccomp: {name}: refused: {what}")).collect()
}

/// Which of the calls that our own processes make under it a program refuses.
pub fn ours(program: &[u8]) -> Vec<&'static str> {
    OURS.iter().filter(|call| refuses(program, **call)).map(|(name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolate::filter::Seccomp;
    use crate::isolate::seccomp::{Request, compiled};

    fn program(action: &str, names: &str) -> Vec<u8> {
        let text = format!(
            r#"{{"defaultAction":"SCMP_ACT_{action}","syscalls":[
                {{"names":[{names}],"action":"SCMP_ACT_ALLOW"}}]}}"#
        );
        let seccomp: Seccomp = serde_json::from_str(&text).expect("rules");
        compile::compile(&seccomp, &Request::default()).expect("compiles")
    }

    #[test]
    fn what_nothing_runs_under_is_refused() {
        for action in ["ERRNO", "KILL_PROCESS", "TRAP"] {
            let refused = |names: &str, by_descriptor| {
                check(&program(action, names), by_descriptor).err().map(|fault| fault.message)
            };
            assert!(refused(r#""read""#, false).is_some_and(|why| why.contains("execve:")));
            let execve = r#""execve","exit_group""#;
            assert_eq!(refused(execve, false), None);
            assert!(refused(execve, true).is_some_and(|why| why.contains("execveat:")));
            assert!(refused(r#""execve""#, false).is_some_and(|why| why.contains("neither exit")));
            assert_eq!(notes(&program(action, execve)).len(), 2);
            assert_eq!(ours(&program(action, execve)).len(), OURS.len() - 1);
        }
        assert_eq!(check(&program("LOG", r#""read""#), true), Ok(()));
    }

    #[test]
    fn the_profiles_of_ours_let_commands_run() {
        for name in Profile::builtin_names() {
            let profile = Profile::builtin(name).expect("built in");
            let program = compiled(&profile, &Request::default()).expect("compiles");
            assert_eq!(check(&program, false).and_then(|()| check(&program, true)), Ok(()));
            assert_eq!((notes(&program), ours(&program)), (Vec::new(), Vec::new()), "{name}");
        }
    }
}
