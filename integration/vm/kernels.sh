#!/bin/bash
# kernels.sh [VERSION...]: the main job on other kernels, in a virtual machine (default: 6.1 and 6.12): init
# from a tar, run, commit, list, diff, gc, as a user with sub-ids, a user without, and root; and the answer
# where users may make no user namespaces.
set -euo pipefail
. "$(dirname "$0")/common.sh"
[ $# -gt 0 ] || set -- 6.1 6.12

# way VERSION: how this kernel is to mount overlays.
way() {
    case $1 in
    6.1) echo mount ;;
    6.12) echo lowerdir+ ;;
    esac
}
# memory VERSION: whether an upper can lie in memory.
memory() {
    case $1 in
    6.1) echo refused ;;
    6.12) echo works ;;
    esac
}
# expect VERSION WORD VERDICT: what the machine said of WORD is nothing else.
expect() {
    grep -q "^$2 " "$work/said" && ! grep "^$2 " "$work/said" | grep -qv " $3\$" || {
        tell "Linux $1: $2 is not $3"
        bad=yes
    }
}
bad=no
for version; do
    use "$version"
    boot "job=kernel fs=ext4" "$(disk disk 256 ext4)"
    finished 300 && [ "$(grep -c '^WORKS ' "$work/said")" = 4 ] && ! grep -q '^BROKEN' "$work/said" || {
        tell "not everything works on Linux $version"
        bad=yes
        continue
    }
    expect "$version" OVERLAY "$(way "$version")"
    expect "$version" MEMORY "$(memory "$version")"
    echo "kernels: Linux $(cat "$kernel/release"): works, overlays by $(way "$version"), upper in memory $(memory "$version")"
    [ -z "${SANDBOX_HOSTS_TABLE:-}" ] || for mode in subuid single range; do
        printf 'Linux %s (VM)\t%s\t%s\tworks\n' "$version" "$mode" "init, run, commit, diff, gc" >>"$SANDBOX_HOSTS_TABLE"
        printf 'Linux %s (VM)\t%s\t%s\t%s\n' "$version" "$mode" "layers" "by $(way "$version")" >>"$SANDBOX_HOSTS_TABLE"
        # One of them tries it.
        [ $mode != subuid ] ||
            printf 'Linux %s (VM)\t%s\t%s\t%s\n' "$version" $mode "upper in memory" "$(memory "$version")" >>"$SANDBOX_HOSTS_TABLE"
    done
done
[ $bad = no ]
