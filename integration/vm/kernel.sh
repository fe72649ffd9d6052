#!/bin/bash
# kernel.sh VERSION: Debian's kernel of this line for virtual machines (6.1 or 6.12), or its one for real machines, which
# has 9p and NFS (6.12-amd64), fetched once and then kept; prints its folder. There: vmlinuz, *.ko (only what the tests need) and
# `modules`, which names them in an order that insmod takes.
#
# It lies in ${SANDBOX_TEST_CACHE:-${XDG_CACHE_HOME:-~/.cache}/sandbox-test}/vm. SANDBOX_VM_MIRROR is
# a Debian mirror, needed where apt knows none. To get a newer build of a kernel, remove its folder.
set -euo pipefail

version=${1:?which kernel: 6.1, 6.12 or 6.12-amd64}
wanted=(overlay virtio_pci virtio_blk ext4 xfs dm_mod dm_snapshot dm_log_writes)
image=linux-image-cloud-amd64
case $version in
6.1) suite=bookworm ;;
6.12) suite=trixie ;;
6.12-amd64)
    suite=trixie
    image=linux-image-amd64
    wanted+=(9p 9pnet_virtio nfsd nfsv4)
    ;;
*)
    echo "kernel: no Debian release has Linux $version; there are 6.1, 6.12 and 6.12-amd64" >&2
    exit 2
    ;;
esac

cache=${SANDBOX_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-test}/vm
mkdir -p "$cache"
# What goes in decides the name, so that a change of the list above is not overlooked.
key=$(printf '%s\n' "$suite" "${wanted[@]}" | sha256sum | cut -c1-8)
kernel=$cache/linux-$version-$key

# Lists and packages of their own, not the machine's: a user has no right to those, and they may be of
# another release.
apt() {
    local command=$1
    shift
    "$command" -q -o Dir::Etc::SourceList="$new/apt/list" -o Dir::Etc::SourceParts=/dev/null \
        -o Dir::State="$new/apt/state" -o Dir::State::Status=/dev/null -o Dir::Cache="$new/apt/cache" \
        -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)" -o APT::Architecture=amd64 \
        -o APT::Architectures=amd64 -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Retries=3 "$@"
}

# The mirror that this machine's own apt has its packages from.
mirror() {
    [ -z "${SANDBOX_VM_MIRROR:-}" ] || { echo "$SANDBOX_VM_MIRROR" && return; }
    apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sed -n 's:/*$::; /\/debian$/p' | head -n 1 | grep . || {
        echo "kernel: apt knows no Debian mirror here: say SANDBOX_VM_MIRROR=URL" >&2
        exit 1
    }
}

fetch() {
    local package from
    from=$(mirror)
    mkdir -p "$new"/apt/{state/lists/partial,cache/archives/partial}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
        "$from $suite main" >"$new/apt/list"
    apt apt-get update >&2
    # The package that changes with every build stands behind one that does not.
    package=$(apt apt-cache depends --important "$image" | sed -n 's/^ *Depends: //p')
    (cd "$new/apt" && apt apt-get download "$package" >&2)
    dpkg-deb -x "$new"/apt/*.deb "$new/package"
}

unpack() {
    local tree release
    tree=$new/package
    # Newer releases of Debian have no /lib of their own.
    [ -d "$tree/lib/modules" ] || tree=$tree/usr
    release=$(basename "$tree"/lib/modules/*)
    cp "$new"/package/boot/vmlinuz-* "$new/vmlinuz"
    depmod -b "$tree" "$release"
    for module in "${wanted[@]}"; do
        modprobe -d "$tree" -S "$release" --show-depends "$module"
    done | sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' | while read -r file; do
        case $file in
        # Unpacked here, because the guest's insmod cannot.
        *.xz) xz -dc "$file" >"$new/$(basename "$file" .xz)" ;;
        *) cp "$file" "$new/" ;;
        esac
        basename "$file" .xz >>"$new/modules"
    done
    echo "$release" >"$new/release"
}

exec 9>"$cache/lock"
flock 9
if [ ! -d "$kernel" ]; then
    echo "kernel: fetching Linux $version of Debian $suite" >&2
    new=$kernel.new
    rm -rf "$new"
    mkdir "$new"
    fetch
    unpack
    rm -rf "$new/apt" "$new/package"
    mv "$new" "$kernel"
fi
echo "$kernel"
