#!/bin/bash
# places.sh: what is said, in a virtual machine, where a store cannot lie (9p, NFS) and where the kernel or its owner
# keeps user namespaces, overlays or ids from users: exit code, reason and remedy, and nothing is left.
set -euo pipefail
. "$(dirname "$0")/common.sh"
version=6.12-amd64
use $version
mkdir "$work/share"
also=(-fsdev "local,id=share,path=$work/share,security_model=mapped-xattr" -device virtio-9p-pci,fsdev=share,mount_tag=share)
boot "job=places fs=ext4" "$(disk disk 256 ext4)"
finished 600 && ! grep -q '^BROKEN' "$work/said" || {
    tell "not all is refused as it should be"
    exit 1
}
row() { [ -z "${SANDBOX_HOSTS_TABLE:-}" ] || printf '%s\t%s\t%s\t%s\n' "$@" >>"$SANDBOX_HOSTS_TABLE"; }
# refused KEY: the machine said that it is.
refused() {
    grep -qx "REFUSED $1" "$work/said" || {
        tell "$1: is not refused"
        exit 1
    }
    echo "places: $1: refused, with the remedy"
}
for kind in 9p NFS; do
    refused $kind
    row "base_dir on $kind (VM)" - "init, doctor" "exit 6, and the reason"
    row "base_dir on $kind (VM)" - run "exit 125, and the reason"
done
for lack in max_user_namespaces=0 unprivileged_userns_clone=0 'no overlayfs'; do
    refused "$lack"
    # Without overlayfs no box is filled there.
    what='init, doctor'
    [ "$lack" != 'no overlayfs' ] || what=doctor
    row "Linux ${version%-*} (VM), $lack" - "$what" "exit 6, and the remedy"
    row "Linux ${version%-*} (VM), $lack" - run "exit 125, and the remedy"
done
for lack in 'no newuidmap' 'newgidmap not setuid' 'no sub-ids'; do
    refused "$lack"
    row "Linux ${version%-*} (VM), $lack" subuid run "exit 125, and the remedy"
    row "Linux ${version%-*} (VM), $lack" single "init, run, --as-user, commit" works
done
