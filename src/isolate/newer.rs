//! System calls that are newer than libseccomp 2.5.4, the oldest that we are built with.
//!
//! Without this table a profile would mean something else with each version of the library: a call that it
//! does not know is passed over, and gets the default verdict. Since Linux 5.1 a new call has the same
//! number on every architecture that we know.

/// Name and number, by number. The last is of Linux 7.0.
pub(super) const CALLS: &[(&str, u32)] = &[
    ("cachestat", 451),
    ("fchmodat2", 452),
    ("map_shadow_stack", 453),
    ("futex_wake", 454),
    ("futex_wait", 455),
    ("futex_requeue", 456),
    ("statmount", 457),
    ("listmount", 458),
    ("lsm_get_self_attr", 459),
    ("lsm_set_self_attr", 460),
    ("lsm_list_modules", 461),
    ("mseal", 462),
    ("setxattrat", 463),
    ("getxattrat", 464),
    ("listxattrat", 465),
    ("removexattrat", 466),
    ("open_tree_attr", 467),
    ("file_getattr", 468),
    ("file_setattr", 469),
    ("listns", 470),
    ("rseq_slice_yield", 471),
];

/// The number of a call of the table.
pub(super) fn number(name: &str) -> Option<u32> {
    CALLS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}
