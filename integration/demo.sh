#!/bin/bash
# What sandbox is for, as a terminal session: a package is tried on a snapshot, forgotten, tried again and
# kept, and the snapshot it started from is the same as before, byte for byte. Ends with non-zero when
# anything is not as it says.
#
#   SANDBOX_BIN            the binary (default: a release build)
#   SANDBOX_DEMO_DIR       where the demo's folder is made (default: $HOME); no overlayfs, no NFS
#   SANDBOX_DEMO_SOURCE    what `init` starts from (default: mmdebstrap, or the cached tar of the tests if
#                          there is one; base-tree.sh)
#   SANDBOX_DEMO_KEEP=1    leaves the folder there at the end (so do a terminal, and a failure outside CI)
set -euo pipefail
# How full the disk of this machine is must not matter here.
export SANDBOX_BUDGET=off
here=$(cd "$(dirname "$0")" && pwd)
binary=${SANDBOX_BIN:-$("$here/build.sh")}

work=$(mktemp -d "${SANDBOX_DEMO_DIR:-$HOME}/sandbox-demo.XXXXXX")
mkdir "$work/bin"
cp "$binary" "$work/bin/sandbox"
export PATH=$work/bin:$PATH SANDBOX_BASE_DIR=$work/store
# An own store and the default box, whatever the caller has set.
unset SANDBOX_BOX
mkdir -m 0700 "$SANDBOX_BASE_DIR"
cd "$work"
echo "demo: in $work"

remove() {
    # Files of sub-ids go only from inside a user namespace that has them.
    rm -rf "$work" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$work" 2>/dev/null ||
        unshare --map-root-user rm -rf "$work"
}
finish() {
    local code=$?
    cd /
    if [ $code != 0 ] && [ "${CI:-}" != true ]; then
        echo "demo: failed; what is left is in $work" >&2
    elif [ $code = 0 ] && { [ -n "${SANDBOX_DEMO_KEEP:-}" ] || [ -t 1 ]; }; then
        printf '\nThe store stays in %s. To remove it:\n    %s\n' "$work" \
            "rm -rf $work 2>/dev/null || unshare --map-root-user --map-auto rm -rf $work"
    else
        remove
    fi
}
trap finish EXIT

bold='' plain=''
[ ! -t 1 ] || bold=$(printf '\033[1m') plain=$(printf '\033[0m')
title() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
# show LINE: prints a command line as a terminal shows it and runs it.
show() {
    printf '%s$ %s%s\n' "$bold" "$1" "$plain"
    eval "$1"
}
# wrong LINE: the same for a command that has to fail.
wrong() {
    if show "$1"; then
        echo "demo: this should have failed" >&2
        exit 1
    fi
    echo "(it failed, as it should)"
}
# expect WHAT PATTERN TEXT: TEXT has a line that matches.
expect() {
    grep -Eq "$2" <<<"$3" || {
        printf 'demo: expected %s (%s) in:\n%s\n' "$1" "$2" "$3" >&2
        exit 1
    }
}

# Every path but the mounts of a run, with type, mode, owners, size, time, link target and content.
fingerprint='skip="( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /etc/hostname -o -path /etc/hosts -o -path /etc/resolv.conf ) -prune -o"; set -f
{ find / -xdev -mindepth 1 $skip -printf "%p %y %m %U %G %s %T@ %l\n"; find / -xdev $skip -type f -exec sha256sum {} +; } | LC_ALL=C sort | sha256sum'

if [ -z "${SANDBOX_DEMO_SOURCE:-}" ]; then
    cached=$("$here/base-tree.sh" --cached)
    suite=$(. /etc/os-release && [ "$ID" = debian ] && echo "${VERSION_CODENAME:-}" || true)
    SANDBOX_DEMO_SOURCE=${cached:+tar:$cached}
    SANDBOX_DEMO_SOURCE=${SANDBOX_DEMO_SOURCE:-mmdebstrap:${suite:-bookworm}?include=rpm}
fi

title "A package with files of several users, a setgid program and a script that changes owners"
cat >demo.spec <<'SPEC'
Name: demo
Version: 1.0
Release: 1
Summary: Files of several owners
License: MIT
BuildArch: noarch
AutoReqProv: no

