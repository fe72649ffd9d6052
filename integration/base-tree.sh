#!/bin/sh
# base-tree.sh [OUT | --cached]: a small Debian tree with rpm as a tar, made once and then kept.
#
# Prints the path of the tar; with OUT puts it there too, readable by everybody (a hard link where
# possible); with --cached prints nothing unless it is there already. It lies outside the checkout, in
# ${SANDBOX_TEST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/sandbox-test}, under a name that changes with what
# goes into it. SANDBOX_TEST_SUITE names another Debian release, SANDBOX_TEST_INCLUDE other packages (a,b),
# SANDBOX_TEST_TREE a tar of your own that stands for all this.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

# The release of this machine when it is Debian: its keyring surely knows it.
if [ -z "${SANDBOX_TEST_SUITE:-}" ]; then
    SANDBOX_TEST_SUITE=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}" || true)
    SANDBOX_TEST_SUITE=${SANDBOX_TEST_SUITE:-bookworm}
fi
suite=$SANDBOX_TEST_SUITE
# What is in it besides the essential packages.
include=${SANDBOX_TEST_INCLUDE:-rpm}

cache=${SANDBOX_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-test}
mkdir -p "$cache"
key=$(printf '%s\n' "$suite" "$include" minbase "$(mmdebstrap --version)" | sha256sum | cut -c1-12)
tar=${SANDBOX_TEST_TREE:-$cache/debian-$suite-$key.tar}

if [ "${1:-}" = --cached ]; then
    [ ! -s "$tar" ] || echo "$tar"
    exit 0
fi

# Root makes it as the test user, the way users make theirs; where users cannot (a container without user
# namespaces), as root.
bootstrap() {
    mode=unshare
    if [ "$(id -u)" = 0 ]; then
        "$here/users.sh" make
        if "$here/users.sh" run sandbox-test unshare --user --map-root-user true 2>/dev/null; then
            set -- "$here/users.sh" run sandbox-test mmdebstrap "$@"
        else
            mode=root
            set -- mmdebstrap "$@"
        fi
    elif grep -qs "^$(id -un):" /etc/subuid && grep -qs "^$(id -un):" /etc/subgid; then
        set -- mmdebstrap "$@"
    else
        echo "base-tree: $(id -un) has no ids to make a Debian tree with. Either, as root:" >&2
        echo "    usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $(id -un)" >&2
        echo "or bring a tar of one that has rpm: SANDBOX_TEST_TREE=FILE" >&2
        exit 1
    fi
    "$@" --mode=$mode --aptopt='Apt::Install-Recommends "false"' --format=tar "$suite" -
}

# One at a time: two runs at once would fetch the same packages twice.
exec 9>"$cache/lock"
flock 9
if [ ! -s "$tar" ]; then
    if [ -n "${SANDBOX_TEST_TREE:-}" ]; then
        echo "base-tree: SANDBOX_TEST_TREE: no such file: $tar" >&2
        exit 1
    fi
    echo "base-tree: making Debian $suite with $include (a minute or two)" >&2
    new=$tar.new
    trap 'rm -f "$new"' EXIT
    bootstrap --quiet --variant=minbase --include="$include" >"$new"
    chmod 0644 "$new"
    mv "$new" "$tar"
fi
exec 9>&-

if [ $# -gt 0 ]; then
    # A link only to our own: a tar that was brought along keeps its mode.
    { [ -z "${SANDBOX_TEST_TREE:-}" ] && ln -f "$tar" "$1" 2>/dev/null; } || {
        cp --reflink=auto "$tar" "$1" && chmod 0644 "$1"
    }
fi
echo "$tar"
