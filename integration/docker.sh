#!/bin/bash
# docker.sh: the main job in containers of a real Docker engine and of podman, by every way in that the documentation
# names, and the refusals where there is none. Root; starts an engine of its own and ends it again.
#
#   SANDBOX_BIN, SANDBOX_TEST_TREE   the static binary and the Debian tree with rpm (default: made)
#   SANDBOX_HOSTS_TABLE              a file that gets a line for each thing tried: place, id mode, what, result (tabs)
set -euo pipefail
export SANDBOX_BUDGET=off PATH=$PATH:/usr/sbin:/sbin
here=$(cd "$(dirname "$0")" && pwd)
profile=$here/../profiles/docker-nested.json
[ -e "$profile" ] || profile=$here/docker-nested.json
[ "$(id -u)" = 0 ] || { echo "docker: needs root, to start an engine" >&2; exit 1; }
binary=${SANDBOX_BIN:-$("$here/build.sh" --static)}

# Not in TMPDIR: the engine wants short paths for sockets, and a disk.
work=$(mktemp -d /var/tmp/sandbox-docker.XXXXXX)
cp "$binary" "$work/sandbox"
cp "$profile" "$work/docker-nested.json"
cp "$here"/docker/*.sh "$work/"
chmod -R a+rX "$work"
tree=$work/tree.tar
"$here/base-tree.sh" "$tree" >/dev/null
table=$work/table
: >"$table"

finish() {
    local code=$?
    set +e
    if [ -n "${engine:-}" ]; then
        kill "$engine"
        wait "$engine"
    fi
    [ $code = 0 ] || tail -n 20 "$work"/*.log >&2
    # What the engines mounted and did not take away.
    awk -v dir="$work/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r place; do umount -l "$place"; done
    rm -rf "$work"
    exit $code
}
trap finish EXIT

start_dockerd() {
    # No network of its own: nothing is pulled, and the firewall of this machine stays as it is.
    dockerd --data-root "$work/data" --exec-root "$work/exec" --pidfile "$work/pid" --host "unix://$work/sock" \
        --storage-driver "$1" --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
        >"$work/dockerd.log" 2>&1 &
    engine=$!
    for _ in $(seq 150); do
        ! docker --host "unix://$work/sock" version >/dev/null 2>&1 || return 0
        kill -0 "$engine" 2>/dev/null || break
        sleep 0.2
    done
    kill "$engine" 2>/dev/null || true
    wait "$engine" || true
    engine=''
    return 1
}

"$here/docker/rpm.sh" "$work/demo.rpm"

failed=no
note() { printf '%s\t%s\n' "$place" "$1" >>"$table"; }
# inside VOLUME ARGS... IMAGE-COMMAND: a container of the current engine; ARGS end with `--`.
inside() {
    local volume=$1 args=()
    shift
    while [ "$1" != -- ]; do
        args+=("$1")
        shift
    done
    shift
    "${run[@]}" --rm --network none -e SANDBOX_BUDGET=off -e SANDBOX_BASE_DIR=/store \
        -v "$work/sandbox:/usr/local/bin/sandbox:ro" -v "$tree:/tree.tar:ro" -v "$work/demo.rpm:/demo.rpm:ro" \
        -v "$work/job.sh:/job.sh:ro" -v "$work/refused.sh:/refused.sh:ro" ${volume:+-v "$volume"} \
        "${args[@]}" "$image" "$@" </dev/null
}
# try PLACE VOLUME ARGS... -- CMD...: its rows go to the table.
try() {
    place=$1
    shift
    local start=$SECONDS rows
    echo "==== $place"
    if rows=$(inside "$@"); then
        while read -r line; do [ -z "$line" ] || note "$line"; done <<<"$rows"
        echo "ok, $((SECONDS - start))s"
    else
        failed=yes
        note "$(printf -- '-\tall\tFAILED')"
        echo "FAILED: $place" >&2
    fi
}
# fresh VOLUME [UID]: an empty one.
volumes=0
fresh() {
    volumes=$((volumes + 1))
    volume=sandbox$volumes:/store
    inside "$volume" -- chown "${1:-0}" /store
}

nested=seccomp=$work/docker-nested.json
paths=systempaths=unconfined

### Docker
start_dockerd overlay2 || start_dockerd vfs || { echo "docker: dockerd does not start" >&2; exit 1; }
run=(docker --host "unix://$work/sock" run)
image=sandbox-outer:1
docker --host "unix://$work/sock" import "$tree" $image >/dev/null

fresh
try 'docker --cap-add SYS_ADMIN' "$volume" --cap-add SYS_ADMIN -- sh /job.sh fresh-proc owners pivot-root
fresh
try "docker --cap-add SYS_ADMIN, $paths" "$volume" --cap-add SYS_ADMIN --security-opt $paths -- sh /job.sh pivot-root
fresh
try 'docker seccomp=docker-nested.json, root' "$volume" --security-opt "$nested" -- sh /job.sh fresh-proc owners
filled=$volume
fresh
try "docker seccomp=docker-nested.json, $paths, root" "$volume" --security-opt "$nested" --security-opt $paths -- \
    sh /job.sh
fresh 1000
try 'docker seccomp=docker-nested.json, user' "$volume" --user 1000 --security-opt "$nested" -- sh /job.sh fresh-proc owners
fresh 1000
try "docker seccomp=docker-nested.json, $paths, user" "$volume" --user 1000 --security-opt "$nested" \
    --security-opt $paths -- sh /job.sh
fresh
try 'docker seccomp=unconfined' "$volume" --security-opt seccomp=unconfined -- sh /job.sh fresh-proc owners

# The engine gives all capabilities that there are, and cannot start where the machine has not all of them: then those
# that this machine has, and everything else that --privileged does to a process.
fresh
if inside '' --privileged -- true 2>"$work/privileged.log"; then
    try 'docker --privileged' "$volume" --privileged -- sh /job.sh
else
    place='docker --privileged'
    note "$(printf -- '-\tstart\tthe engine cannot on this machine; tried with the capabilities that it has')"
    caps=()
    while read -r cap; do caps+=(--cap-add "$cap"); done < <(
        bits=$(sed -n 's/^CapBnd:\t//p' /proc/self/status)
        number=0
        for name in CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
            NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT \
            SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
            AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND; do
            [ $((0x$bits >> number & 1)) = 0 ] || echo $name
            number=$((number + 1))
        done
    )
    try 'docker, as --privileged' "$volume" "${caps[@]}" --security-opt seccomp=unconfined --security-opt $paths -- \
        sh /job.sh
fi

# A store that others fill: all of it in memory.
# shellcheck disable=SC2016
try 'docker seccomp=docker-nested.json, base_dir on a volume :ro' "$filled:ro" --security-opt "$nested" -- sh -c '
    set -e
    before=$(find /store | sort | cksum)
    sandbox run --from devel --upper tmpfs -- sh -c "rpm -e demo && ! rpm -q demo" >/dev/null
    sandbox run --from devel --upper tmpfs --as-user -- demo | grep -qx "demo 1.0"
    printf "range\trun --upper tmpfs\tworks\n"
    for words in "run --from devel -- true" "run --from devel --commit x -- true" "rm devel"; do
        ! sandbox $words 2>/tmp/err && grep -q "ead-only file system" /tmp/err || { cat /tmp/err >&2; exit 1; }
    done
    [ "$(find /store | sort | cksum)" = "$before" ]
    printf "range\twrites\trefused\n"'
try 'docker, no flags' "$filled" -- sh /refused.sh 'docker run --security-opt seccomp=docker-nested.json'
# shellcheck disable=SC2016
try 'docker, base_dir on the container' '' --security-opt "$nested" -- sh -c '
    code=0; sandbox --base-dir /root/store init --from tar:/tree.tar 2>/tmp/err || code=$?
    [ $code = 6 ] && grep -q "docker run -v sandbox:/root/store" /tmp/err || { cat /tmp/err >&2; exit 1; }
    [ ! -e /root/store/format.json ] || exit 1
    printf -- "-\tinit\texit 6, and the flag -v\n"'

# The binary alone: in an image that has nothing else, and in one of busybox and musl, as Alpine is.
mkdir -p "$work/none" "$work/musl"/{bin,lib,tmp,etc}
cp "$work/sandbox" "$work/none/"
cp "$work/sandbox" "$(command -v busybox)" "$work/musl/bin/"
for applet in sh id cat true; do ln -s busybox "$work/musl/bin/$applet"; done
cp -L "/lib/ld-musl-$(uname -m).so.1" "$work/musl/lib/"
echo 'int puts(const char *); int main(void) { return puts("by musl") < 0; }' >"$work/probe.c"
musl-gcc -o "$work/musl/bin/probe" "$work/probe.c"
tar -C "$work/musl" --owner 0 --group 0 -cf "$work/musl.tar" .
# alone IMAGE DIR TREE PROGRAM SAID: a box of TREE is filled in an image of DIR, and PROGRAM of it says this.
alone() {
    local run code=0 at=/sandbox
    place=$1
    echo "==== $place"
    tar -C "$2" --owner 0 --group 0 -c . | docker --host "unix://$work/sock" import - "$3" >/dev/null
    [ -e "$2/sandbox" ] || at=/bin/sandbox
    volumes=$((volumes + 1))
    run=(docker --host "unix://$work/sock" run --rm --network none -e SANDBOX_BUDGET=off -e SANDBOX_BASE_DIR=/store
        -v "sandbox$volumes:/store" -v "$4:/tree.tar:ro" --security-opt "$nested" --security-opt "$paths" "$3" $at)
    {
        "${run[@]}" doctor && "${run[@]}" init --from tar:/tree.tar && "${run[@]}" run --strict -- true &&
            "${run[@]}" run --commit devel -- sh -c 'echo kept >/kept' &&
            [ "$("${run[@]}" run --from devel -- cat /kept)" = kept ] && [ "$("${run[@]}" run --as-user -- id -u)" = 1000 ] &&
            [ "$("${run[@]}" run -- sh -c "$5")" = "$6" ] && "${run[@]}" diff devel && "${run[@]}" gc --all
    } </dev/null >"$work/alone.log" 2>&1 || code=$?
    [ $code = 0 ] && note "$(printf 'range\tinit, run, commit, --as-user, diff, gc\tworks')" && return
    failed=yes
    note "$(printf -- '-\tall\tFAILED')"
    echo "FAILED: $place" >&2
    cat "$work/alone.log" >&2
}
alone 'docker, an image of nothing but the binary, a box of glibc' "$work/none" sandbox-none:1 "$tree" 'rpm --version | cut -c 1-3' RPM
alone 'docker, an image of busybox and musl, a box of glibc' "$work/musl" sandbox-musl:1 "$tree" 'rpm --version | cut -c 1-3' RPM
alone 'docker, an image of nothing but the binary, a box of musl' "$work/none" sandbox-none:1 "$work/musl.tar" probe 'by musl'
kill "$engine" && wait "$engine" || true
engine=''

### podman
mkdir "$work/p"
podman=(podman --root "$work/p/root" --runroot "$work/p/run" --tmpdir "$work/p/tmp" --cgroup-manager cgroupfs
    --events-backend none)
# runc also serves machines with cgroup v1 and v2 at once, which crun does not.
! command -v runc >/dev/null || podman+=(--runtime runc)
run=("${podman[@]}" run --ulimit nofile=1024:1024 --ulimit nproc=4096:4096)
image=localhost/sandbox-outer:1
"${podman[@]}" import --quiet "$tree" $image >/dev/null 2>"$work/podman.log"
fresh
try 'podman seccomp=docker-nested.json, root' "$volume" --security-opt "$nested" -- sh /job.sh fresh-proc owners
fresh
try 'podman seccomp=docker-nested.json, unmask=ALL, root' "$volume" --security-opt "$nested" --security-opt unmask=ALL \
    -- sh /job.sh
fresh 1000
try 'podman seccomp=docker-nested.json, unmask=ALL, user' "$volume" --user 1000 --security-opt "$nested" \
    --security-opt unmask=ALL -- sh /job.sh
# Its own filter has everything but the host name.
fresh
try 'podman, no flags' "$volume" -- sh /job.sh fresh-proc hostname owners

[ -z "${SANDBOX_HOSTS_TABLE:-}" ] || cat "$table" >>"$SANDBOX_HOSTS_TABLE"
echo "==== docker: $(cut -f1 "$table" | sort -u | wc -l) places, $(wc -l <"$table") rows"
[ $failed = no ]
