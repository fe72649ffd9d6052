#!/bin/bash
# powercut.sh [CUTS [ext4|xfs]]: a virtual machine commits as a plain user and is killed at a random moment,
# as often as CUTS says (default 5). After each cut it starts from the same disk again, and everything that it
# had acknowledged must be there, whole; what it had not must be there whole or not at all; of the runs that were
# cut in the midst none has the record of another; gc and the next commit must work. Then it goes on, and is cut again.
#
# qemu is killed, so what the guest had only in memory is lost, but not what it had written without a flush:
# that is for flushes.sh. SANDBOX_VM_SEED=N repeats a sequence of moments.
set -euo pipefail
. "$(dirname "$0")/common.sh"
cuts=${1:-5} fs=${2:-ext4}
seed=${SANDBOX_VM_SEED:-$RANDOM}
RANDOM=$seed
# The longest time in milliseconds between an acknowledgement and the cut.
most=${SANDBOX_VM_MOST:-800}

use "${SANDBOX_VM_KERNEL:-6.12}"
disk=$(disk disk 512 "$fs")
# What the machine has acknowledged: the last commit (-: not even `init`), removal and kept run.
state=- gone=0 head=- commits=0 found=0
note() {
    local said
    # A line that was cut short says nothing.
    [ -z "$(tail -c 1 "$work/said")" ] || sed -i '$d' "$work/said"
    if grep -q '^INIT$' "$work/said" && [ "$state" = - ]; then state=0; fi
    said=$(sed -n 's/^COMMIT \([0-9]*\)$/\1/p' "$work/said" | tail -n 1)
    state=${said:-$state}
    said=$(sed -n 's/^GONE \([0-9]*\)$/\1/p' "$work/said" | tail -n 1)
    gone=${said:-$gone}
    said=$(sed -n 's/^HEAD \([0-9]*\)$/\1/p' "$work/said" | tail -n 1)
    head=${said:-$head}
    said=$(sed -n 's/^FOUND \([0-9]*\)$/\1/p' "$work/said" | tail -n 1)
    found=$((found + ${said:-0}))
    commits=$((commits + $(grep -Ec '^(COMMIT|HEAD) ' "$work/said" || true)))
}
# look CUT: starts from the disk as it is, until everything was checked.
look() {
    boot "job=cuts fs=$fs state=$state gone=$gone head=$head cut=$1" "$disk" && until_said '^CHECKED 0$' 300 || {
        tell "after $done_cuts cuts (seed $seed, acknowledged: $state, removed: $gone, head: $head) not everything holds"
        exit 1
    }
}

done_cuts=0
while [ $done_cuts -lt "$cuts" ]; do
    look yes
    # So many commands, and then somewhere in the next: however busy this machine is, it is never always
    # the first that is cut.
    after=$((RANDOM % 8)) moment=$((RANDOM % most))
    until_said_so_often '^(COMMIT|GONE|HEAD|GC)' $after 300 || true
    sleep "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))"
    kill -0 "$machine" 2>/dev/null && ! grep -q '^FAILED' "$work/said" || {
        tell "the machine ended by itself (seed $seed)"
        exit 1
    }
    stop
    note
    done_cuts=$((done_cuts + 1))
    [ $((done_cuts % 10)) != 0 ] || echo "powercut: $done_cuts cuts, $commits commits" >&2
done
look no
finished 120 || {
    tell "after $done_cuts cuts (seed $seed) the machine does not go on"
    exit 1
}
note
echo "powercut: $fs, Linux $(cat "$kernel/release"): $done_cuts cuts (seed $seed), $commits acknowledged commits, $found runs cut in the midst, 0 violations"
