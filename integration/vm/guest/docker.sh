# docker.sh: what `docker run --privileged` gives, as root and as a user.
mount -t "$fs" /dev/vda /mnt || give_up "mount of the disk"
mkdir /goods && mount -t ext4 -o ro /dev/vdb /goods || give_up "mount of the goods"
mkdir -p /var/run /sys/fs/cgroup && mount -t cgroup2 cgroup /sys/fs/cgroup || give_up "cgroup2"
# The image: busybox and its names.
mkdir -p /mnt/image/bin /mnt/image/tmp /mnt/image/etc
cp /bin/busybox /mnt/image/bin/
for applet in $(busybox --list); do [ "$applet" = busybox ] || ln -s busybox "/mnt/image/bin/$applet"; done
cp /etc/passwd /etc/group /mnt/image/etc/
chmod 1777 /mnt/image/tmp

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

# try WHO VOLUME ARGS...: the main job in a privileged container, whose rows are told.
try() {
    local who=$1 volume=$2
    shift 2
    if docker run --rm --privileged --network none -e SANDBOX_BUDGET=off -e SANDBOX_BASE_DIR=/store -e PATH=/usr/local/bin:/bin \
        -v "$volume:/store" -v /bin/sandbox:/usr/local/bin/sandbox:ro -v /goods/tree.tar:/tree.tar:ro \
        -v /goods/demo.rpm:/demo.rpm:ro -v /goods/job.sh:/job.sh:ro "$@" outer:1 sh /job.sh </dev/null >/tmp/rows 2>/tmp/said; then
        while read -r line; do say "ROW docker --privileged, $who (VM)	$line"; done </tmp/rows
        say "WORKS $who"
    else
        say "BROKEN $who"
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
try root root
docker run --rm --privileged --network none -v user:/store outer:1 chown 1000 /store 2>&1 | said
try user user --user 1000
kill %1
