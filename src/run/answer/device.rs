//! mknod of devices: an empty file stands for the node, and its record says which one it is.
//!
//! On disk a node cannot be: rootless kernels refuse it, and a layer that holds one would be a way to the
//! machine's hardware for whoever mounts it. The file can be renamed, removed and given away as the node
//! could; stat(2) tells that it is a file.

use std::ffi::CString;

use rustix::fs::{AtFlags, Mode, OFlags, XattrFlags, openat, unlinkat};
use rustix::io::Errno;

use super::caller::{Caller, field};
use super::place::{File, Found};
use super::{Handler, MKNOD};
use crate::isolate::remember::Form;
use crate::sys::notify::Call;
use crate::tree::meta::{self, Meta};
use crate::tree::owners::{Device, DeviceClass};

impl Handler<'_> {
    pub(super) fn make_device(
        &mut self,
        caller: &Caller,
        form: Form,
        call: &Call,
    ) -> Result<(), Errno> {
        let args = &call.args;
        let (dir, path, mode, number) = match form {
            Form::Mknodat => (args[0], args[1], args[2] as u32, args[3] as u32),
            _ => (libc::AT_FDCWD as u64, args[0], args[1] as u32, args[2] as u32),
        };
        let (parent, name) = split(caller.path(self, path)?)?;
        let place = self.place_of(caller, dir, parent)?;
        let status = caller.status(self)?;
        caller.still_waits(self)?;
        let umask = field(status, "Umask").next();
        let umask = umask.and_then(|text| u32::from_str_radix(text, 8).ok()).unwrap_or(0o22);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let parent = self.open(caller, &place, flags, Mode::empty())?;
        let parent = Found::new(File::Place(parent))?;
        if !caller.may(MKNOD) || !parent.is_kept(self) {
            return Err(Errno::PERM);
        }
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777 & !umask);
        let file = Found::new(File::Open(openat(parent.file.fd(), &name, flags, mode)?))?;
        let device = Some(device(mode_class(args, form), number));
        let meta = Meta { device, on: file.owner(), ..Meta::default() };
        let value = meta.to_string();
        let written = self.own(|me| {
            file.file.set(meta::NAME, value.as_bytes(), XattrFlags::empty())?;
            me.notes.note(file.inode(), &meta)
        });
        if written.is_err() {
            unlinkat(parent.file.fd(), &name, AtFlags::empty()).ok();
        }
        written
    }
}

fn mode_class(args: &[u64; 6], form: Form) -> DeviceClass {
    let mode = if form == Form::Mknodat { args[2] } else { args[1] } as u32;
    if mode & libc::S_IFMT == libc::S_IFBLK { DeviceClass::Block } else { DeviceClass::Char }
}

/// The kernel's form of a device number of 32 bits (`new_decode_dev`).
fn device(class: DeviceClass, number: u32) -> Device {
    let major = (number & 0x000f_ff00) >> 8;
    let minor = (number & 0xff) | ((number >> 12) & 0x000f_ff00);
    Device { class, major, minor }
}

/// Directory and last name of a path.
fn split(path: CString) -> Result<(CString, CString), Errno> {
    let bytes = path.as_bytes();
    if bytes.is_empty() || (bytes.ends_with(b"/") && bytes.iter().any(|byte| *byte != b'/')) {
        return Err(Errno::NOENT);
    }
    let at = bytes.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = match at {
        None => (b".".as_slice(), bytes),
        Some(at) => (&bytes[..=at], &bytes[at + 1..]),
    };
    if matches!(name, b"" | b"." | b"..") {
        return Err(Errno::EXIST);
    }
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::INVAL);
    Ok((text(parent)?, text(name)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_are_the_kernels() {
        for (major, minor) in [(1, 3), (8, 0), (259, 70_000), (4095, 1_048_575)] {
            let number = rustix::fs::makedev(major, minor) as u32;
            let found = device(DeviceClass::Block, number);
            assert_eq!((found.major, found.minor), (major, minor));
        }
    }

    #[test]
    fn paths_have_a_directory_and_a_name() {
        let split = |path: &str| {
            split(CString::new(path).expect("text")).map(|(parent, name)| {
                (parent.into_string().expect("text"), name.into_string().expect("text"))
            })
        };
        let is = |parent: &str, name: &str| Ok((parent.to_owned(), name.to_owned()));
        assert_eq!(split("/dev/null"), is("/dev/", "null"));
        assert_eq!(split("null"), is(".", "null"));
        assert_eq!(split("/null"), is("/", "null"));
        for (path, errno) in [
            ("", Errno::NOENT),
            ("x/", Errno::NOENT),
            ("/", Errno::EXIST),
            ("x/..", Errno::EXIST),
            (".", Errno::EXIST),
        ] {
            assert_eq!(split(path), Err(errno), "{path}");
        }
    }
}
