#!/bin/bash
# docker.sh [VERSION]: what a real Docker engine can do in a virtual machine (default: 6.12) and often not elsewhere.
# `docker run --privileged`, for which it needs all capabilities: the main job (../docker/job.sh) as root and as a user, and
# nothing may be lost. And AppArmor: what is refused beneath its profile, with the remedy, which helps.
set -euo pipefail
. "$(dirname "$0")/common.sh"
"$vm/../setup.sh" engine-vm || exit 1
version=${1:-${SANDBOX_VM_KERNEL:-6.12}}
use "$version" dockerd docker containerd containerd-shim-runc-v2 runc apparmor_parser

goods=$work/goods
mkdir "$goods"
cp "$vm"/../docker/job.sh "$vm/../../profiles/docker-nested.json" "$goods/"
"$vm/../docker/rpm.sh" "$goods/demo.rpm"
# Every byte takes its time there; nobody reads the manual. A tree of another form stays whole.
cp "$("$vm/../base-tree.sh")" "$goods/tree.tar"
chmod u+w "$goods/tree.tar"
tar --wildcards --delete -f "$goods/tree.tar" './usr/share/*/*' './var/cache/*' './var/lib/apt/*' './usr/lib/*/gconv/*' \
    './usr/lib/*/perl*/*' 2>/dev/null || true

also=(-m 1536)
boot "job=docker fs=ext4" "$(disk disk 1500 ext4)" "$(disk goods.img 1000 ext4 "$goods")"
finished 600 && [ "$(grep -c '^WORKS ' "$work/said")" = 4 ] && ! grep -q '^BROKEN' "$work/said" || {
    tell "not all is as it should be in containers of Docker"
    exit 1
}
[ -z "${SANDBOX_HOSTS_TABLE:-}" ] || sed -n 's/^ROW //p' "$work/said" >>"$SANDBOX_HOSTS_TABLE"
echo "docker: Linux $(cat "$kernel/release"): --privileged works, as root and as a user, and nothing is lost; AppArmor is told"
