#!/bin/bash
# Package managers for real, each as: install, commit, query, upgrade, remove, verify, discard. apt from the network, all
# others from what is made here. A box of one id differs in one thing only, and that is asserted: what looks at owners
# afterwards sees 0 everywhere.
#
#   SANDBOX_BIN       the binary       SANDBOX_TEST_MANAGERS   a Debian tree with rpm, dnf, zypper, createrepo-c,
#   SANDBOX_DEMO_DIR  where to work                            pip, npm, cargo, make and a compiler, as a tar
#   SANDBOX_HOSTS_TABLE   a file that gets a line for each: place, id mode, what, result (tabs)
#
# managers.sh apt dnf ...: only these.
set -euo pipefail
# How full the disk of this machine is must not matter here.
export SANDBOX_BUDGET=off
here=$(cd "$(dirname "$0")" && pwd)
include=rpm,dnf,zypper,createrepo-c,python3-pip,python3-setuptools,python3-wheel,npm,cargo,make,libc6-dev
if [ "${1:-}" = --tree ]; then
    unset SANDBOX_TEST_TREE
    SANDBOX_TEST_INCLUDE=$include "$here/base-tree.sh" ${2:+"$2"}
    exit
fi
tree=${SANDBOX_TEST_MANAGERS:-$("$here/managers.sh" --tree)}
work=$(mktemp -d "${SANDBOX_DEMO_DIR:-$HOME}/sandbox-managers.XXXXXX")
cp "${SANDBOX_BIN:-$("$here/build.sh")}" "$work/sandbox"
export SANDBOX_BASE_DIR=$work/store
unset SANDBOX_BOX
cd "$work"
trap 'cd / && { rm -rf "$work" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$work"; }' EXIT

fail() {
    echo "managers: $manager: $*" >&2
    exit 1
}
inside() { ./sandbox run "$@" </dev/null; }
# keep FROM NAME LINE: a line of sh on FROM, kept as NAME.
keep() {
    inside --from "$1" --commit "$2" --bind "$work/in:/in:ro" ${net:+--net "$net"} -- sh -euc "$3" >log 2>&1 ||
        { tail -n 40 log >&2; fail "$3"; }
}
keep_online() { net=host keep "$@"; }
# is WHAT EXPECTED FROM LINE: the last line that it prints.
is() {
    local got
    got=$(inside --from "$3" --bind "$work/in:/in:ro" -- sh -c "$4" 2>log | tail -n 1) || true
    [ "$got" = "$2" ] || { tail -n 20 log >&2; fail "$1: expected '$2', got '$got'"; }
    echo "ok: $manager: $1"
}
# discarded BASE LINE WITNESS QUERY: the line installs, the witness is there then and the query knows it; nobody keeps that,
# so the next run has neither.
discarded() {
    inside --from "$1" --bind "$work/in:/in:ro" -- sh -euc "$2; test -e $3; $4" >log 2>&1 || { tail -n 20 log >&2; fail "$2"; }
    is "discarded" gone "$1" "test ! -e $3 && ! { $4; } >/dev/null 2>&1 && echo gone"
}
# owned SNAPSHOT PATH USER GROUP MODE: whose this file is. Only a map with many ids can tell of the file itself; one id
# is on disk for all, and the layer remembers the others.
owned() {
    if [ "$mode" != single ]; then
        is "owner of $2" "$3 $4 $5" "$1" "stat -c '%U %G %a' $2"
        return
    fi
    is "owner of $2 on disk" "0 0 $5" "$1" "stat -c '%u %g %a' $2"
    local layer ids uid gid
    layer=$(./sandbox show "$1" --json | sed -n 's/.*"layer": *"\([^"]*\)".*/\1/p' | head -n 1)
    ids=$(inside --from "$1" -- sh -c "getent passwd $3; getent group $4" | cut -d: -f3 | tr '\n' ' ')
    read -r uid gid <<<"$ids"
    # What is as on disk is left out.
    [ "$uid" = 0 ] && uid='' || uid=,\"uid\":$uid
    [ "$gid" = 0 ] && gid='' || gid=,\"gid\":$gid
    grep -qxF "{\"path\":\"${2#/}\"$uid$gid,\"mode\":$((8#$5))}" "store/layers/$layer/owners" ||
        fail "the owner of $2 is not remembered: $(grep "\"${2#/}\"" "store/layers/$layer/owners")"
    echo "ok: $manager: owner of $2 remembered"
}

mkdir in
./sandbox init --from "tar:$tree"
mode=$(./sandbox show postinit --json | sed -n 's/.*"mode": *"\([a-z]*\)".*/\1/p' | head -n 1)
echo "== id mode $mode"

