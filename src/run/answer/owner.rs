//! The chown family.

use rustix::fs::{AtFlags, Gid, Uid, chownat};
use rustix::io::Errno;

use super::caller::Caller;
use super::place::{File, Found};
use super::{CHOWN, Handler};
use crate::ids::Mode;
use crate::isolate::remember::Form;
use crate::sys::notify::Call;
use crate::tree::meta::Meta;

/// The owner on disk of what belongs to nobody that the map holds, where it holds this one: "nobody" can do
/// less with it than root.
const NOBODY: u32 = 65_534;

/// Owner and group as asked for; `None` leaves one as it is.
type Wanted = (Option<u32>, Option<u32>);

impl Handler<'_> {
    pub(super) fn change_owner(
        &mut self,
        caller: &Caller,
        form: Form,
        call: &Call,
    ) -> Result<(), Errno> {
        let wanted = wanted(form, call);
        let found = Found::new(self.file_of(caller, form, call)?)?;
        let kept = found.is_kept(self);
        if !kept {
            require_right(caller, &found, &Meta::default(), wanted)?;
            return give(&found, self.on_disk(wanted, false)?);
        }
        let attributes = found.attributes()?;
        let old = self.own(|me| me.notes.read(&found, attributes))?;
        let old = old.counted(found.owner(), self.map);
        require_right(caller, &found, &old, wanted)?;
        let disk = self.on_disk(wanted, true)?;
        let on = (disk.0.unwrap_or(found.stat.stx_uid), disk.1.unwrap_or(found.stat.stx_gid));
        let new = Meta {
            uid: wanted.0.map_or(old.uid, |uid| (!self.map.holds_uid(uid)).then_some(uid)),
            gid: wanted.1.map_or(old.gid, |gid| (!self.map.holds_gid(gid)).then_some(gid)),
            device: old.device,
            on,
            unset: (old.unset.0 && wanted.0.is_none(), old.unset.1 && wanted.1.is_none()),
        };
        // Writing the attribute changes the times, too; so the kernel need not be asked for more where that is all. Where
        // nothing is to be remembered, it is for the kernel to judge.
        let writes = found.has_attributes() && new != old && !new.is_empty();
        let is_all = writes && on == found.owner();
        if !is_all || found.has_powers(attributes) {
            give(&found, disk)?;
        }
        if found.has_attributes() {
            return if new == old { Ok(()) } else { self.own(|me| me.notes.write(&found, &new)) };
        }
        // It may have been copied up just now, to an inode that was born just now. The journal says also that
        // there is nothing: the layers beneath may say something.
        let found = Found::new(found.file)?;
        self.own(|me| me.notes.write(&found, &new))
    }

    fn file_of(&self, caller: &Caller, form: Form, call: &Call) -> Result<File, Errno> {
        let args = &call.args;
        match form {
            Form::Fchown(_) => self.open_file(caller, args[0] as i32),
            Form::Fchownat => {
                let flags = args[4] as u32;
                let known = (libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u32;
                if flags & !known != 0 {
                    return Err(Errno::INVAL);
                }
                let follow = flags & libc::AT_SYMLINK_NOFOLLOW as u32 == 0;
                let path = if args[1] == 0 && flags & libc::AT_EMPTY_PATH as u32 != 0 {
                    // Since Linux 6.11 no path is an empty one.
                    std::ffi::CString::default()
                } else {
                    caller.path(self, args[1])?
                };
                if path.is_empty() && flags & libc::AT_EMPTY_PATH as u32 != 0 {
                    let file = caller.directory(self, args[0])?;
                    return caller.still_waits(self).map(|()| File::Place(file));
                }
                let place = self.place_of(caller, args[0], path)?;
                caller.still_waits(self)?;
                self.find(caller, &place, follow).map(File::Place)
            }
            Form::Chown(follow, _) => {
                let place = self.place(caller, libc::AT_FDCWD as u64, args[0])?;
                caller.still_waits(self)?;
                self.find(caller, &place, follow).map(File::Place)
            }
            _ => Err(Errno::NOSYS),
        }
    }

    /// A descriptor of the caller that is more than a place.
    pub(super) fn open_file(&self, caller: &Caller, fd: i32) -> Result<File, Errno> {
        let file = caller.file(self, fd)?;
        caller.still_waits(self).map(|()| file)
    }

    /// What the kernel is asked for. Where nothing can be remembered, an id that is not there is what it is
    /// without us: with one id only, done; else an error.
    fn on_disk(&self, wanted: Wanted, kept: bool) -> Result<Wanted, Errno> {
        let single = self.map.mode == Mode::Single;
        let stand_in = |id: u32, held: &dyn Fn(u32) -> bool| match held(id) {
            true => Ok(id),
            false if !kept && !single => Err(Errno::INVAL),
            false if held(NOBODY) => Ok(NOBODY),
            false => Ok(0),
        };
        Ok((
            wanted.0.map(|id| stand_in(id, &|id| self.map.holds_uid(id))).transpose()?,
            wanted.1.map(|id| stand_in(id, &|id| self.map.holds_gid(id))).transpose()?,
        ))
    }
}

/// Makes all that a change of owner makes: set-id bits and file capabilities go, the times change.
fn give(found: &Found, (uid, gid): Wanted) -> Result<(), Errno> {
    let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    chownat(found.file.fd(), c"", uid, gid, AtFlags::EMPTY_PATH)
}

fn wanted(form: Form, call: &Call) -> Wanted {
    let (first, short) = match form {
        Form::Chown(_, short) | Form::Fchown(short) => (1, short),
        _ => (2, false),
    };
    let id = |argument: u64| {
        let id = argument as u32;
        match short {
            true if id & 0xffff == 0xffff => None,
            true => Some(id & 0xffff),
            false => (id != u32::MAX).then_some(id),
        }
    };
    (id(call.args[first]), id(call.args[first + 1]))
}

/// Who may not change owners may not pretend to, either. (The kernel judges what it is asked for itself; but
/// where a stand-in is the owner already, it sees no change.)
fn require_right(caller: &Caller, found: &Found, old: &Meta, wanted: Wanted) -> Result<(), Errno> {
    let (uid, gid) = found.owner();
    let now = (old.uid.unwrap_or(uid), old.gid.unwrap_or(gid));
    let changes = wanted.0.is_some_and(|id| id != now.0) || wanted.1.is_some_and(|id| id != now.1);
    if changes && !caller.may(CHOWN) { Err(Errno::PERM) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_the_kernel_reads_them() {
        let call = |args: [u64; 6]| Call { id: 0, thread: 1, number: 0, arch: 0, args };
        let chown = |short| Form::Chown(true, short);
        assert_eq!(wanted(chown(false), &call([0, 33, 8, 0, 0, 0])), (Some(33), Some(8)));
        let high = 5 << 32;
        assert_eq!(
            wanted(chown(false), &call([0, high | 33, 0xffff_ffff, 0, 0, 0])),
            (Some(33), None)
        );
        assert_eq!(wanted(chown(true), &call([0, 0xffff, 0x1_0001, 0, 0, 0])), (None, Some(1)));
        assert_eq!(wanted(Form::Fchownat, &call([0, 0, 1, u64::MAX, 0, 0])), (Some(1), None));
    }
}
