//! Which working directory a shell may have bound read-write without being told so.

use std::path::{Component, Path, PathBuf};

use crate::fault::numberless;
use crate::rootfs::plan::BindMode;
use crate::store::Store;

use super::Bind;

/// The binds that make the working directory part of a shell: the directory itself, read-write, and over
/// it read-only what git executes on the host (a hook written inside would be run outside).
///
/// # Errors
/// The reason why it is not bound by itself, for a person.
pub(super) fn binds(store: &Store) -> Result<Vec<Bind>, String> {
    let cwd = std::env::current_dir().map_err(|error| numberless(&error.to_string()))?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let base_dir = store.path().canonicalize();
    let base_dir = base_dir.map_err(|error| numberless(&error.to_string()))?;
    may_bind(&cwd, home.as_deref(), &base_dir)?;
    let guarded = [".git/hooks", ".git/config"].map(|name| cwd.join(name));
    let guarded = guarded.into_iter().filter(|path| path.exists());
    let mut binds = vec![Bind { source: cwd.clone(), target: cwd, mode: BindMode::ReadWrite }];
    binds.extend(guarded.map(|path| Bind {
        source: path.clone(),
        target: path,
        mode: BindMode::ReadOnly,
    }));
    Ok(binds)
}

fn may_bind(cwd: &Path, home: Option<&Path>, base_dir: &Path) -> Result<(), String> {
    let refused = |why: &str| Err(why.to_owned());
    if cwd == Path::new("/") {
        return refused("it is the root of the machine");
    }
    if cwd.starts_with(base_dir) || base_dir.starts_with(cwd) {
        return refused("the store lies in it or around it");
    }
    // What a bind covers inside would be gone: /usr, /etc and their like are the box's own.
    let top = cwd.components().nth(1);
    let system = ["usr", "etc", "bin", "sbin", "lib", "lib64", "proc", "dev", "run", "sys", "var"];
    if cwd.components().count() == 2
        && top.is_some_and(|top| system.iter().any(|name| top == Component::Normal(name.as_ref())))
    {
        return refused("it is a directory of the system");
    }
    let Some(home) = home else { return Ok(()) };
    if home.starts_with(cwd) {
        return refused("it holds the whole home directory");
    }
    let first = cwd.strip_prefix(home).ok().and_then(|rest| rest.components().next());
    match first {
        Some(Component::Normal(name)) if name.as_encoded_bytes().starts_with(b".") => {
            refused("it is a directory of settings")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_project_is_bound_by_itself() {
        let (home, store) = (Path::new("/home/u"), Path::new("/home/u/.local/share/sandbox"));
        let may = |cwd: &str| may_bind(Path::new(cwd), Some(home), store).is_ok();
        for cwd in ["/home/u/project", "/home/u/a/.hidden", "/srv/build", "/var/tmp/x"] {
            assert!(may(cwd), "{cwd}");
        }
        let store_inside = "/home/u/.local/share/sandbox/layers";
        for cwd in
            ["/", "/home/u", "/home", "/home/u/.ssh", "/home/u/.config/x", "/etc", store_inside]
        {
            assert!(!may(cwd), "{cwd}");
        }
    }
}