# rpms VERSION...: packages with files of several owners, a set-gid directory, a capability and scriptlets. They provide
# their own shell, which in this tree is dpkg's.
rpms() {
    local version
    for version in "$@"; do
        cat >"in/probe-$version.spec" <<SPEC
Name: probe
Version: $version
Release: 1
Summary: probe
License: MIT
BuildArch: noarch
AutoReqProv: no
Provides: /bin/sh
%description
probe
%install
mkdir -p %{buildroot}/srv/probe/spool %{buildroot}/usr/bin
echo $version > %{buildroot}/srv/probe/file
printf '#!/bin/sh\necho probe $version\n' > %{buildroot}/usr/bin/rpm-probe
%post
echo "post $version" >> /srv/probe/log
chown www-data:games /srv/probe/log
%verifyscript
tail -n 1 /srv/probe/log > /srv/probe/verified
%preun
# Not at an upgrade.
test "\$1" != 0 || rm -f /srv/probe/log
%files
%attr(0640, daemon, games) /srv/probe/file
%attr(2770, root, mail) %dir /srv/probe/spool
%attr(0755, root, root) %caps(cap_net_bind_service=ep) /usr/bin/rpm-probe
SPEC
    done
    # One with a device, which no kernel makes for a user: an empty file takes its place, and what it is is remembered.
    printf '%s\n' 'Name: node' 'Version: 1' 'Release: 1' 'Summary: node' 'License: MIT' 'BuildArch: noarch' \
        '%description' node '%files' '%dev(c, 1, 3) %attr(0666, root, root) /srv/node' >in/node.spec
    # A second one: the libzypp of Debian cannot read a database without any package.
    printf '%s\n' 'Name: rest' 'Version: 1' 'Release: 1' 'Summary: rest' 'License: MIT' 'BuildArch: noarch' \
        '%description' rest '%files' >in/rest.spec
    keep postinit rpms 'for spec in /in/*.spec; do rpmbuild --quiet -bb --define "_topdir /tmp/rpm" $spec; done
        mkdir -p /srv/repo && mv /tmp/rpm/RPMS/noarch/*.rpm /srv/repo && rm -rf /tmp/rpm && createrepo_c -q /srv/repo'
}

# verified NAME VERSION [FLAGS]: what rpm finds wrong with a package that nobody has touched: nothing, or with one id exactly the
# owners. The package's own script is asked, too; what it says, rpm swallows.
verified() {
    local wanted=''
    [ "$mode" != single ] || wanted='.....UG.. /srv/probe/file;......G.. /srv/probe/spool;'
    is "verify" "verified: $wanted by post $2" "$1" \
        'echo "verified: $(rpm -V --nodeps '"${3:-}"' probe | awk "{ printf \"%s %s;\", \$1, \$NF }") by $(cat /srv/probe/verified)"'
}

# capability FILE: a line that prints the first eight bytes of its capabilities.
capability() { echo "python3 -c 'import os; print(os.getxattr(\"$1\", \"security.capability\")[:8].hex())'"; }

# owners SNAPSHOT: all that the package gives away, by rpm itself and by its script.
owners() {
    owned "$1" /srv/probe/file daemon games 640
    owned "$1" /srv/probe/spool root mail 2770
    owned "$1" /srv/probe/log www-data games 644
    # NET_BIND_SERVICE (10), effective and permitted: struct vfs_cap_data of linux/capability.h.
    is "capability" 0100000200040000 "$1" "$(capability /usr/bin/rpm-probe)"
}

try_rpm() {
    keep rpms r1 'rpm -i --nodeps /srv/repo/probe-1-1.noarch.rpm'
    is "query" probe-1-1.noarch r1 'rpm -q probe'
    owners r1
    verified r1 1
    keep r1 r2 'rpm -U --nodeps /srv/repo/probe-2-1.noarch.rpm'
    is "upgrade" "probe 2" r2 rpm-probe
    verified r2 2
    keep r2 r3 'rpm -e probe'
    is "remove" gone r3 'test ! -e /srv/probe/file && ! rpm -q probe >/dev/null && echo gone'
    discarded rpms 'rpm -i --nodeps /srv/repo/probe-1-1.noarch.rpm' /srv/probe/file 'rpm -q probe'
    keep rpms n1 'rpm -i --nodeps /srv/repo/node-1-1.noarch.rpm'
    is "device, query" node-1-1.noarch n1 'rpm -q node'
    ./sandbox show n1 --json | grep -q '"remembered": *1\b' || fail "the device is not remembered"
    # What lies on disk is an empty file: of another type, with a sum, and without a device's numbers.
    is "device, verify" ".M5D..... /srv/node" n1 'rpm -V --nodeps node | awk "{ print \$1, \$NF }"'
    keep n1 n2 'rpm -e node'
    is "device, remove" gone n2 'test ! -e /srv/node && ! rpm -q node >/dev/null && echo gone'
}

try_dnf() {
    local dnf='dnf -y -q --disablerepo=* --repofrompath=here,file:///srv/repo --enablerepo=here --nogpgcheck --releasever=1'
    keep rpms d1 "$dnf install probe-1"
    is "query" probe-1-1.noarch d1 'rpm -q probe'
    owners d1
    verified d1 1
    keep d1 d2 "$dnf upgrade probe"
    is "upgrade" "probe 2" d2 rpm-probe
    verified d2 2
    is "history" 2 d2 'dnf -q --releasever=1 history list | grep -c "^ *[0-9]"'
    keep d2 d3 "$dnf remove probe"
    is "remove" gone d3 'test ! -e /srv/probe/file && ! rpm -q probe >/dev/null && echo gone'
    discarded rpms "$dnf install probe" /srv/probe/file 'rpm -q probe'
}

try_zypper() {
    # Not where Debian's rpm has root's database.
    local db='--dbpath /var/lib/rpm' zypper='zypper --non-interactive --no-gpg-checks'
    keep rpms z0 "$zypper addrepo file:///srv/repo here"
    keep z0 z1 "$zypper install probe=1 rest"
    is "query" probe-1-1.noarch z1 "rpm $db -q probe"
    owners z1
    verified z1 1 "$db"
    keep z1 z2 "$zypper update probe"
    is "upgrade" "probe 2" z2 rpm-probe
    verified z2 2 "$db"
    keep z2 z3 "$zypper remove probe"
    is "remove" gone z3 "test ! -e /srv/probe/file && ! rpm $db -q probe >/dev/null && echo gone"
    discarded z0 "$zypper install probe" /srv/probe/file "rpm $db -q probe"
}

# deb VERSION: with an owner of its own and a user that it makes.
deb() {
    local dir=deb-$1
    mkdir -p "$dir/DEBIAN" "$dir/usr/bin"
    printf 'Package: probe\nVersion: %s\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: probe\n' \
        "$1" >"$dir/DEBIAN/control"
    printf '#!/bin/sh\nset -e\ngetent passwd probe >/dev/null || useradd --system --no-create-home probe\nmkdir -p /var/lib/probe\nchown probe:games /var/lib/probe\nchmod 2770 /var/lib/probe\n' >"$dir/DEBIAN/postinst"
    chmod 0755 "$dir/DEBIAN/postinst"
    printf '#!/bin/sh\necho probe %s\n' "$1" >"$dir/usr/bin/deb-probe"
    chmod 0755 "$dir/usr/bin/deb-probe"
    dpkg-deb --root-owner-group -b "$dir" "in/probe_$1.deb" >/dev/null
}

try_dpkg() {
    deb 1
    deb 2
    keep postinit p1 'dpkg -i /in/probe_1.deb'
    is "query" "install ok installed 1" p1 "dpkg-query -W -f '\${Status} \${Version}\n' probe"
    owned p1 /var/lib/probe probe games 2770
    keep p1 p2 'dpkg -i /in/probe_2.deb'
    is "upgrade" "probe 2" p2 deb-probe
    is "verify" sound p2 'test -z "$(dpkg --verify probe)" && dpkg --audit && echo sound'
    keep p2 p3 'dpkg --purge probe'
    is "remove" gone p3 'test ! -e /usr/bin/deb-probe && echo gone'
    discarded postinit 'dpkg -i /in/probe_1.deb' /usr/bin/deb-probe 'dpkg -s probe'
}

# What systemd does at its install, by systemd-sysusers and systemd-tmpfiles: a user and a group of its own, and a folder that
# the group adm (4) may read by access control lists.
systemd() {
    owned "$1" /var/log/journal root systemd-journal 2755
    is "user" 'uid=(systemd-network) gid=(systemd-network)' "$1" 'id systemd-network | tr -d 0-9 | cut -d " " -f 1,2'
    local lists='for which in access default; do python3 -c "
import os, struct
try: acl = os.getxattr(\"/var/log/journal\", \"system.posix_acl_$which\")
except OSError as error: acl = error.strerror
else: acl = [id for tag, _, id in struct.iter_unpack(\"<HHI\", acl[4:]) if tag == 8]
print(\"$which\", acl)"; done | tr \\n ";"'
    if [ "$mode" = single ]; then
        # The call says that it worked, as that of chown, which is remembered, and those of set*id.
        is "lists" 'access No data available;default No data available;' "$1" "$lists"
        is "as the user" root "$1" 'setpriv --reuid systemd-network --regid systemd-network --clear-groups id -un'
    else
        is "lists" 'access [4];default [4];' "$1" "$lists"
        is "as the user" systemd-network "$1" 'setpriv --reuid systemd-network --regid systemd-network --clear-groups id -un'
    fi
    is "once more" 'done' "$1" 'rm -rf /var/log/journal && mkdir /var/log/journal &&
        test -z "$(systemd-tmpfiles --create --prefix /var/log/journal 2>&1)" && test -z "$(systemd-sysusers 2>&1)" && echo done'
}

# offers VERSION: all that the repository of our own has.
offers() {
    local deb=in/probe_$1.deb
    mkdir -p in/apt
    cp "$deb" in/apt/
    dpkg-deb -f "$deb" >in/apt/Packages
    printf 'Filename: ./probe_%s.deb\nSize: %s\nSHA256: %s\n' "$1" "$(stat -c %s "$deb")" "$(sha256sum <"$deb" | cut -d ' ' -f 1)" \
        >>in/apt/Packages
}

# The network, and packages that are not easy: users and set-id programs (dbus), ACLs (systemd), file capabilities (ping). What
# is upgraded is of a repository of our own, because Debian's has one version only.
try_apt() {
    local apt='export DEBIAN_FRONTEND=noninteractive; apt-get -y -q --no-install-recommends'
    local version="dpkg-query -W -f '\${Version}\n' probe"
    deb 1
    deb 2
    offers 1
    keep_online postinit a0 'echo "deb [trusted=yes] file:/in/apt ./" >/etc/apt/sources.list.d/here.list; apt-get -q update'
    keep_online a0 a1 "$apt install systemd dbus iputils-ping probe"
    is "query" installed a1 "dpkg-query -W -f '\${db:Status-Status}\n' systemd"
    is "query, version" 1 a1 "$version"
    is "verify" sound a1 'test -z "$(dpkg --verify systemd dbus iputils-ping)" && test -z "$(dpkg --audit)" && echo sound'
    is "capability" 0100000200200000 a1 "$(capability /usr/bin/ping)"
    owned a1 /usr/lib/dbus-1.0/dbus-daemon-launch-helper root messagebus 4754
    systemd a1
    offers 2
    keep_online a1 a2 "apt-get -q update; $apt dist-upgrade"
    is "upgrade" "probe 2" a2 deb-probe
    is "upgrade, version" 2 a2 "$version"
    keep a2 a3 "$apt purge iputils-ping"
    is "remove" gone a3 'test ! -e /bin/ping && dpkg --audit && echo gone'
    # Still with the index of a time when there was the first one only.
    offers 1
    discarded a0 "$apt install probe" /usr/bin/deb-probe 'dpkg -s probe'
}

try_pip() {
    local version pip='pip install -q --no-index --no-build-isolation --break-system-packages --root-user-action=ignore'
    for version in 1 2; do
        mkdir -p "in/py$version"
        printf 'from setuptools import setup\nsetup(name="probe", version="%s", py_modules=["probe"])\n' $version >"in/py$version/setup.py"
        printf 'version = %s\n' $version >"in/py$version/probe.py"
    done
    # A build writes beside its sources.
    keep postinit y1 "cp -r /in/py1 /tmp/py && $pip /tmp/py && rm -rf /tmp/py"
    is "query" 'Version: 1' y1 'pip show probe | grep Version'
    keep y1 y2 "cp -r /in/py2 /tmp/py && $pip --upgrade /tmp/py && rm -rf /tmp/py"
    is "upgrade" 2 y2 'python3 -c "import probe; print(probe.version)"'
    is "verify" 'No broken requirements found.' y2 'pip check'
    keep y2 y3 'pip uninstall -q -y --break-system-packages --root-user-action=ignore probe'
    is "remove" gone y3 'python3 -c "import probe" 2>/dev/null || echo gone'
    discarded postinit "cp -r /in/py1 /tmp/py && $pip /tmp/py" /usr/local/lib/python3*/dist-packages/probe.py 'pip show probe'
}

