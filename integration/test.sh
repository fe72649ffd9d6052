#!/bin/bash
# test.sh: the whole test suite in every id mode that this user can have; one summary at the end.
#
# Root runs it four ways, two at a time: as a user with sub-ids (subuid), as a user without (single), as root with
# an unprivileged range (range) and as root with the ids as they are (identity). A plain user runs what it
# can, and the summary says what that leaves out. With CI=true everything must have run.
#
# The tests get: SANDBOX_BIN        the binary under test (default: the debug build)
#                SANDBOX_TEST_IDS   subuid, single, range or identity
#                SANDBOX_TEST_TREE  a Debian tree with rpm as a tar
# SANDBOX_TEST_MODES="single range" takes only these, SANDBOX_TEST_ONLY="cli escape" only these binaries,
# SANDBOX_TEST_LANES=1 tries one mode after the other; arguments go to every test binary (a name filter).
set -euo pipefail
# How full the disk of this machine is must not matter here.
export SANDBOX_BUDGET=off
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
PATH=$PATH:$HOME/.cargo/bin

# Built by whoever calls, who owns the toolchain; run from a copy that the test users can read.
only=()
for name in ${SANDBOX_TEST_ONLY:-}; do only+=(--test "$name"); done
built=$(cargo test --locked --no-run "${only[@]}" --message-format=json |
    sed -n 's/.*"name":"\([^"]*\)".*"executable":"\([^"]*\)".*/\1 \2/p')
