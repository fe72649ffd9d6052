#!/bin/bash
# Real package managers inside: what they do on a snapshot is what they do on a machine.
#
#   SANDBOX_BIN   the binary          SANDBOX_TEST_TREE   a Debian tree with rpm (base-tree.sh)
set -euo pipefail
# How full the disk of this machine is must not matter here.
export SANDBOX_BUDGET=off
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d "${SANDBOX_DEMO_DIR:-$HOME}/sandbox-packages.XXXXXX")
cp "${SANDBOX_BIN:-$("$here/build.sh")}" "$work/sandbox"
tree=$("$here/base-tree.sh")
export SANDBOX_BASE_DIR=$work/store
unset SANDBOX_BOX
cd "$work"
trap 'cd / && { rm -rf "$work" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$work"; }' EXIT

fail() {
    echo "packages: $*" >&2
    exit 1
}
inside() { ./sandbox run "$@" </dev/null; }
# is WHAT EXPECTED COMMAND...: the command's last line inside.
is() {
    local what=$1 expected=$2 got
    shift 2
    got=$(inside "$@" | tail -n 1)
    [ "$got" = "$expected" ] || fail "$what: expected '$expected', got '$got'"
    echo "ok: $what"
}

./sandbox init --from "tar:$tree"
# With one id only, files show 0 whoever owns them: rpm's own check of owners cannot hold there.
owners=''
! ./sandbox show postinit --json | grep -q '"mode": *"single"' || owners='--nouser --nogroup'

echo "== dpkg: install, upgrade with a changed configuration file and a file that becomes a directory, purge"
# deb VERSION: a package with an owner of its own, a configuration file and maintainer scripts.
deb() {
    rm -rf pkg
    mkdir -p pkg/DEBIAN pkg/usr/bin pkg/etc pkg/usr/share/probe
    printf 'Package: probe\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: probe\n' "$1" >pkg/DEBIAN/control
    echo /etc/probe.conf >pkg/DEBIAN/conffiles
    printf '#!/bin/sh\nset -e\nmkdir -p /var/lib/probe\nchown www-data:games /var/lib/probe\nchmod 2770 /var/lib/probe\n' >pkg/DEBIAN/postinst
    chmod 0755 pkg/DEBIAN/postinst
    echo "version = $1" >pkg/etc/probe.conf
    printf '#!/bin/sh\necho probe %s\n' "$1" >pkg/usr/bin/probe
    chmod 0755 pkg/usr/bin/probe
    # Type changes: from 1 to 2 a file becomes a directory, from 2 to 3 the directory becomes a file.
    case $1 in
    2) mkdir pkg/usr/share/probe/data && echo two >pkg/usr/share/probe/data/file ;;
    *) echo "$1" >pkg/usr/share/probe/data ;;
    esac
    dpkg-deb --root-owner-group -b pkg "probe_$1.deb" >/dev/null
}
deb 1
deb 2
deb 3
inside --commit deb1 --bind probe_1.deb:/probe.deb:ro -- dpkg -i /probe.deb
is "version 1 runs" "probe 1" --from deb1 -- probe
inside --from deb1 --commit deb2 --bind probe_2.deb:/probe.deb:ro -- dpkg -i --force-confnew /probe.deb
is "version 2 runs" "probe 2" --from deb2 -- probe
is "a file became a directory" two --from deb2 -- cat /usr/share/probe/data/file
is "the upgrade left version 1 alone" 1 --from deb1 -- cat /usr/share/probe/data
is "dpkg knows it" "install ok installed 2" --from deb2 -- dpkg-query -W -f '${Status} ${Version}\n' probe
# overlayfs cannot rename a directory of a lower layer (EXDEV), and dpkg, unlike mv, does not copy instead.
if inside --from deb2 --commit deb3 --bind probe_3.deb:/probe.deb:ro -- dpkg -i --force-confnew /probe.deb; then
    fail "dpkg put a file in place of a directory of a lower layer: a limit has gone, say so in the docs"
fi
is "a failed upgrade leaves version 2 alone" two --from deb2 -- cat /usr/share/probe/data/file
inside --from deb2 --commit purged -- dpkg --purge probe
is "purged" gone --from purged -- sh -c 'test ! -e /etc/probe.conf && test ! -e /usr/bin/probe && echo gone'
is "dpkg is sound" sound --from purged -- sh -c 'dpkg --audit && echo sound'

echo "== rpmbuild, rpm: build, install, erase, and the database of an unchanged run"
cat >probe.spec <<'SPEC'
Name: probe
Version: 3
Release: 1
Summary: probe
License: MIT
BuildArch: noarch
AutoReqProv: no
%description
probe
%install
mkdir -p %{buildroot}/srv/probe
echo three > %{buildroot}/srv/probe/file
%files
%attr(0640, daemon, games) /srv/probe/file
SPEC
inside --commit built --bind probe.spec:/probe.spec:ro -- \
    rpmbuild --quiet -bb --define '_topdir /srv/rpm' /probe.spec
inside --from built --commit rpm -- rpm -i --nodeps /srv/rpm/RPMS/noarch/probe-3-1.noarch.rpm
is "rpm knows it" probe-3-1.noarch --from rpm -- rpm -q probe
is "rpm verifies it" verified --from rpm -- sh -c "rpm -V --nodeps $owners probe && echo verified"
inside --from rpm --commit erased -- rpm -e probe
is "erased" gone --from erased -- sh -c 'test ! -e /srv/probe/file && ! rpm -q probe >/dev/null && echo gone'

echo "== rpm: a query makes no layer, with every database that this rpm can write"
for backend in sqlite ndb; do
    rpm="rpm --dbpath /var/lib/rpm --define '_db_backend $backend'"
    # Not through a pipe: grep -q ends at the first match, and what still writes into it fails.
    said=$(inside --from built -- sh -c "rm -rf /var/lib/rpm/* && $rpm --initdb" 2>&1) || true
    if [[ $said == *'invalid %_db_backend'* ]]; then
        echo "not run: the rpm of this tree has no $backend (SANDBOX_TEST_SUITE=trixie has)"
        continue
    fi
    inside --from built --commit "in-$backend" -- sh -c "rm -rf /var/lib/rpm/* && $rpm -i --nodeps /srv/rpm/RPMS/noarch/*.rpm"
    for flag in mapped always never; do
        told=$(inside --from "in-$backend" --touch-rpmdb=$flag --commit "asked-$backend-$flag" -- \
            sh -c "$rpm -qa && $rpm -Va --nouser --nogroup && $rpm -qi probe" 2>&1)
        case $told in
        *"nothing changed, no layer was made"*) ;;
        *) fail "$backend, $flag: a query made a layer: $told" ;;
        esac
    done
    is "$backend: the package is there" probe-3-1.noarch --from "asked-$backend-always" -- sh -c "$rpm -q probe"
done

echo "== programs that rename directories and link files of a lower layer"
is "mv of a directory" moved --from deb1 -- sh -c 'mv /usr/share/probe /usr/share/other && test -e /usr/share/other/data && echo moved'
is "hard links of a new tree" 2 --from deb1 -- sh -c 'echo x >/srv/a && ln /srv/a /srv/b && stat -c %h /srv/b'

echo "packages: all as it should be ($(id -un))"
