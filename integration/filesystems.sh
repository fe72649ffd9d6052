#!/bin/bash
# filesystems.sh: a store on ext4, xfs, btrfs and tmpfs works; on overlayfs and FUSE it is refused with the reason (on
# 9p: vm/places.sh). As root, because files are mounted as disks; the job is done as root and as the test user
# with ranges.
#
#   SANDBOX_BIN, SANDBOX_TEST_TREE   the binary and the Debian tree (default: made)
#   SANDBOX_HOSTS_TABLE              a file that gets a line for each: place, id mode, what, result (tabs)
set -euo pipefail
export SANDBOX_BUDGET=off PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] || { echo "filesystems: needs root, to mount" >&2; exit 1; }
binary=${SANDBOX_BIN:-$("$here/build.sh")}
work=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-disks.XXXXXX")
chmod 0755 "$work"
cp "$binary" "$work/sandbox"
tree=$work/tree.tar
"$here/base-tree.sh" "$tree" >/dev/null
"$here/users.sh" make
finish() {
    local code=$?
    ! mountpoint -q "$work/disk" || umount "$work/disk"
    rm -rf "$work"
    exit $code
}
trap finish EXIT
mkdir "$work/disk"

cat >"$work/job" <<'JOB'
set -eu
sandbox=$1 tree=$2
export SANDBOX_BASE_DIR=$3
code=0
"$sandbox" init --from "tar:$tree"
"$sandbox" run --commit kept -- sh -c 'rm -r /usr/share/doc && mkdir /usr/share/doc && echo x >/x && ln /x /y && chown 7:7 /x && mkfifo /p'
"$sandbox" run --from kept -- sh -c 'test $(stat -c %h:%u /y) = 2:7 && test -p /p && test -z "$(ls /usr/share/doc)"'
"$sandbox" run --from kept -- rm -rf /usr/share || code=$?
[ $code = 0 ]
"$sandbox" run --from kept -- test -d /usr/share/doc
"$sandbox" fsck --seal >/dev/null
"$sandbox" rm kept
"$sandbox" gc --all --wait-trash >/dev/null
JOB
# row KIND MODE WHAT RESULT
row() {
    printf '%s: %s: %s\n' "$1" "$3" "$4"
    [ -z "${SANDBOX_HOSTS_TABLE:-}" ] || printf 'base_dir on %s\t%s\t%s\t%s\n' "$@" >>"$SANDBOX_HOSTS_TABLE"
}

for kind in ext4 xfs btrfs tmpfs; do
    if [ $kind = tmpfs ]; then
        mount -t tmpfs -o size=2g none "$work/disk"
    else
        truncate -s 2G "$work/image"
        "mkfs.$kind" -q "$work/image" >/dev/null 2>&1
        mount -o loop "$work/image" "$work/disk"
    fi
    install -d -m 0700 "$work/disk/root"
    install -d -m 0700 -o sandbox-test -g sandbox-test "$work/disk/user"
    sh "$work/job" "$work/sandbox" "$tree" "$work/disk/root" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
    row $kind range 'init, run, commit' works
    "$here/users.sh" run sandbox-test sh "$work/job" "$work/sandbox" "$tree" "$work/disk/user" >"$work/log" 2>&1 ||
        { cat "$work/log"; exit 1; }
    row $kind subuid 'init, run, commit' works
    umount "$work/disk"
    rm -f "$work/image"
done

# refused KIND: what is mounted now is no place for a store, whether or not the directory is there already; it is named,
# with the way out, and nothing is left on it.
refused() {
    local kind=$1 code place before
    mkdir -m 0700 "$work/disk/there"
    before=$(find "$work/disk")
    for place in new there; do
        code=0
        "$work/sandbox" --base-dir "$work/disk/$place" init --from "tar:$tree" 2>"$work/log" || code=$?
        [ $code = 6 ] && grep -q "$work/disk/$place: lies on $kind" "$work/log" && grep -q '^hint: .*volume' "$work/log" ||
            { cat "$work/log"; echo "filesystems: $kind: init: exit $code"; exit 1; }
        code=0
        "$work/sandbox" --base-dir "$work/disk/$place" doctor >"$work/log" 2>&1 || code=$?
        [ $code = 6 ] && grep -q "^no base-dir .* on $kind, which cannot hold" "$work/log" ||
            { cat "$work/log"; echo "filesystems: $kind: doctor: exit $code"; exit 1; }
    done
    code=0
    "$work/sandbox" --base-dir "$work/disk/there" run -- true 2>"$work/log" || code=$?
    [ $code = 125 ] && grep -q "lies on $kind" "$work/log" || { cat "$work/log"; exit 1; }
    [ "$(find "$work/disk")" = "$before" ] || { find "$work/disk"; echo "filesystems: $kind: something is left"; exit 1; }
    row "$kind" - 'init, doctor' 'exit 6, and the reason'
    row "$kind" - run 'exit 125, and the reason'
    umount "$work/disk"
}
mkdir "$work/lower" "$work/upper" "$work/work" "$work/behind"
mount -t overlay -o "lowerdir=$work/lower,upperdir=$work/upper,workdir=$work/work" none "$work/disk"
refused overlayfs
# A program answers for its files, here without attributes.
bindfs --xattr-none "$work/behind" "$work/disk"
refused FUSE
# With attributes, and with a store behind it: what it says of owners and modes is no layer of a run, nor beneath an upper in
# memory, of which the kernel has no objection.
install -d -m 0700 "$work/behind/store"
"$work/sandbox" --base-dir "$work/behind/store" init --from "tar:$tree" >/dev/null
bindfs "$work/behind" "$work/disk"
for words in 'run' 'run --upper tmpfs' 'run --upper tmpfs --dry-run'; do
    code=0
    # shellcheck disable=SC2086
    "$work/sandbox" --base-dir "$work/disk/store" $words -- true 2>"$work/log" || code=$?
    [ $code = 125 ] && grep -q 'lies on FUSE' "$work/log" && grep -q '^hint: .*--base-dir' "$work/log" ||
        { cat "$work/log"; echo "filesystems: FUSE: $words: exit $code"; exit 1; }
done
umount "$work/disk"
echo 'FUSE: run --upper tmpfs: refused'
