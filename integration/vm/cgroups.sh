#!/bin/bash
# cgroups.sh [VERSION]: limits by cgroups on a pure v2 hierarchy, in a virtual machine (default: 6.12): as root, as a
# user with a delegated subtree, as one whose own cgroup is delegated, and as one without; runs that are joined, and
# what a killed supervisor leaves.
set -euo pipefail
. "$(dirname "$0")/common.sh"
use "${1:-${SANDBOX_VM_KERNEL:-6.12}}"
boot "job=cgroups fs=ext4 cgroup_no_v1=all" "$(disk disk 256 ext4)"
finished 300 && [ "$(grep -c '^WORKS ' "$work/said")" = 8 ] && ! grep -q '^BROKEN' "$work/said" || {
    tell "limits by cgroups do not hold"
    exit 1
}
echo "cgroups: Linux $(cat "$kernel/release"): limits hold, nothing is left"
