//! What every command does at its end: see that the trash is being emptied.

use super::args::Common;
use crate::ops;
use crate::store::Store;

/// Starts a remover if there is trash that nobody empties, or empties it here with `--wait-trash`. A
/// failure changes nothing of what the command did: it is said when more was asked for.
pub(super) fn tidy(store: &Store, common: &Common) {
    if let Err(fault) = ops::trash::tidy(store, common.wait_trash) {
        common.verbose(|| format!("sandbox: empty the trash: {fault}"));
    }
}
