# kernel.sh: whether the main job works on this kernel: as a user with sub-ids, as one without, as root, and
# what is said where users may make no user namespace.
mount -t "$fs" /dev/vda /mnt || give_up "mount of the disk"
for name in user single root; do
    mkdir "/mnt/$name" && chown $name "/mnt/$name" || give_up "folder of $name"
    su $name -c "/bin/sh /jobs/kernel-user.sh $name" >/tmp/said-$name 2>&1 && say "WORKS $name" || {
        say "BROKEN $name"
        while read -r line; do say "  $line"; done </tmp/said-$name
    }
done

# Before 6.6 a tmpfs keeps no user xattrs, which an upper needs: refused, never half-way.
memory() {
    local what=$1
    shift
    su user -c "SANDBOX_BASE_DIR=$*" >/tmp/said 2>&1 && say "MEMORY $what works" && return
    grep -q 'user xattrs' /tmp/said && say "MEMORY $what refused" && return
    say "BROKEN $what in memory"
    while read -r line; do say "  $line"; done </tmp/said
}
memory upper /mnt/user/store sandbox run --from s3 --upper tmpfs -- /bin/vm-guest fill /data 4
mkdir /tmp/memory && mount -t tmpfs -o mode=0777 tmpfs /tmp/memory || give_up "tmpfs"
memory store "/tmp/memory/store sh -c 'sandbox init --from tar:/tree.tar &&
    sandbox run --commit s1 -- /bin/vm-guest fill /data 8 && sandbox run --from s1 -- /bin/vm-guest fill /data 9'"

# Debian's own switch, for those who do not want it.
echo 0 >/proc/sys/kernel/unprivileged_userns_clone || give_up "no such sysctl"
# try CODE PATTERN CMD...: as the user, exit code and a line of what is said.
try() {
    local code=$1 pattern=$2 found
    shift 2
    su user -c "SANDBOX_BASE_DIR=/mnt/user/store $*" >/tmp/said 2>&1 && found=0 || found=$?
    [ $found = "$code" ] && grep -q -e "$pattern" /tmp/said || {
        say "BROKEN without user namespaces: $*: exit $found, not $code, or no '$pattern':"
        while read -r line; do say "  $line"; done </tmp/said
        return 1
    }
}
remedy='sysctl .*kernel.unprivileged_userns_clone=1'
try 125 "$remedy" sandbox run -- true && try 6 "$remedy" sandbox doctor && try 0 s1 sandbox list &&
    say "WORKS without user namespaces"
