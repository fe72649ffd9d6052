//! What is typed over a profile: capabilities more or less, another list of system calls.

use std::path::Path;

use super::caps::CapSet;
use super::lost::Lost;
use super::profile::{Calls, Profile, read_text};
use crate::fault::{Fault, Result, printable};

/// Changes of a profile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Capabilities that the payload gets besides; `ALL` is every one.
    pub cap_add: Vec<String>,
    /// Capabilities that it loses; `ALL` is every one, before any is added.
    pub cap_drop: Vec<String>,
    /// A file with rules for system calls in place of the profile's, in the form of the OCI runtime
    /// specification or of Docker; or `none`.
    pub seccomp: Option<String>,
}

impl Changes {
    /// The profile with the changes.
    ///
    /// # Errors
    /// `usage` for an unknown capability, one that is added and dropped, and a file that cannot be right;
    /// `not-found` without the file.
    pub fn apply(&self, profile: Profile) -> Result<Profile> {
        if *self == Self::default() {
            return Ok(profile);
        }
        let capabilities = self.capabilities(profile.capabilities)?;
        let calls = match self.seccomp.as_deref() {
            None => Calls::Own,
            Some("none") => Calls::Open,
            Some(path) => Calls::File(path.to_owned(), read_text("seccomp file", Path::new(path))?),
        };
        profile.with_capabilities(capabilities).with_calls(calls)
    }

    fn capabilities(&self, of_profile: CapSet) -> Result<CapSet> {
        if self.cap_add.is_empty() && self.cap_drop.is_empty() {
            return Ok(of_profile);
        }
        let (all_added, added) = split(&self.cap_add)?;
        let (all_dropped, dropped) = split(&self.cap_drop)?;
        let both = CapSet(added.0 & dropped.0);
        let twice =
            if all_added && all_dropped { Some("ALL".to_owned()) } else { both.names().pop() };
        if let Some(name) = twice {
            return Err(Fault::usage(format!("capability: {name}: is added and dropped")));
        }
        let all = CapSet::all().0;
        let base = match (all_added, all_dropped) {
            (true, _) => all,
            (_, true) => 0,
            _ => of_profile.0,
        };
        Ok(CapSet((base | added.0) & !dropped.0))
    }

    /// Protections that a run with `profile`, which has these changes, goes without because it was asked for so, here or in a
    /// file, or because it was asked for them in words that nobody here knows: which, and what that means. To be said loudly.
    pub fn given_up(&self, profile: &Profile) -> Vec<Lost> {
        let mut given_up = Vec::new();
        let of_profile = format!("profile {}", printable(profile.name()));
        let from = match self.seccomp.as_deref() {
            Some(file) => format!("--seccomp {}", printable(file)),
            None => of_profile.clone(),
        };
        for name in profile.unrefused() {
            let why =
                "is to be refused and not known, so the command may make it if this kernel has it";
            given_up.push(Lost::new("system calls", format!("{from}: {name}: {why}")));
        }
        if profile.allows_all() {
            let why = "the command may make every system call of this kernel, but those \
                       that are never allowed, and new namespaces";
            given_up.push(Lost::new("system calls", format!("{from}: {why}")));
        }
        if profile.capabilities.holds(CAP_SYS_ADMIN) {
            let added = self.capabilities(CapSet::NONE).unwrap_or_default().holds(CAP_SYS_ADMIN);
            let from = match added {
                true => "--cap-add CAP_SYS_ADMIN".to_owned(),
                false => format!("{of_profile}: CAP_SYS_ADMIN"),
            };
            let why = "the command is the administrator of its namespaces; more \
                       of the kernel is open to it, and what is hidden or read-only by a mount is so no \
                       longer if its system calls allow mount";
            given_up.push(Lost::new("capabilities", format!("{from}: {why}")));
        }
        given_up
    }
}

/// Its number in capabilities(7).
const CAP_SYS_ADMIN: u32 = 21;

