#!/bin/bash
# cgroups.sh [VERSION]: limits by cgroups on a pure v2 hierarchy, in a virtual machine (default: 6.12): as root, as a
# user with a delegated subtree, as one whose own cgroup is delegated, and as one without; runs that are joined, and
# what a killed supervisor leaves.
set -euo pipefail
. "$(dirname "$0")/common.sh"
version=${1:-${SANDBOX_VM_KERNEL:-6.12}}
use "$version"
boot "job=cgroups fs=ext4 cgroup_no_v1=all" "$(disk disk 256 ext4)"
finished 300 && [ "$(grep -c '^WORKS ' "$work/said")" = 8 ] && ! grep -q '^BROKEN' "$work/said" || {
    tell "limits by cgroups do not hold"
    exit 1
}
# row WHOSE MODE WHAT RESULT
row() {
    [ -z "${SANDBOX_HOSTS_TABLE:-}" ] ||
        printf 'Linux %s (VM), cgroup v2, %s\t%s\t%s\t%s\n' "${version%-*}" "$@" >>"$SANDBOX_HOSTS_TABLE"
}
limits='--memory, --pids, --cpus'
row "all of it" range "$limits" works
row "a subtree of one's own" subuid "$limits" works
row "a subtree of one's own" subuid "exec, within the limits of the run" works
row "alone in one's own" single "$limits" works
row "none of one's own" subuid "$limits" "not enforced, and reported"
row "none of one's own" subuid "strict" refused
row "none of one's own" subuid "exec, into limits" "exit 125, and the reason"
echo "cgroups: Linux $(cat "$kernel/release"): limits hold, nothing is left"