%description
Files of several owners, a setgid program, and a script that changes owners.

%install
mkdir -p %{buildroot}/usr/bin %{buildroot}/etc/demo %{buildroot}/var/lib/demo
printf '#!/bin/sh\necho demo 1.0\n' > %{buildroot}/usr/bin/demo
echo 'games = yes' > %{buildroot}/etc/demo/scores.conf
echo state > %{buildroot}/var/lib/demo/state

%files
%attr(2755, root, mail) /usr/bin/demo
%dir %attr(0755, root, root) /etc/demo
%config %attr(0644, daemon, games) /etc/demo/scores.conf
%dir %attr(0755, root, root) /var/lib/demo
%attr(0640, root, root) /var/lib/demo/state

%post
chown -R www-data:www-data /var/lib/demo
SPEC
show 'rpmbuild --quiet -bb --define "_topdir $PWD/rpm" --define "_rpmdir $PWD" --define "_build_name_fmt demo.rpm" demo.spec'
show "rpm -qplv demo.rpm"

title "A box with a Debian tree that has rpm, from ${SANDBOX_DEMO_SOURCE%%:*}; init takes the snapshot postinit"
show "sandbox init --from '$SANDBOX_DEMO_SOURCE'"
mode=$(sandbox show postinit --json | sed -n 's/.*"mode": *"\([a-z]*\)".*/\1/p' | head -n 1)
echo "ids: ${mode:-unknown}"

title "What postinit is, before"
show "sandbox run --from postinit -- sh -c \"\$fingerprint\" | tee before"

title "Try the package on postinit: it installs, and nothing is kept"
show "sandbox run --from postinit --bind demo.rpm:/demo.rpm:ro -- rpm -i --nodeps /demo.rpm"
wrong "sandbox run --from postinit -- rpm -q demo"

title "Again, and keep what it changed as the snapshot devel"
show "sandbox run --from postinit --commit devel --bind demo.rpm:/demo.rpm:ro -- rpm -i --nodeps /demo.rpm"
show "sandbox run --from devel -- rpm -q demo" | tee out
expect "the package" '^demo-1.0-1.noarch$' "$(cat out)"
show "sandbox run --from devel -- demo"

title "Owners and modes inside"
show "sandbox run --from devel -- ls -ldn /usr/bin/demo /etc/demo/scores.conf /var/lib/demo /var/lib/demo/state" | tee out
inside=$(cat out)
expect "the setgid bit" '^-rwxr-sr-x.* /usr/bin/demo$' "$inside"
if [ "$mode" = single ]; then
    echo "(one id only: the owners that were asked for are remembered with the layer; files show 0)"
else
    expect "root and mail" '^-rwxr-sr-x +1 +0 +8 .* /usr/bin/demo$' "$inside"
    expect "daemon and games" '^-rw-r--r-- +1 +1 +60 .* /etc/demo/scores.conf$' "$inside"
    expect "www-data" '^-rw-r----- +1 +33 +33 .* /var/lib/demo/state$' "$inside"
fi

title "The same files outside, in the layer: ids of $(id -un)'s own, nobody else's"
layer=$(sandbox show devel --json | sed -n 's/.*"layer": *"\([^"]*\)".*/\1/p' | head -n 1)
show "(cd store/layers/$layer/fs && ls -ldn usr/bin/demo etc/demo/scores.conf var/lib/demo)"

title "What devel changed, and what there is"
show "sandbox diff devel" | tee out
expect "the new program" 'usr/bin/demo' "$(cat out)"
show "sandbox list" | tee out
expect "both snapshots" 'devel' "$(cat out)"
expect "both snapshots" 'postinit' "$(cat out)"

title "postinit, after: the same, byte for byte"
show "sandbox run --from postinit -- sh -c \"\$fingerprint\" | tee after"
show "cmp before after && echo unchanged"

title "To look around in devel: a shell that leaves no trace"
echo "    $work/bin/sandbox --base-dir $SANDBOX_BASE_DIR shell --from devel"
printf '\ndemo: all as it should be (%s, ids: %s)\n' "$(id -un)" "${mode:-unknown}"
