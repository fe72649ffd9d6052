//! Which working directory a shell may have bound read-write without being told so.

use std::io::ErrorKind;
use std::path::{Component, Path, PathBuf};

use crate::fault::numberless;
use crate::rootfs::plan::BindMode;
use crate::store::Store;

use super::Bind;

/// The binds that make the working directory part of a shell: the directory itself, read-write, and over it read-only its
/// `.git`. Hooks and settings there name programs that git would run outside; and not these two alone, for a file
/// `commondir` beside them (gitrepository-layout(5)) has git look for both elsewhere.
///
/// # Errors
/// The reason why it is not bound by itself, for a person.
pub(super) fn binds(store: &Store) -> Result<Vec<Bind>, String> {
    let cwd = std::env::current_dir().map_err(|error| numberless(&error.to_string()))?;
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let base_dir = store.path().canonicalize();
    let base_dir = base_dir.map_err(|error| numberless(&error.to_string()))?;
    may_bind(&cwd, home.as_deref(), &base_dir)?;
    if cwd.ancestors().any(is_repository) {
        return Err("it lies in a git directory, whose hooks and settings name programs".to_owned());
    }
    let bind = |path: PathBuf, mode| Bind { source: path.clone(), target: path, mode };
    let repository = guarded(&cwd)?.map(|path| bind(path, BindMode::ReadOnly));
    Ok([bind(cwd, BindMode::ReadWrite)].into_iter().chain(repository).collect())
}

/// Whether git would take a directory itself for a repository (gitrepository-layout(5)): a `.git` or a bare one.
fn is_repository(dir: &Path) -> bool {
    dir.join("HEAD").symlink_metadata().is_ok()
        && ["objects", "refs"].iter().all(|name| dir.join(name).is_dir())
}

/// The `.git` of a directory, if it has one: a directory, or the file of a worktree.
fn guarded(cwd: &Path) -> Result<Option<PathBuf>, String> {
    let path = cwd.join(".git");
    match path.symlink_metadata() {
        Ok(found) if found.is_symlink() => Err("its .git is a symbolic link".to_owned()),
        Ok(found) if found.is_file() && leads_into(&path, cwd) => {
            Err("its .git leads to a directory in it".to_owned())
        }
        Ok(_) => Ok(Some(path)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(numberless(&error.to_string())),
    }
}

/// Whether the file `.git` of a working directory names a place in there (gitrepository-layout(5)), which could be written.
fn leads_into(file: &Path, cwd: &Path) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let place = text.strip_prefix("gitdir:").map(|place| cwd.join(place.trim()));
    place.is_some_and(|place| place.canonicalize().unwrap_or(place).starts_with(cwd))
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
