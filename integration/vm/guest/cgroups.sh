# cgroups.sh: whether limits hold by cgroup v2, for root and for users with and without a place to make one.
mount -t "$fs" /dev/vda /mnt || give_up "mount of the disk"
top=/sys/fs/cgroup
mount -t cgroup2 -o nsdelegate cgroup2 $top || give_up "cgroup2"
for name in user single root; do
    mkdir "/mnt/$name" && chown $name "/mnt/$name" || give_up "folder of $name"
done
# in_cgroup CGROUP USER WANTED: becomes the job of this user, in this cgroup.
in_cgroup() {
    exec sh -c "echo \$\$ >$1/cgroup.procs && exec su $2 -c 'exec /bin/sh /jobs/cgroups-user.sh $2 $3'"
}
# nothing_left: no cgroup of ours is there.
nothing_left() { ! find $top -name 'sandbox-*' | grep .; }
# work NAME USER CGROUP WANTED [AFTER]: the job as this user, in this cgroup, and what must be so after it.
work() {
    local name=$1
    (in_cgroup "$3" "$2" "$4") >/tmp/said-$name 2>&1 && ${5:-nothing_left} >>/tmp/said-$name && say "WORKS $name" || {
        say "BROKEN $name"
        while read -r line; do say "  $line"; done </tmp/said-$name
    }
}
work root root $top held
# As the user manager of systemd leaves it: a subtree is ours, and we are in a leaf of it.
echo "+memory +pids +cpu" >$top/cgroup.subtree_control || give_up "controllers"
mkdir -p $top/slice/scope && chown -R user $top/slice
work delegated user $top/slice/scope held
# Our own cgroup is ours, and nobody else is in it.
mkdir $top/alone && chown -R single $top/alone
work alone single $top/alone alone
mkdir $top/foreign
work foreign user $top/foreign lost
# A run that stays is joined within its limits: from a cgroup that ours cannot be reached from, not at all.
work stays user $top/slice/scope stays true
work apart user $top/foreign apart true
work joins user $top/slice/scope joins
# A supervisor that is killed leaves its own leaf, too.
(in_cgroup $top/alone single sleeps) >/tmp/said-killed 2>&1 &
supervisor=$!
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    grep -q . $top/alone/sandbox-r-*/cgroup.procs 2>/dev/null && break
    sleep 0.5
done
kill -9 $supervisor
wait $supervisor
for try in 1 2 3 4 5 6 7 8 9 10; do
    grep -q . $top/alone/sandbox-*/cgroup.procs || break
    sleep 0.5
done
ls -d $top/alone/sandbox-supervisor-* >/dev/null || give_up "leaf of a killed supervisor: $(cat /tmp/said-killed)"
mkdir $top/alone/next && chown -R single $top/alone/next
work killed single $top/alone/next beside
