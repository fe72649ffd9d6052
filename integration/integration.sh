#!/bin/bash
# integration.sh: what needs minutes, real package managers or several users. Root does it as root and as
# both test users; anybody else as the one who calls.
set -euo pipefail
# How full the disk of this machine is must not matter here.
export SANDBOX_BUDGET=off
here=$(cd "$(dirname "$0")" && pwd)
binary=${SANDBOX_BIN:-$("$here/build.sh")}

# A copy that the test users can read, wherever the checkout lies.
stage=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-integration.XXXXXX")
trap 'rm -rf "$stage"; [ -z "${beside:-}" ] || kill "$beside" 2>/dev/null || :' EXIT
chmod 0755 "$stage"
cp "$binary" "$stage/sandbox"
cp "$here"/*.sh "$stage/"
chmod -R a+rX "$stage"
"$here/base-tree.sh" "$stage/tree.tar" >/dev/null
"$here/managers.sh" --tree "$stage/managers.tar" >/dev/null
export SANDBOX_TEST_MANAGERS=$stage/managers.tar
export SANDBOX_BIN=$stage/sandbox SANDBOX_TEST_TREE=$stage/tree.tar SANDBOX_DEMO_SOURCE=tar:$stage/tree.tar

# What was tried where, for all users to write (hosts.sh).
export SANDBOX_HOSTS_TABLE=$stage/hosts
: >"$SANDBOX_HOSTS_TABLE"
chmod 0666 "$SANDBOX_HOSTS_TABLE"

summary=() bad=no
# step NAME CMD...
step() {
    local name=$1 start=$SECONDS verdict=ok
    shift
    echo "==== $name"
    "$@" </dev/null || verdict=FAILED bad=yes
    summary+=("$(printf '%-28s %s, %ds' "$name" "$verdict" $((SECONDS - start)))")
}

# Short forms of what `make powercut` does at length, and other machines; as whoever calls, for none of it needs rights. A
# machine keeps one processor busy and has nothing to do with all the rest, so it goes beside that.
machines() {
    summary=() bad=no
    export SANDBOX_HOSTS_TABLE=$stage/hosts-machines
    : >"$SANDBOX_HOSTS_TABLE"
    step "other kernels" "$here/vm/kernels.sh"
    step "places that are none" "$here/vm/places.sh"
    step "Docker, where it may all" "$here/vm/docker.sh"
    step "limits by cgroups" "$here/vm/cgroups.sh"
    step "power cuts" "$here/vm/powercut.sh" 4
    step "flushes on ext4" "$here/vm/flushes.sh" ext4 1 0
    step "flushes on xfs" "$here/vm/flushes.sh" xfs 1 0
    step "flushes, without syncfs" "$here/vm/flushes.sh" ext4 1 0 syncfs
    printf '%s\n' "${summary[@]}" >"$stage/machines"
    [ $bad = no ]
}
beside=
if [ "$(uname -m)" = x86_64 ]; then
    machines >"$stage/machines.log" 2>&1 &
    beside=$!
fi

if [ "$(id -u)" = 0 ]; then
    "$here/users.sh" make
    for user in sandbox-test sandbox-single; do
        step "demo as $user" "$here/users.sh" run "$user" "$stage/demo.sh"
        step "packages as $user" "$here/users.sh" run "$user" "$stage/packages.sh"
        step "managers as $user" "$here/users.sh" run "$user" "$stage/managers.sh"
    done
fi
step "demo as $(id -un)" "$stage/demo.sh"
step "packages as $(id -un)" "$stage/packages.sh"
step "managers as $(id -un)" "$stage/managers.sh"

step "installed" "$here/installed.sh"
step "fuzz" "$here/fuzz.sh"

# Inside containers: an engine is started, which takes root.
if [ "$(id -u)" = 0 ]; then
    step "file systems" "$here/filesystems.sh"
    step "in Docker and podman" "$here/docker.sh"
else
    summary+=("file systems, containers     not run: needs root")
fi

if [ -n "$beside" ]; then
    wait "$beside" || bad=yes
    cat "$stage/machines.log"
    cat "$stage/hosts-machines" >>"$SANDBOX_HOSTS_TABLE"
    mapfile -t -O ${#summary[@]} summary <"$stage/machines"
else
    summary+=("virtual machines             not run: on x86-64 only")
fi

mkdir -p "$here/../target"
"$here/hosts.sh" "$SANDBOX_HOSTS_TABLE" >"$here/../target/hosts.md"
printf '\n==== integration (target/hosts.md is what docs/hosts.md should say)\n'
printf '%s\n' "${summary[@]}"
[ $bad = no ]
