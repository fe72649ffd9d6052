//! A directory of the machine as it looks to a range of ids: what belongs to X belongs to X inside.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::{Errno, read, retry_on_intr};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitOptions, waitpid};

use crate::fault::{Context, Result};
use crate::ids::{IdMap, namespace_refused, number_in_proc, write_maps};
use crate::sys::mount::map_owners;
use crate::sys::process::{NEW_USER, Side, clone, exit_now};

/// The directory through a mount of its own whose owners are mapped; `None` where the kernel or the file
/// system cannot do it. Mounts beneath are left out.
pub(super) fn shifted(directory: &OwnedFd, map: &IdMap) -> Result<Option<OwnedFd>> {
    let namespace = namespace(map)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let shifted = open_tree(directory, "", flags).and_then(|tree| {
        map_owners(tree.as_fd(), namespace.as_fd())?;
        openat(&tree, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
    });
    match shifted {
        Ok(shifted) => Ok(Some(shifted)),
        Err(Errno::INVAL | Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno).context("map the owners of", "the source"),
    }
}

/// A user namespace with this map. Its only process has ended when this returns; the descriptor keeps it.
fn namespace(map: &IdMap) -> Result<OwnedFd> {
    let (wait, go) =
        pipe_with(PipeFlags::CLOEXEC).context("make a pipe", "for a user namespace")?;
    match clone(NEW_USER).map_err(namespace_refused)? {
        Side::Child => {
            drop(go);
            // Until the parent has what it wants; its end closes the pipe too.
            retry_on_intr(|| read(&wait, &mut [0; 1])).ok();
            exit_now(0)
        }
        Side::Parent { child, .. } => {
            let opened = write_maps(child, map).and_then(|()| {
                let path = format!("/proc/{}/ns/user", number_in_proc(child)?);
                fs::File::open(&path).map(OwnedFd::from).context("open", path)
            });
            drop(go);
            waitpid(Some(child), WaitOptions::empty()).context("wait for", "a user namespace")?;
            opened
        }
    }
}