stage=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-test.XXXXXX")
# What tests leave behind may belong to sub-ids, which only a user namespace that has them removes.
sweep() { rm -rf "$@" 2>/dev/null || unshare --map-root-user --map-auto rm -rf "$@"; }
ended() {
    # Killed, because PID 1 of a pid namespace does not heed less, and with its parent all that is in it.
    # shellcheck disable=SC2046 # Words.
    kill -KILL -- $(jobs -p | sed 's/^/-/') 2>/dev/null || :
    wait
    sweep "$stage"
}
trap ended EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP
chmod 0755 "$stage"
mkdir "$stage/bin" "$stage/tests" "$stage/tmp"
while read -r name path; do
    case $path in
    */deps/*) cp "$path" "$stage/tests/$(basename "$path")" ;;
    *) cp "$path" "$stage/bin/$name" ;;
    esac
done <<<"$built"
cp -r Cargo.toml src profiles tests docs "$stage/" 2>/dev/null || true
chmod -R a+rX "$stage"
[ -z "${SANDBOX_BIN:-}" ] || cp "$SANDBOX_BIN" "$stage/bin/sandbox"
"$here/base-tree.sh" "$stage/tree.tar" >/dev/null

export SANDBOX_BIN=$stage/bin/sandbox SANDBOX_TEST_TREE=$stage/tree.tar
# The copy stands for the package: tests that read its files find them through this.
export CARGO_MANIFEST_DIR=$stage SANDBOX_TEST_CWD=$stage

me=$(id -un) root=no
[ "$(id -u)" != 0 ] || root=yes
# Root of a container may not be allowed to set processes apart: then one mode after the other.
apart=env
[ $root = no ] || ! "$here/apart.sh" true 2>/dev/null || apart=$here/apart.sh
can_userns() { unshare --user --map-root-user true 2>/dev/null; }
has_ranges() { grep -qs "^$me:" /etc/subuid && grep -qs "^$me:" /etc/subgid; }

# why_not MODE: nothing when the mode can be run here, else the reason.
why_not() {
    case $root-$1 in
    yes-*) ;;
    no-range) echo "needs root" ;;
    no-*) can_userns || { echo "no user namespaces for $me: see sandbox doctor" && return; } ;;
    esac
    case $root-$1 in
    no-subuid | no-identity) has_ranges || echo "no line for $me in /etc/subuid and /etc/subgid" ;;
    esac
}

# as MODE CMD...: CMD as the user who has this mode. What nohup(1) and `&` let it ignore it would hand down, and no
# command inside could catch it any more.
as() {
    local mode=$1
    shift
    set -- env --default-signal=HUP,INT,QUIT,TERM "$@"
    case $root-$mode in
    yes-subuid) "$apart" "$here/users.sh" run sandbox-test "$@" ;;
    yes-single) "$apart" "$here/users.sh" run sandbox-single "$@" ;;
    yes-*) cd "$stage" && "$apart" "$@" ;;
    # Many ids and no root: a user namespace with the caller's ranges.
    no-identity) cd "$stage" && unshare --user --map-root-user --map-auto "$@" ;;
    *) cd "$stage" && "$@" ;;
    esac
}

# told LOG: what a test binary said of its failures: those that it tells at its end; or of each that failed in its
# turn, what came after the test before it; or else its last words.
told() {
    if grep -q '^failures:$' "$1"; then
        sed -n '/^failures:$/,$p' "$1" | head -n 200
    elif grep -q '^test .* FAILED' "$1"; then
        awk '/^test .* \.\.\. FAILED/ { for (i = 1; i <= n && i <= 40; i++) print said[i]; print }
             /^test .* \.\.\. / { n = 0; next }
             { said[++n] = $0 }' "$1"
    else
        tail -n 50 "$1"
    fi
}

# one MODE [WORD...]: every test binary; leaves a file with its line of the summary, $stage/MODE.
one() {
    local mode=$1 passed=0 failed=0 ignored=0 broken='' reason test log=$stage/log.$1 start=$SECONDS
    shift
    reason=$(why_not "$mode")
    if [ -n "$reason" ]; then
        printf '%-9s not run: %s\n' "$mode" "$reason" >"$stage/missed.$mode"
        return
    fi
    export SANDBOX_TEST_IDS=$mode
    # Who has one id only has no ranges (tests/ids.rs).
    [ "$mode" != single ] || export SANDBOX_TEST_WITHOUT=subuid
    # Theirs alone, so that it shows when a test leaves something behind.
    export TMPDIR=$stage/tmp/$mode
    mkdir -m 1777 "$TMPDIR"
    for test in "$stage"/tests/*-*; do
        [ -f "$test" ] && [ -x "$test" ] || continue
        echo "== $(basename "$test")"
        if ! (as "$mode" "$test" "$@") </dev/null 2>&1 | tee "$log"; then
            broken="$broken $(basename "${test%-*}")"
            {
                echo "---- $mode: $(basename "${test%-*}")"
                told "$log"
            } >>"$stage/told.$mode"
        fi
        read -r p f i < <(sed -n 's/^test result: .* \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$log" |
            awk '{ p += $1; f += $2; i += $3 } END { print p + 0, f + 0, i + 0 }')
        passed=$((passed + p)) failed=$((failed + f)) ignored=$((ignored + i))
    done
    # A run in which nothing ran proves nothing.
    [ $((passed + failed)) -gt 0 ] || broken="$broken (no test ran)"
    local verdict=ok
    [ -z "$broken" ] || verdict=failed
    {
        printf '%-9s %4d passed, %d failed, %d ignored, %3ds%s\n' \
            "$mode" $passed $failed $ignored $((SECONDS - start)) "${broken:+   FAILED:$broken}"
        [ -z "$(ls -A "$TMPDIR")" ] || echo "          left behind: $(cd "$TMPDIR" && find . -mindepth 1 -maxdepth 3 -ls | head -n 10)"
    } >"$stage/$verdict.$mode"
}

# lane MODE...: one after the other, each line with its mode in front.
lane() {
    for mode in "$@"; do
        one "$mode" "${words[@]}" 2>&1 | sed -u "s/^/$mode: /"
    done
}

modes=${SANDBOX_TEST_MODES:-subuid single range identity} words=("$@")
[ $root = no ] || "$here/users.sh" make
if [ $root = yes ] && [ "${SANDBOX_TEST_LANES:-2}" != 1 ] && [ $apart != env ]; then
    # Two at a time, for most tests wait for a disk or for a time to pass. What root does stays in one lane: some of its
    # limits are per user.
    users='' roots=''
    for mode in $modes; do
        case $mode in
        subuid | single) users="$users $mode" ;;
        *) roots="$roots $mode" ;;
        esac
    done
    # A group of their own each, to be ended whole.
    set -m
    lane $users &
    lane $roots &
    set +m
    wait
else
    lane $modes
fi

summary=() missed=no bad=no
for mode in $modes; do
    for verdict in ok failed missed; do
        [ -f "$stage/$verdict.$mode" ] || continue
        mapfile -t -O ${#summary[@]} summary <"$stage/$verdict.$mode"
        case $verdict in
        failed) bad=yes ;;
        missed) missed=yes ;;
        esac
        continue 2
    done
    # A lane that died.
    summary+=("$mode: no verdict") bad=yes
done

# The examples of the documentation are compiled by cargo itself; which ids they run with is all one.
if [ $# -gt 0 ] || [ ${#only[@]} -gt 0 ]; then
    :
elif (unset CARGO_MANIFEST_DIR TMPDIR && cargo test --locked --doc </dev/null); then
    summary+=("doc tests passed")
else
    summary+=("doc tests FAILED") bad=yes
fi

# Once more, where whoever reads the end of the output finds it.
for mode in $modes; do
    [ ! -f "$stage/told.$mode" ] || cat "$stage/told.$mode"
done
echo
echo "==== tests, by id mode ($(uname -r), $me)"
printf '%s\n' "${summary[@]}"
if [ $missed = yes ] && [ "${CI:-}" = true ]; then
    echo "with CI=true every mode must run"
    bad=yes
fi
[ $bad = no ]
