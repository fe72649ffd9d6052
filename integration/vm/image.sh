#!/bin/bash
# image.sh BINARY KERNEL OUT [PROGRAM...]: the initial file system of a virtual machine, with everything that its
# jobs need: the static binary under test, busybox, the guest's program and jobs, modules of the folder KERNEL
# (kernel.sh), and a few programs of this machine with their libraries, PROGRAM among them.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
binary=$1 kernel=$2 out=$3
shift 3

if ldd "$binary" 2>/dev/null | grep -q "=>"; then
    echo "vm: $binary is not static; see: integration/build.sh --static" >&2
    exit 1
fi
root=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-image.XXXXXX")
trap 'rm -rf "$root"' EXIT

# with_libraries FILE TO: a program and the libraries that it loads (none: ldd fails).
with_libraries() {
    install -D -m 0755 "$1" "$root$2"
    { ldd "$1" 2>/dev/null || true; } | sed -n 's/.* => \(\/[^ ]*\) .*/\1/p; s/^\t\(\/[^ ]*\) .*/\1/p' | while read -r library; do
        [ -e "$root$library" ] || install -D -m 0755 "$library" "$root$library"
    done
}

chmod 0755 "$root"
mkdir -p "$root"/{bin,etc,modules,proc,sys,dev,mnt,root}
cp "$(command -v busybox)" "$root/bin/busybox"
cp "$binary" "$root/bin/sandbox"
# Without cargo: it has no dependency, and the machine's default target may be another.
rustc --edition 2024 -O --target x86_64-unknown-linux-musl "$here/guest.rs" -o "$root/bin/vm-guest"
strip "$root/bin/vm-guest" "$root/bin/sandbox"
cp -r "$here/guest" "$root/jobs"
cp "$here/guest/init" "$root/init"
chmod 0755 "$root/init"
while read -r module; do
    cp "$kernel/$module" "$root/modules/"
done <"$kernel/modules"
cp "$kernel/modules" "$root/modules/order"

with_libraries "$(command -v dmsetup)" /bin/dmsetup
with_libraries "$(command -v strace)" /bin/strace
for program; do
    with_libraries "$(command -v "$program")" "/bin/$program"
done
for helper in newuidmap newgidmap; do
    with_libraries "$(command -v $helper)" /bin/$helper
    chmod 4755 "$root/bin/$helper"
done
# user: with sub-ids; single: without.
cat >"$root/etc/passwd" <<'T'
root:x:0:0:root:/root:/bin/sh
user:x:1000:1000:user:/tmp:/bin/sh
single:x:1001:1001:single:/tmp:/bin/sh
T
sed 's/:x:\([0-9]*\):.*/:x:\1:/' "$root/etc/passwd" >"$root/etc/group"
echo user:100000:65536 | tee "$root/etc/subuid" >"$root/etc/subgid"

# What `init` fills a box from.
mkdir -p "$root"/tree/{bin,data,etc,proc,sys,dev,tmp,run}
cp "$root/bin/busybox" "$root/bin/vm-guest" "$root/tree/bin/"
for applet in sh ls cat true; do
    ln -s busybox "$root/tree/bin/$applet"
done
cp "$root/etc/passwd" "$root/etc/group" "$root/tree/etc/"
tar -C "$root/tree" --owner 0 --group 0 -cf "$root/tree.tar" .
rm -rf "$root/tree"

(cd "$root" && find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0) >"$out"
