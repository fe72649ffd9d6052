#!/bin/sh
# job.sh LOST...: the main job inside a container of an engine, as whoever it is there. LOST names the protections that
# this place cannot give (`fresh-proc`, `hostname`, `owners`, `pivot-root`, in this order), which must be told, and refused by
# --strict.
#
# On stdout one line for each thing tried: ID-MODE, what, result, with tabs. Ends with non-zero if anything is not as it
# must be.
set -eu
wanted=$*
dir=$(mktemp -d)
# In range mode root inside is a stranger to root outside, and shell begins where it is called.
chmod 0755 "$dir"
cd "$dir"

die() {
    echo "job: $*" >&2
    exit 1
}
row() { printf '%s\t%s\t%s\n' "${mode:--}" "$1" "$2"; }
# ok WHAT CMD...: must succeed.
ok() {
    what=$1
    shift
    "$@" >out 2>err || { cat out err >&2; die "$what: $*: exit $?"; }
    ! grep -q panicked err || die "$what: panicked"
    row "$what" works
}
# code N WHAT CMD...: must end with this code.
code() {
    want=$1 what=$2
    shift 2
    got=0
    "$@" >out 2>err || got=$?
    [ "$got" = "$want" ] || { cat out err >&2; die "$what: $*: exit $got, not $want"; }
}
says() { grep -q -- "$1" out err || { cat out err >&2; die "$what: does not say: $1"; }; }

ok doctor sandbox doctor
ok init sandbox init --from tar:/tree.tar
mode=$(sandbox show postinit --json | sed -n 's/.*"mode": *"\([a-z]*\)".*/\1/p' | head -n 1)

# What is lost is exactly what was foretold.
ok 'run' sandbox run --report report -- true
lost=$(grep -o '"protection":"[^"]*"' report | cut -d'"' -f4 | sort | tr '\n' ' ' | sed 's/ $//' || true)
[ "$lost" = "$wanted" ] || die "lost: '$lost', and not '$wanted'"
for one in $wanted; do
    says "not enforced: $one: "
    row "$one" "not enforced, and said"
done
if [ -n "$wanted" ]; then
    code 125 strict sandbox run --strict -- true
    says '^hint: '
    row strict refused
else
    ok strict sandbox run --strict -- true
fi

ok 'rpm -i, dropped' sandbox run --bind /demo.rpm:/demo.rpm -- rpm -i --nodeps /demo.rpm
code 1 'rpm -q' sandbox run -- rpm -q demo
ok 'rpm -i, commit' sandbox run --commit devel --bind /demo.rpm:/demo.rpm -- rpm -i --nodeps /demo.rpm
ok 'rpm -q' sandbox run --from devel -- rpm -q demo
says '^demo-1.0-1'
ok 'program of the package' sandbox run --from devel -- demo
if [ "$mode" != single ]; then
    ok 'rpm -V' sandbox run --from devel -- rpm -V --nodeps demo
    ok 'owners on disk' sandbox run --from devel -- stat -c '%u:%g' /var/lib/demo/state
    says '^33:33$'
fi
ok diff sandbox diff devel
says usr/bin/demo
ok 'rpm -e, commit' sandbox run --from devel --commit gone -- rpm -e demo
ok '--out' sandbox run --from devel --out /usr/bin/demo:results -- true
[ -s results/demo ] || die 'no result'
ok '--cache' sandbox run --cache c:/mnt -- touch /mnt/kept
ok '--cache again' sandbox run --cache c:/mnt -- ls /mnt/kept
ok '--net host' sandbox run --net host -- true
# Another than who it is anyway.
if [ "$mode" != single ]; then
    ok '--user' sandbox run --user 1:2 -- sh -c 'echo $(id -u):$(id -g)'
    says '^1:2$'
fi
ok '--upper tmpfs' sandbox run --upper tmpfs -- touch /x
ok 'own pid' sandbox run -- sh -c 'test -e /proc/self/status && [ $$ -lt 20 ]'
code 143 'kill' sandbox run --timeout 1 -- sh -c 'sleep 1234 & sleep 1234'
sleep 0.2
! grep -qs 1234 /proc/[0-9]*/cmdline || die 'a process is left'
row 'kill of all' works
code 0 'shell' sh -c 'echo "touch /typed; exit 0" | sandbox shell --net none'
row shell works
ok fsck sandbox fsck
ok gc sandbox gc --all
[ "$(sandbox list --json | grep -o '"name"' | wc -l)" = 3 ] || die 'snapshots'
cd /
rm -rf "$dir"