try_npm() {
    local version npm='npm --offline --no-audit --no-fund --silent'
    for version in 1 2; do
        mkdir -p "js$version/package"
        printf '{"name": "js-probe", "version": "%s.0.0", "bin": "probe.js"}\n' $version >"js$version/package/package.json"
        printf '#!/usr/bin/env node\nconsole.log("probe %s")\n' $version >"js$version/package/probe.js"
        # One more file that the next version has not.
        : >"js$version/package/only-$version"
        tar -C "js$version" -czf "in/js-probe-$version.tgz" package
    done
    keep postinit j1 "$npm install --global /in/js-probe-1.tgz"
    is "query" '/usr/local/lib/node_modules/js-probe:js-probe@1.0.0' j1 'npm ls --global --parseable --long | tail -n 1'
    # It renames folders, and those of a lower layer can only be copied.
    keep j1 j2 "$npm install --global /in/js-probe-2.tgz"
    is "upgrade" "probe 2" j2 js-probe
    is "verify" sound j2 'npm ls --global >/dev/null && cd /usr/local/lib/node_modules && test "$(ls -A) $(ls js-probe | tr \\n " ")" = \
        "js-probe only-2 package.json probe.js " && echo sound'
    keep j2 j3 "$npm uninstall --global js-probe"
    is "remove" gone j3 'test ! -e /usr/local/lib/node_modules/js-probe && test ! -e /usr/local/bin/js-probe && echo gone'
    discarded postinit "$npm install --global /in/js-probe-1.tgz" /usr/local/bin/js-probe 'npm ls --global | grep js-probe'
}

