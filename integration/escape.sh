#!/bin/bash
# escape.sh: the ways out that others have had, tried in every id mode; prints the list of docs/security.md with the
# results.
#
#   escape.sh            runs them (root: in all four modes) and prints the list
#   escape.sh --write    and writes the results into docs/security.md
#
# SANDBOX_ESCAPE_ROUNDS=100000 is the long form of the races (20 otherwise). SANDBOX_TEST_MODES as in test.sh.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.."
log=$(mktemp)
trap 'rm -f "$log" "$log.md"' EXIT

bad=no
SANDBOX_TEST_ONLY=escape "$here/test.sh" >"$log" 2>&1 || bad=yes

# A row is ok in a mode if each of its tests of this suite is; other suites are named, and run by `make test`.
awk -v log_file="$log" '
    BEGIN {
        while ((getline line < log_file) > 0) {
            if (line ~ /^[a-z]+: test .* \.\.\. / && split(line, part, " ")) { sub(":", "", part[1]); verdict[part[1], part[3]] = part[5] }
        }
        split("subuid single range identity", modes, " ")
    }
    /^\| row / { inside = 1 }
    !/^\|/ { inside = 0 }
    !inside || /^\| row / || /^\| ---/ { print; next }
    {
        count = split($0, cell, / *\| */)
        line = "| " cell[2] " | " cell[3] " | " cell[4] " | " cell[5] " |"
        for (m = 1; m <= 4; m++) {
            result = "-"
            rest = cell[5]
            while (match(rest, /`escape: [a-z_:]+`/)) {
                name = substr(rest, RSTART + 9, RLENGTH - 10)
                rest = substr(rest, RSTART + RLENGTH)
                one = verdict[modes[m], name]
                if (one == "") one = "not run"
                if (result == "-" || one != "ok") result = one
            }
            line = line " " result " |"
        }
        print line
    }
' docs/security.md >"$log.md"

grep -E '^[a-z]+: (test .*FAILED|thread )' "$log" || true
sed -n '/^==== tests/,$p' "$log"
echo
sed -n '/^| row /,$p' "$log.md"
[ "${1:-}" != --write ] || cat "$log.md" >docs/security.md
[ $bad = no ]
