# cgroups.sh: whether limits hold by cgroup v2, for root and for users with and without a place to make one.
mount -t "$fs" /dev/vda /mnt || give_up "mount of the disk"
top=/sys/fs/cgroup
mount -t cgroup2 -o nsdelegate cgroup2 $top || give_up "cgroup2"
for name in user single root; do
    mkdir "/mnt/$name" && chown $name "/mnt/$name" || give_up "folder of $name"
done
# work NAME USER CGROUP WANTED: the job as this user, in this cgroup.
work() {
    local name=$1 user=$2 cgroup=$3
    sh -c "echo \$\$ >$cgroup/cgroup.procs && exec su $user -c 'exec /bin/sh /jobs/cgroups-user.sh $user $4'" \
        >/tmp/said-$name 2>&1 && ! find $top -name 'sandbox-*' | grep . >>/tmp/said-$name && say "WORKS $name" || {
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
