//! What is thrown away goes by itself, whoever owns it and however it is closed.

use std::process::Stdio;

use crate::Case;
use crate::watch::{self, until};
use crate::world::{Place, ids, soak};

pub(crate) const CASES: &[Case] =
    &[("many_files", many_files), ("closed_and_foreign", closed_and_foreign)];

/// Nobody asks for it, and the run does not wait for it: its output ends with the command.
fn many_files() {
    let place = Place::new();
    let line =
        format!("mkdir /d && cd /d && seq {} | while read -r n; do : >$n; done", 10_000 * soak());
    place.line(&[], &line).code(0);
    until("the trash is emptied", || {
        watch::names(&place.base.join("trash")).is_empty().then_some(())
    });
    assert_eq!(watch::names(&place.base.join("runs")), Vec::<String>::new());
    // A reader of its output sees the end, though the remover still works.
    let mut command = place.command(["run", "--", "sh", "-c", &line]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start");
    assert!(child.wait_with_output().expect("wait").status.success());
    place.pristine();
    let waited = place.said(&["--wait-trash", "run", "--", "sh", "-c", &line]).code(0);
    assert_eq!(watch::names(&place.base.join("trash")), Vec::<String>::new(), "{waited:?}");
    place.pristine();
}

fn closed_and_foreign() {
    let place = Place::new();
    let owners = if ids() == "single" { "true" } else { "chown -R 1234:4321 /a" };
    let line = format!(
        "mkdir -p /a/b/c /a/none && echo x >/a/b/c/file && echo y >/a/none/file && {owners} \
         && chmod 0 /a/b/c/file /a/b/c /a/b /a/none /a && rm /etc/group && chmod 0555 / && chmod 0 /etc"
    );
    place.line(&[], &line).code(0);
    until("the trash is emptied", || {
        watch::names(&place.base.join("trash")).is_empty().then_some(())
    });
    place.pristine();
    // The same as a layer, from which the next one starts, and then neither is wanted.
    place.line(&["--commit", "closed"], &line).code(0);
    place
        .line(&["--from", "closed", "--commit", "next"], "chmod 755 /a && echo z >/a/none/file")
        .code(0);
    place.pristine();
    place.said(&["rm", "closed"]).code(0);
    place.said(&["rm", "next"]).code(0);
    place.pristine();
}
