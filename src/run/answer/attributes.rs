//! setxattr and its kin, where there is one id only.
//!
//! They are all asked about, because the kernel's filter cannot read a name. What is not an access control list
//! is done as it stands, with the caller's capabilities.

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::caller::Caller;
use super::place::File;
use super::{CHOWN, Handler};
use crate::ids::IdMap;
use crate::isolate::remember::Form;
use crate::sys::notify::Call;
use crate::tree::meta::{self, Meta};

/// XATTR_NAME_MAX and XATTR_SIZE_MAX.
const LONGEST_NAME: usize = 255;
const LARGEST: u64 = 64 << 10;

impl Handler<'_> {
    pub(super) fn set_attribute(
        &mut self,
        caller: &Caller,
        form: Form,
        call: &Call,
    ) -> Result<(), Errno> {
        let args = &call.args;
        let name = match caller.string(self, args[1], LONGEST_NAME + 1) {
            Err(Errno::NAMETOOLONG) => return Err(Errno::RANGE),
            other => other?,
        };
        if name.is_empty() || name.as_bytes().len() > LONGEST_NAME {
            return Err(Errno::RANGE);
        }
        if args[3] > LARGEST {
            return Err(Errno::TOOBIG);
        }
        let value = caller.bytes(self, args[2], args[3] as usize)?;
        let file = self.attributed(caller, form, call)?;
        let list = name.as_bytes().starts_with(b"system.posix_acl_");
        if list && names_others(&value, self.map) {
            return Ok(());
        }
        // What programs copy with a file is its owner. Whoever writes it says what chown(2) would say.
        if name.as_c_str() == meta::NAME && !(caller.may(CHOWN) && Meta::parse(&value).is_some()) {
            return Err(Errno::PERM);
        }
        let flags = XattrFlags::from_bits_retain(args[4] as u32);
        file.set(&name, &value, flags)
    }

    fn attributed(&self, caller: &Caller, form: Form, call: &Call) -> Result<File, Errno> {
        let Form::Setxattr(follow) = form else {
            return self.open_file(caller, call.args[0] as i32);
        };
        let place = self.place(caller, libc::AT_FDCWD as u64, call.args[0])?;
        caller.still_waits(self)?;
        self.find(caller, &place, follow).map(File::Place)
    }
}

/// Whether an access control list in the kernel's form (posix_acl_xattr.h: a version, then entries of tag,
/// permissions and id) names a user or group that the map does not hold.
fn names_others(value: &[u8], map: &IdMap) -> bool {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let Some(entries) = value.get(4..) else { return false };
    entries.chunks_exact(8).any(|entry| {
        let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
        match u16::from_le_bytes([entry[0], entry[1]]) {
            USER => !map.holds_uid(id),
            GROUP => !map.holds_gid(id),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Extent, IdMap, Mode};

    #[test]
    fn lists_that_name_others_are_told_apart() {
        let ids = vec![Extent { inside: 0, outside: 1000, count: 1 }];
        let map = IdMap::new(Mode::Single, ids.clone(), ids).expect("valid");
        let list = |entries: &[(u16, u32)]| {
            let mut value = 2_u32.to_le_bytes().to_vec();
            for (tag, id) in entries {
                value.extend(tag.to_le_bytes());
                value.extend(7_u16.to_le_bytes());
                value.extend(id.to_le_bytes());
            }
            value
        };
        let unset = u32::MAX;
        assert!(!names_others(&list(&[(1, unset), (4, unset), (0x20, unset)]), &map));
        assert!(!names_others(&list(&[(2, 0), (8, 0)]), &map));
        assert!(names_others(&list(&[(1, unset), (2, 33)]), &map));
        assert!(names_others(&list(&[(8, 4)]), &map));
        assert!(!names_others(b"\x02", &map));
    }
}