/// Whether `ALL` is among the names, and the set of the others. `CAP_` may be left out, and case does not
/// matter, as with Docker and podman.
fn split(names: &[String]) -> Result<(bool, CapSet)> {
    let mut set = CapSet::NONE;
    let mut all = false;
    for name in names {
        let upper = name.to_ascii_uppercase();
        if upper == "ALL" {
            all = true;
            continue;
        }
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let one = CapSet::from_names([format!("CAP_{bare}").as_str()]).map_err(|_| {
            Fault::usage(format!("capability: {}: no such capability", printable(name)))
                .hint("capabilities(7) has the names; ALL stands for every one")
        })?;
        set.0 |= one.0;
    }
    Ok((all, set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(add: &[&str], drop: &[&str]) -> Result<Vec<String>> {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
        let changes = Changes { cap_add: words(add), cap_drop: words(drop), seccomp: None };
        let profile = changes.apply(Profile::builtin("dev").expect("built in"))?;
        Ok(profile.capabilities.names())
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let dev = changed(&[], &[]).expect("plain");
        assert_eq!(dev.len(), 13);
        let more = changed(&["net_admin", "CAP_CHOWN"], &["Cap_Kill"]).expect("known");
        assert!(
            more.contains(&"CAP_NET_ADMIN".to_owned()) && !more.contains(&"CAP_KILL".to_owned())
        );
        assert_eq!(more.len(), 13);
        assert_eq!(changed(&["chown"], &["all"]).expect("known"), ["CAP_CHOWN"]);
        assert_eq!(changed(&["ALL"], &["CAP_SYS_ADMIN"]).expect("known").len(), 40);
        assert_eq!(changed(&[], &["ALL"]).expect("known"), [""; 0]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (add, drop, told) in [
            (&["CAP_ROOT"][..], &[][..], "capability: CAP_ROOT: no such capability"),
            (&[""], &[], "capability: : no such capability"),
            (&["CAP_CAP_CHOWN"], &[], "capability: CAP_CAP_CHOWN: no such capability"),
            (&["kill"], &["KILL"], "capability: CAP_KILL: is added and dropped"),
            (&["ALL"], &["all"], "capability: ALL: is added and dropped"),
        ] {
            assert_eq!(changed(add, drop).expect_err(told).message, told);
        }
    }

    fn given_up(changes: &Changes, profile: Profile) -> Vec<String> {
        let profile = changes.apply(profile).expect("changes");
        changes.given_up(&profile).into_iter().map(|lost| lost.reason).collect()
    }

    #[test]
    fn what_is_given_up_is_told() {
        let told = |add: &str, drop: &str, seccomp: Option<&str>| {
            let changes = Changes {
                cap_add: vec![add.to_owned()],
                cap_drop: vec![drop.to_owned()],
                seccomp: seccomp.map(str::to_owned),
            };
            given_up(&changes, Profile::builtin("build").expect("built in")).len()
        };
        assert_eq!(told("chown", "kill", None), 0);
        assert_eq!(told("sys_admin", "kill", None), 1);
        assert_eq!(told("all", "kill", Some("none")), 2);
        assert_eq!(told("all", "sys_admin", None), 0);
    }

    #[test]
    fn what_a_file_gives_up_is_told_as_well() {
        let build = Profile::builtin("build").expect("built in").text().to_owned();
        let (settings, _) = build.split_once("\"seccomp\":").expect("system calls");
        let file = |capability: &str, calls: &str| {
            let settings = settings.replace("CAP_KILL", capability);
            let text = format!("{settings}\"seccomp\":{calls}}}");
            Profile::from_text("mine.json", text).expect("a profile")
        };
        let all = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_LOG"}]}"#;
        let most = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO"}]}"#;
        let none = Changes::default();
        assert_eq!(given_up(&none, file("CAP_KILL", most)), [""; 0]);
        let told = given_up(&none, file("CAP_SYS_ADMIN", all));
        assert_eq!(told.len(), 2);
        assert!(told[0].starts_with("profile mine.json: the command may make every"), "{told:?}");
        assert!(told[1].starts_with("profile mine.json: CAP_SYS_ADMIN: the command"), "{told:?}");
        // What flags take back is not given up.
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("calls.json");
        let calls = |text: &str| {
            std::fs::write(&path, text).expect("write");
            let seccomp = Some(path.to_str().expect("UTF-8").to_owned());
            Changes { cap_drop: vec!["sys_admin".to_owned()], seccomp, ..Changes::default() }
        };
        assert_eq!(given_up(&calls(most), file("CAP_SYS_ADMIN", all)), [""; 0]);
        let told = given_up(&calls(all), file("CAP_SYS_ADMIN", most));
        assert!(told.len() == 1 && told[0].starts_with("--seccomp /"), "{told:?}");
    }
}
