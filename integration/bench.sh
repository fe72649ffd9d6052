#!/bin/bash
# bench.sh [start|exec|commit|store|output|compile|packages|owners|doctor]...: the benchmarks as Markdown, for
# docs/benchmarks.md. Root has them run by the test user with sub-ids, because that is what users are. See
# integration/bench/*.rs for their variables.
set -euo pipefail
# How full the disk of this machine is must not matter here.
export SANDBOX_BUDGET=off
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
PATH=$PATH:$HOME/.cargo/bin
[ $# -gt 0 ] || set -- start exec commit store output compile packages owners doctor

stage=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-bench.XXXXXX")
trap 'rm -rf "$stage"' EXIT
chmod 0755 "$stage"
# SANDBOX_BIN= (empty) measures the others alone.
binary=${SANDBOX_BIN-$("$here/build.sh")}
[ -z "$binary" ] || cp "$binary" "$stage/sandbox"
for bench; do
    # They only start and time other programs: built like tests, which is quicker than for release.
    program=$(cargo test --locked --no-run --bench "$bench" --message-format=json |
        sed -n 's/.*"executable":"\([^"]*deps\/'"$bench"'-[^"]*\)".*/\1/p')
    cp "$program" "$stage/$bench"
done
"$here/base-tree.sh" "$stage/tree.tar" >/dev/null
case " $* " in
*' compile '* | *' packages '* | *' owners '*)
    # A tree with a compiler, and what its packages would be installed under without us.
    SANDBOX_TEST_TREE='' SANDBOX_TEST_INCLUDE=gcc,libc6-dev,make,eatmydata "$here/base-tree.sh" "$stage/tools.tar" >/dev/null
    export SANDBOX_BENCH_TOOLS=$stage/tools.tar
    ;;
esac
chmod -R a+rX "$stage"
export SANDBOX_BIN=${binary:+$stage/sandbox} SANDBOX_TEST_TREE=$stage/tree.tar

as=()
if [ "$(id -u)" = 0 ]; then
    "$here/users.sh" make
    as=("$here/users.sh" run sandbox-test)
fi
echo "$(nproc) cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r), load $(cut -d' ' -f1 /proc/loadavg)"
for bench; do
    echo
    "${as[@]}" "$stage/$bench" </dev/null
done