try_cargo() {
    local version
    for version in 1 2; do
        mkdir -p "in/rs$version/src"
        printf '[package]\nname = "rs-probe"\nversion = "%s.0.0"\n' $version >"in/rs$version/Cargo.toml"
        printf 'fn main() { println!("probe %s"); }\n' $version >"in/rs$version/src/main.rs"
    done
    local cargo='cargo install -q --offline --root /usr/local --target-dir /tmp/target'
    keep postinit c1 "cp -r /in/rs1 /tmp/rs && $cargo --path /tmp/rs && rm -rf /tmp/rs /tmp/target"
    is "query" 'rs-probe v1.0.0 (/tmp/rs):' c1 'cargo install --list --root /usr/local | grep rs-probe\ v'
    keep c1 c2 "cp -r /in/rs2 /tmp/rs && $cargo --path /tmp/rs && rm -rf /tmp/rs /tmp/target"
    is "upgrade" "probe 2" c2 rs-probe
    is "verify" '1 rs-probe v2.0.0' c2 'echo $(cargo install --list --root /usr/local | grep -c "^ ") $(cargo install --list --root /usr/local | sed -n "s/ (.*//p")'
    keep c2 c3 'cargo uninstall -q --root /usr/local rs-probe'
    is "remove" gone c3 'test ! -e /usr/local/bin/rs-probe && echo gone'
    discarded postinit "cp -r /in/rs1 /tmp/rs && $cargo --path /tmp/rs" /usr/local/bin/rs-probe \
        'cargo install --list --root /usr/local | grep rs-probe'
}

