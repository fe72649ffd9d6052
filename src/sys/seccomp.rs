//! seccomp(2).

use rustix::io::Errno;

use super::process::last_errno;

/// The size of struct sock_filter.
const INSTRUCTION: usize = 8;

/// Installs a filter for this thread and all it will execute. `program` is an array of struct
/// sock_filter as bytes, in this machine's byte order. Allocates nothing.
///
/// The caller has set no_new_privs (or has CAP_SYS_ADMIN in its user namespace). Speculation stays as it
/// is: the mitigation that kernels before 5.16 force on filtered tasks slows interpreters to half.
///
/// # Errors
/// EINVAL for a program that is empty, torn or not valid; EACCES without no_new_privs; ENOMEM.
pub fn load(program: &[u8]) -> Result<(), Errno> {
    let fprog = program_of(program)?;
    match set_filter(libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW, &fprog) {
        // Kernels before 4.17 do not know the flag.
        Err(Errno::INVAL) => set_filter(0, &fprog),
        other => other,
    }
}

/// The program as the kernel takes it; it points into `program`.
pub(super) fn program_of(program: &[u8]) -> Result<libc::sock_fprog, Errno> {
    let (count, rest) = (program.len() / INSTRUCTION, program.len() % INSTRUCTION);
    let count = u16::try_from(count).map_err(|_| Errno::INVAL)?;
    if count == 0 || rest != 0 {
        return Err(Errno::INVAL);
    }
    Ok(libc::sock_fprog { len: count, filter: program.as_ptr().cast_mut().cast() })
}

fn set_filter(flags: libc::c_ulong, fprog: &libc::sock_fprog) -> Result<(), Errno> {
    // SAFETY: the kernel reads one sock_fprog and `len` instructions of 8 bytes each behind `filter`; the
    // caller made `len` from the length of a slice that lives through the call. The kernel copies them
    // as bytes, so no alignment is needed, writes nothing, and checks the program itself.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER as libc::c_ulong,
            flags,
            std::ptr::from_ref(fprog),
        )
    };
    if answer == 0 { Ok(()) } else { Err(last_errno()) }
}
