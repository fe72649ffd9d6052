#!/bin/bash
# long.sh: the long form of the tests in virtual machines. SANDBOX_VM_CUTS (100) power cuts on ext4 and a
# quarter as many on xfs; then SANDBOX_VM_COMMITS (7) commits on each, and every state their disk may have had
# when power went; then the same tests with a call of the commit left out, which they must notice.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export SANDBOX_BIN=${SANDBOX_BIN:-$("$here/../build.sh" --static)}
cuts=${SANDBOX_VM_CUTS:-100} commits=${SANDBOX_VM_COMMITS:-7}

"$here/powercut.sh" "$cuts" ext4
"$here/powercut.sh" $((cuts / 4)) xfs
for fs in ext4 xfs; do
    "$here/flushes.sh" $fs "$commits" 2
    for call in syncfs fsync; do
        "$here/flushes.sh" $fs 2 0 $call
    done
done