try_make() {
    mkdir -p in/mk
    printf 'int main(void) { return 42; }\n' >in/mk/probe.c
    printf 'install:\n\tcc -o /tmp/mk-probe /in/mk/probe.c\n\tinstall -o root -g games -m 2755 /tmp/mk-probe /usr/local/bin/\n\trm /tmp/mk-probe\nuninstall:\n\trm /usr/local/bin/mk-probe\n' >in/mk/Makefile
    keep postinit m1 'make -s -C /in/mk install'
    is "query" 42 m1 'mk-probe; echo $?'
    # Without the group the bit that goes with it cannot stay: chown(2) takes it, also from root.
    [ "$mode" = single ] || is "owners" 'root games 2755' m1 'stat -c "%U %G %a" /usr/local/bin/mk-probe'
    keep m1 m2 'make -s -C /in/mk install'
    is "upgrade" 42 m2 'mk-probe; echo $?'
    is "verify" same m2 'cc -o /tmp/again /in/mk/probe.c && cmp /tmp/again /usr/local/bin/mk-probe && echo same'
    keep m2 m3 'make -s -C /in/mk uninstall'
    is "remove" gone m3 'test ! -e /usr/local/bin/mk-probe && echo gone'
    discarded postinit 'make -s -C /in/mk install' /usr/local/bin/mk-probe 'command -v mk-probe'
}

[ $# -gt 0 ] || set -- dpkg apt rpm dnf zypper pip npm cargo make
manager=rpmbuild
case " $* " in *' rpm '* | *' dnf '* | *' zypper '*) rpms 1 2 ;; esac
for manager; do
    echo "== $manager"
    "try_$manager"
    [ -z "${SANDBOX_HOSTS_TABLE:-}" ] ||
        printf 'a machine, package managers\t%s\t%s\tworks\n' "$mode" "$manager" >>"$SANDBOX_HOSTS_TABLE"
done
echo "managers: all as it should be ($(id -un), $mode)"
