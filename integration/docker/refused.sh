#!/bin/sh
# refused.sh PART: in a container without user namespaces: every command says why and what to do (PART is in it).
# The store in $SANDBOX_BASE_DIR has a box.
set -eu
part=$1
refused() {
    want=$1 got=0
    shift
    "$@" >/tmp/out 2>&1 || got=$?
    [ "$got" = "$want" ] && grep -q -- "$part" /tmp/out || {
        cat /tmp/out >&2
        echo "refused: $*: exit $got, not $want, or without: $part" >&2
        exit 1
    }
    printf -- '-\t%s\texit %s, and the remedy\n' "$2" "$want"
}
refused 125 sandbox run -- true
refused 125 sandbox shell
refused 6 sandbox init other --from tar:/tree.tar
refused 6 sandbox doctor
[ -z "$(ls "$SANDBOX_BASE_DIR/runs")" ] || { echo "refused: a run is left" >&2; exit 1; }
