#!/bin/sh
# order.sh: writes integration/order.ld anew, the list of functions that a start runs through.
#
# The linker puts these next to one another. A start touches a few pages of each of them, in three processes; the kernel
# maps pages by sixteen, so functions that are strewn over the whole program make it map nearly all of that.
# Whoever changes much of a start runs this again. A function that is not there any more does no harm.
# Needs x86-64 and nm. Root has the users of the tests do it, with sub-ids and without.
set -eu
cd "$(dirname -- "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
binary=$(integration/build.sh --static)
cargo build --quiet --example order
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
chmod 755 "$work"
cp "$binary" target/debug/examples/order "$work"

cat >"$work/trace.sh" <<'T'
set -eu
store=$(mktemp -d)
trap 'chmod -R u+rwx "$store"; rm -rf "$store"' EXIT
export SANDBOX_BASE_DIR="$store/base" SANDBOX_BUDGET=off
box() { "$work/sandbox" --quiet --box order "$@" >&2; }
box init order --from scratch
for one in 1 2; do
    box run --commit "s$one" --bind "$work/sandbox:/sandbox" -- /sandbox run --help
done
# Twice, because the first run leaves its directory for the second one.
for one in 1 2; do
    "$work/order" "$work/sandbox" --quiet --box order run --bind "$work/sandbox:/sandbox" -- /sandbox --version
done
T
trace() { "$@" sh -c "work=$work; . $work/trace.sh" </dev/null 2>>"$work/said"; }
if [ "$(id -u)" = 0 ]; then
    integration/users.sh make
    set -- sandbox-single sandbox-test
else
    set -- ''
fi
for user in "$@"; do
    trace ${user:+integration/users.sh run} ${user:-env} >>"$work/found" || {
        cat "$work/said" >&2
        exit 1
    }
done
# Names without the digests that every build has anew. What `dispatch` is, holds all commands: its own pages only.
sed -n -e 's/^\(_ZN.*17h\)[0-9a-f]\{16\}E$/\1*/p' -e '/^_R/s/Cs[0-9A-Za-z]*_/Cs*_/gp' "$work/found" |
    grep -v 'sandbox3cli8dispatch' | LC_ALL=C sort -u >"$work/names"
{
    echo '/* Written by integration/order.sh: the functions of a start, next to one another. */'
    echo 'SECTIONS {'
    echo '  .text.order : {'
    sed 's/.*/    *(.text.&)/' "$work/names"
    echo '  }'
    echo '} INSERT BEFORE .text;'
} >integration/order.ld
echo "integration/order.ld: $(wc -l <"$work/names") functions"
