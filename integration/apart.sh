#!/bin/bash
# apart.sh CMD...: CMD with processes and mounts that nobody else has or sees (root only): tests count both, and two
# suites run at a time. Its exit code, and 1 if a process of it is still there two minutes later: removers are slow on a busy machine.
set -euo pipefail
if [ "${1:-}" != --inside ]; then
    exec unshare --pid --mount --propagation private --mount-proc --fork --kill-child "$0" --inside "$@"
fi
shift

# PID 1 from here on: bash reaps what others orphan.
code=0
"$@" || code=$?
for _ in {1..2400}; do
    children=
    read -r children </proc/1/task/1/children || :
    [ -n "$children" ] || exit "$code"
    sleep 0.05
done
echo "processes are left:"
for pid in $children; do
    printf '%s: %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline")"
done
exit 1
