# docker.sh: what `docker run --privileged` gives, as root and as a user.
mount -t "$fs" /dev/vda /mnt || give_up "mount of the disk"
mkdir /goods && mount -t ext4 -o ro /dev/vdb /goods || give_up "mount of the goods"
mount -t securityfs securityfs /sys/kernel/security || give_up "securityfs"
mkdir -p /var/run /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup || give_up "cgroup2"
# The image: busybox and its names.
mkdir -p /mnt/image/bin /mnt/image/tmp /mnt/image/etc
cp /bin/busybox /mnt/image/bin/
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "/mnt/image/bin/$applet"; done
cp /etc/passwd /etc/group /mnt/image/etc/
chmod 1777 /mnt/image/tmp

# What a parser without one says, an engine takes for its version.
mkdir /etc/apparmor && : >/etc/apparmor/parser.conf

said() { while read -r line; do say "  $line"; done; }
dockerd --data-root /mnt/docker --storage-driver overlay2 --bridge=none --iptables=false --ip6tables=false \
    --ip-forward=false --ip-masq=false >/tmp/dockerd 2>&1 &
for try in $(seq 120); do
    docker version >/dev/null 2>&1 && break
    sleep 1
done
tar -C /mnt/image -c . | docker import - outer:1 >/tmp/said 2>&1 || {
    tail -n 20 /tmp/dockerd | said
    said </tmp/said
    give_up "docker import"
}

# inside VOLUME ARGS... -- CMD...: in a container with this store, `--rm` and all that the jobs need.
inside() {
    local volume=$1 args=''
    shift
    while [ "$1" != -- ]; do
        args="$args $1"
        shift
    done
    shift
    docker run --rm --network none $args -e SANDBOX_BUDGET=off -e SANDBOX_BASE_DIR=/store -e PATH=/usr/local/bin:/bin \
        -v "$volume:/store" -v /bin/sandbox:/usr/local/bin/sandbox:ro -v /goods/tree.tar:/tree.tar:ro \
        -v /goods/demo.rpm:/demo.rpm:ro -v /goods/job.sh:/job.sh:ro outer:1 "$@" </dev/null
}
# try PLACE VOLUME ARGS... -- CMD...: its rows are told.
try() {
    local place=$1
    shift
    if inside "$@" >/tmp/rows 2>/tmp/said; then
        while read -r line; do say "ROW $place (VM)	$line"; done </tmp/rows
        say "WORKS $place"
    else
        say "BROKEN $place"
        said </tmp/rows
        said </tmp/said
    fi
}
# An engine that is older than the kernel does not know the newest three.
has=$(docker run --rm --privileged --network none outer:1 grep -E '^(CapEff|Seccomp):' /proc/self/status 2>&1 | tr -d '\t\n')
case $has in
CapEff:0000003fffffffffSeccomp:0 | CapEff:000001ffffffffffSeccomp:0) ;;
*) say "BROKEN --privileged: $has" ;;
esac
try 'docker --privileged, root' root --privileged -- sh /job.sh
inside user -- chown 1000 /store 2>&1 | said
try 'docker --privileged, user' user --privileged --user 1000 -- sh /job.sh

# The engine confines all others where AppArmor is on, which takes mounts away.
nested='--security-opt seccomp=/goods/docker-nested.json --security-opt systempaths=unconfined'
has=$(inside root -- cat /proc/self/attr/current 2>&1)
[ "$has" = "docker-default (enforce)" ] || say "BROKEN AppArmor: $has"
# shellcheck disable=SC2016
try 'docker seccomp=docker-nested.json, AppArmor' root $nested -- sh -ec '
    refused() {
        want=$1 got=0
        shift
        sandbox "$@" >/tmp/out 2>&1 || got=$?
        [ $got = $want ] && grep -qE "^ *(hint|remedy): a security module .*--security-opt apparmor=unconfined" /tmp/out && ! grep -q seccomp /tmp/out ||
            { cat /tmp/out >&2; exit 1; }
        printf -- "-\t$1\texit $got, and the remedy\n"
    }
    refused 125 run -- true
    refused 125 shell
    refused 6 doctor
    grep -q "made, but mounts in it are refused" /tmp/out && [ -z "$(ls /store/runs)" ] && sandbox list >/dev/null'
try 'docker seccomp=docker-nested.json, apparmor=unconfined' root $nested --security-opt apparmor=unconfined -- sh -ec '
    sandbox doctor >/dev/null && sandbox run --strict --from devel -- rpm -q demo >/dev/null
    sandbox run --from devel --commit more -- touch /more && sandbox run --from more -- ls /more >/dev/null
    printf "range\trun, strict, commit\tworks\n"'
kill %1
