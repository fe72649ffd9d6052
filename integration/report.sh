#!/bin/bash
# report.sh: writes tests/golden/report anew, in every id mode that this user can have. Read what git says of it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
golden=$here/../tests/golden/report
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
# Each mode is another user.
chmod 1777 "$copy"
cp "$golden"/*.txt "$copy" 2>/dev/null || true
chmod 0666 "$copy"/*.txt 2>/dev/null || true
export SANDBOX_GOLDEN=$copy SANDBOX_TEST_ONLY=report
# One after the other: some files are common to all.
(umask 0 && UPDATE_GOLDEN=1 SANDBOX_TEST_LANES=1 "$here/test.sh" >/dev/null)
cp --no-preserve=mode,ownership "$copy"/*.txt "$golden"
# What is common to all was written by the last mode: it has to hold in the others, too.
"$here/test.sh" | grep -E '^(subuid|single|range|identity)(: test|: thread|  )|^   '
