//! Opens a path within a tree, as a process whose root that tree is would: `..` at the top stays there, symlinks
//! mean what they say inside, and a magic link of /proc is never followed.
//!
//! openat2(2) does this. But it answers EAGAIN to every `..` for ever when the mount is in no namespace any more
//! (each reference it drops to such a mount takes the lock whose counter it compares), which is what the root of a
//! run has come to when its command has ended; and container filters and systemd's RestrictSUIDSGID= hide it
//! (ENOSYS). Then the path is walked name by name, which needs nothing but openat(2).

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path};

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat, statat,
};
use rustix::io::Errno;

/// After so many answers that something else on the machine was renamed or mounted meanwhile, we walk.
const TRIES: u32 = 16;

/// As many symlinks as the kernel follows (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// Opens `path`, absolute or relative to it, in the tree whose top is `root`.
///
/// # Errors
/// What openat2(2) says with RESOLVE_IN_ROOT and RESOLVE_NO_MAGICLINKS.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    for _ in 0..TRIES {
        match openat2(root, relative, flags | OFlags::CLOEXEC, Mode::empty(), how) {
            Err(Errno::AGAIN) => {}
            Err(Errno::NOSYS | Errno::PERM) => break,
            other => return other,
        }
    }
    walk(root, path, flags)
}

/// What is still to be walked.
enum Step {
    Name(OsString),
    Up,
    Top,
}

/// The same by names. Each directory on the way stays open, so that `..` is the one we came from, wherever
/// somebody may have moved it meanwhile.
fn walk(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut way: Vec<OwnedFd> = Vec::new();
    let mut left = steps(path);
    let mut links = 0;
    while let Some(step) = left.pop_front() {
        let name = match step {
            Step::Top => {
                way.clear();
                continue;
            }
            Step::Up => {
                way.pop();
                continue;
            }
            Step::Name(name) => name,
        };
        let here = way.last().map_or(root, AsFd::as_fd);
        let kind = FileType::from_raw_mode(statat(here, &name, AtFlags::SYMLINK_NOFOLLOW)?.st_mode);
        if kind == FileType::Symlink && !(left.is_empty() && flags.contains(OFlags::NOFOLLOW)) {
            links += 1;
            // What a magic link of /proc says is for people; where it leads is another matter.
            if links > MOST_LINKS || is_proc(here)? {
                return Err(Errno::LOOP);
            }
            let target = OsString::from_vec(readlinkat(here, &name, Vec::new())?.into_bytes());
            for step in steps(Path::new(&target)).into_iter().rev() {
                left.push_front(step);
            }
            continue;
        }
        if left.is_empty() {
            return openat(here, &name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        }
        let place = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let next = openat(here, &name, place, Mode::empty())?;
        way.push(next);
    }
    let here = way.last().map_or(root, AsFd::as_fd);
    openat(here, ".", flags | OFlags::CLOEXEC, Mode::empty())
}

fn is_proc(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    const PROC_SUPER_MAGIC: u64 = 0x9fa0;
    Ok(rustix::fs::fstatfs(dir)?.f_type as u64 == PROC_SUPER_MAGIC)
}

fn steps(path: &Path) -> VecDeque<Step> {
    let step = |part: Component<'_>| match part {
        Component::RootDir => Some(Step::Top),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Name(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(step).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    use super::*;

    /// What a path leads to, by the kernel and by names.
    fn both(root: &Path, path: &str) -> (Result<String, Errno>, Result<String, Errno>) {
        let dir = fs::File::open(root).expect("root");
        let read = |opened: Result<OwnedFd, Errno>| {
            let mut text = String::new();
            let mut file = fs::File::from(opened?);
            match file.read_to_string(&mut text) {
                Ok(_) => Ok(text),
                Err(error) => Err(Errno::from_io_error(&error).expect("an errno")),
            }
        };
        let flags = OFlags::RDONLY;
        (
            read(open(dir.as_fd(), Path::new(path), flags)),
            read(walk(dir.as_fd(), Path::new(path), flags)),
        )
    }

    #[test]
    fn names_lead_where_the_kernel_leads() {
        let outer = tempfile::tempdir().expect("directory");
        fs::write(outer.path().join("secret"), "secret").expect("file");
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("a/b")).expect("folders");
        fs::write(root.join("file"), "file").expect("file");
        fs::write(root.join("a/b/deep"), "deep").expect("file");
        for (name, target) in [
            ("up", "../../.."),
            ("abs", "/a/b"),
            ("rel", "a/../a/b/deep"),
            ("out", "../secret"),
            ("loop", "loop"),
            ("gone", "/nothing"),
            ("a/back", "../file"),
            ("a/b/top", "/"),
        ] {
            symlink(target, root.join(name)).expect("link");
        }
        symlink(outer.path().join("secret"), root.join("far")).expect("link");
        for (path, expected) in [
            ("/file", Ok("file")),
            ("file", Ok("file")),
            ("up/file", Ok("file")),
            ("/up/up/a/b/deep", Ok("deep")),
            ("abs/deep", Ok("deep")),
            ("rel", Ok("deep")),
            ("a/back", Ok("file")),
            ("a/b/top/rel", Ok("deep")),
            ("../../file", Ok("file")),
            ("a/b/../../../../file", Ok("file")),
            ("out", Err(Errno::NOENT)),
            ("far", Err(Errno::NOENT)),
            ("../secret", Err(Errno::NOENT)),
            ("loop", Err(Errno::LOOP)),
            ("loop/x", Err(Errno::LOOP)),
            ("gone", Err(Errno::NOENT)),
            ("file/x", Err(Errno::NOTDIR)),
            ("file/..", Err(Errno::NOTDIR)),
            ("a", Err(Errno::ISDIR)),
            ("/", Err(Errno::ISDIR)),
            ("up", Err(Errno::ISDIR)),
        ] {
            let expected = expected.map(str::to_owned);
            let (kernel, names) = both(&root, path);
            assert_eq!(kernel, expected, "the kernel: {path}");
            assert_eq!(names, expected, "by names: {path}");
        }
    }

    #[test]
    fn magic_links_are_not_followed() {
        for path in ["/proc/self/root", "/proc/self/cwd/x", "/proc/self/exe", "/proc/self/fd/0"] {
            let (kernel, names) = both(Path::new("/"), path);
            assert_eq!((kernel, names), (Err(Errno::LOOP), Err(Errno::LOOP)), "{path}");
        }
    }
}
