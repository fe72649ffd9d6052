#!/bin/bash
# flushes.sh ext4|xfs [COMMITS [TORN [syncfs|fsync]]]: in a virtual machine, a user commits on a file system
# whose disk logs its writes (dm-log-writes). The log is played back to every point where writes became
# durable (a flush, or a write with FUA), and TORN times a flush to a state in which any part of the writes
# before it is missing. At each, every commit and removal acknowledged before must be there, whole.
#
# With a last word, the machine only pretends to do this call of the commit, and it is an error when nothing
# is found: so it is known that the test finds what it looks for.
set -euo pipefail
. "$(dirname "$0")/common.sh"
fs=$1 commits=${2:-3} torn=${3:-1} leave_out=${4:-}

use "${SANDBOX_VM_KERNEL:-6.12}"
# What xfs wants at least, for both.
size=300
disk=$(disk disk $size "$fs")
cp --sparse=always "$disk" "$work/copy"
disks=("$disk" "$(disk log 1024)" "$work/copy" "$(disk room 256)")
boot "job=flushes fs=$fs commits=$commits torn=$torn leave_out=$leave_out" "${disks[@]}"
finished "${SANDBOX_VM_TIMEOUT:-3600}" || {
    tell "the machine did not come to an end"
    exit 1
}
read -r _ states _ bad < <(grep '^STATES ' "$work/said")
what="flushes: $fs, Linux $(cat "$kernel/release"), $commits commits"
if [ -n "$leave_out" ]; then
    [ "$bad" != 0 ] || {
        tell "$what without $leave_out: found nothing in $states states, so this test proves nothing"
        exit 1
    }
    echo "$what without $leave_out: found after $states states, as it must be:" \
        "$(grep -m 1 '^VIOLATION' "$work/said" | cut -c1-100)"
    exit
fi
[ "$bad" = 0 ] || {
    tell "$what: not everything holds in $bad of $states states"
    exit 1
}
echo "$what: $states states of the disk, 0 violations"
