#!/bin/bash
# soak.sh: commands killed at random moments, and their store looked at after each (tests/faults/soak.rs).
#
#   SOAK_KILLS=20000     how many kills in all, over the modes
#   SOAK_MODES="..."     the id modes to share them; default: subuid single range (a plain user: its own)
#   SOAK_SECONDS=120     how long 16 workers share one store (tests/faults/crowd.rs), with kills
#   SOAK_MINUTES=N       an end for each mode, should the kills not be done by then
#   SANDBOX_BIN=PATH     another binary than the release build
#
# The figures for docs/reliability.md are the lines that begin with `soak:`.
set -euo pipefail
# How full the disk of this machine is must not matter here.
export SANDBOX_BUDGET=off
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
PATH=$PATH:$HOME/.cargo/bin
kills=${SOAK_KILLS:-20000}
if [ "$(id -u)" = 0 ]; then
    "$here/users.sh" make
    modes=${SOAK_MODES:-subuid single range}
else
    modes=${SOAK_MODES:-own}
fi
read -ra list <<<"$modes"

stage=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-soak.XXXXXX")
sweep() { rm -rf "$@" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$@"; }
trap 'sweep "$stage"' EXIT
chmod 0755 "$stage"
mkdir "$stage/tmp"
chmod 1777 "$stage/tmp"
cp "${SANDBOX_BIN:-$("$here/build.sh")}" "$stage/sandbox"
program=$(cargo test --locked --no-run --test faults --message-format=json |
    sed -n 's/.*"executable":"\([^"]*deps\/faults-[^"]*\)".*/\1/p')
cp "$program" "$stage/faults"
chmod -R a+rX "$stage"
export SANDBOX_BIN=$stage/sandbox TMPDIR=$stage/tmp SANDBOX_TEST_CWD=$stage
export SANDBOX_SOAK_KILLS=$(((kills + ${#list[@]} - 1) / ${#list[@]})) SANDBOX_SOAK_SECONDS=${SOAK_SECONDS:-120}

[ -z "${SOAK_MINUTES:-}" ] || export SANDBOX_SOAK_MINUTES=$SOAK_MINUTES

# as MODE CMD...: CMD as the user who has this mode.
as() {
    local mode=$1
    shift
    case $mode in
    own) "$@" ;;
    subuid) SANDBOX_TEST_IDS=$mode "$here/users.sh" run sandbox-test "$@" ;;
    single) SANDBOX_TEST_IDS=$mode "$here/users.sh" run sandbox-single "$@" ;;
    *) SANDBOX_TEST_IDS=$mode "$@" ;;
    esac
}

bad=no
for mode in "${list[@]}"; do
    echo "== soak: $mode ($(uname -r), $(nproc) cores)"
    as "$mode" nice -n 19 "$stage/faults" soak:: crowd:: </dev/null || bad=yes
done
[ $bad = no ]
