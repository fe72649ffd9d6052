#!/bin/bash
# Makes tests/fixtures/seccomp/*.bpf anew: what runc and crun, started by podman, load for Docker's and
# podman's own seccomp files. Unit tests compare the verdicts of these programs with ours.
# Needs root, podman, runc, crun, gcc and python3. usage: integration/seccomp/peers.sh
set -euo pipefail
# crun refuses a mixture of both kinds of cgroups: it shall not see that there is one.
if [ -z "${SANDBOX_PEERS_ALONE:-}" ]; then
  exec env SANDBOX_PEERS_ALONE=1 unshare -m "$0" "$@"
fi
umount /sys/fs/cgroup/unified 2>/dev/null || true
here=$(cd "$(dirname "$0")" && pwd)
fixtures=$(cd "$here/../../tests/fixtures/seccomp" && pwd)
work=$(mktemp -d)
started=()
clean() {
  for name in "${started[@]}"; do podman rm -f -t 0 "$name" >/dev/null 2>&1 || true; done
  rm -rf "$work"
}
trap clean EXIT
mkdir -p "$work/root/bin"
echo 'int pause(void); int main(void) { for (;;) pause(); }' >"$work/pause.c"
gcc -static -O1 -o "$work/root/bin/pause" "$work/pause.c"
build=CHOWN,DAC_OVERRIDE,FOWNER,FSETID,KILL,MKNOD,NET_BIND_SERVICE,SETFCAP,SETGID,SETPCAP,SETUID,SYS_CHROOT
for runtime in runc crun; do
  # runc cannot do without cgroups.
  cgroups=()
  [ $runtime = runc ] || cgroups=(--cgroups disabled)
  for file in docker podman; do
    for set in none build all; do
      case $set in
      none) caps=(--cap-drop ALL) ;;
      build) caps=(--cap-drop ALL --cap-add "$build") ;;
      all) caps=(--cap-add ALL) ;;
      esac
      name=sandbox-peer-$$-$runtime-$file-$set
      started+=("$name")
      podman --runtime "$runtime" run -d --name "$name" --network none "${cgroups[@]}" \
        --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --security-opt no-new-privileges \
        --security-opt "seccomp=$fixtures/$file.json" "${caps[@]}" --rootfs "$work/root" /bin/pause >/dev/null
      pid=$(podman inspect -f '{{.State.Pid}}' "$name")
      "$here/filter.py" "$pid" "$fixtures/$file.$set.$runtime.bpf"
      podman rm -f -t 0 "$name" >/dev/null
    done
  done
done
podman --version
runc --version | head -1
crun --version | head -1
ls -l "$fixtures"
