# places.sh: what is said where there is no place for a store, or no way into a user namespace: by each command, with
# the remedy that helps there and no other, and nothing is left.
mount -t "$fs" /dev/vda /mnt || give_up "mount of the disk"
export SANDBOX_BUDGET=off

# broken WHAT: with what the last command said.
broken() {
    say "BROKEN $*"
    while read -r line; do say "  $line"; done </tmp/said
    return 1
}
# try CODE PATTERN CMD...: as $user with a store at $store, exit code and a line of what is said.
try() {
    local code=$1 pattern=$2 found=0
    shift 2
    su $user -c "export SANDBOX_BASE_DIR=$store; $*" >/tmp/said 2>&1 || found=$?
    [ $found = "$code" ] && grep -q -e "$pattern" /tmp/said ||
        broken "$place: $user: $*: exit $found, not $code, or no '$pattern':"
}

### Where a store cannot lie
# refused KIND DIR
refused() {
    local place=$1 user=root store before
    mkdir -m 0700 $2/there && before=$(find $2)
    for store in $2/there $2/new; do
        try 6 "$store: lies on $1, which cannot" sandbox init --from tar:/tree.tar &&
            try 6 "^hint: .* a local disk" sandbox init --from tar:/tree.tar &&
            try 6 "^no base-dir .* on $1, which cannot" sandbox doctor || return
    done
    store=$2/there
    try 125 "lies on $1" sandbox run -- true || return
    [ "$(find $2)" = "$before" ] || broken "$1: something is left: $(find $2)" || return
    say "REFUSED $1"
}
mkdir /nine
mount -t 9p -o trans=virtio,version=9p2000.L share /nine || give_up "mount of 9p"
refused 9p /nine
umount /nine

# The kernel's own server, of a folder on the disk, to this machine itself. What its helpers in user space would answer is
# there before it asks: who the client is, which folder the handle 0 stands for, and how it is exported (0x2412: to any port,
# without sync and checks of the subtree, with a number as its handle).
mkdir /export /nfs /mnt/export && mount --bind /mnt/export /export && mount -t nfsd nfsd /proc/fs/nfsd || give_up "nfsd"
echo 'nfsd 127.0.0.1 2147483647 all' >/proc/net/rpc/auth.unix.ip/channel &&
    echo 'all 1 \x00000000 2147483647 /export' >/proc/net/rpc/nfsd.fh/channel &&
    echo 'all /export 2147483647 9234 65534 65534 0' >/proc/net/rpc/nfsd.export/channel || give_up "exports of nfsd"
echo '-3 +4' >/proc/fs/nfsd/versions && echo 'tcp 2049' >/proc/fs/nfsd/portlist && echo 2 >/proc/fs/nfsd/threads ||
    give_up "threads of nfsd"
mount -t nfs4 -o vers=4.2,proto=tcp,sec=sys,addr=127.0.0.1,clientaddr=127.0.0.1 127.0.0.1:/ /nfs || give_up "mount of NFS"
# It is one, and can be written to. (Not a file: the server lets nobody open one before it has waited 90 seconds for
# clients of old.)
mkdir /nfs/dir && [ -d /mnt/export/dir ] && rmdir /nfs/dir || give_up "a folder on NFS"
refused NFS /nfs
umount /nfs && echo 0 >/proc/fs/nfsd/threads || give_up "end of nfsd"

### Where there is no user namespace, or not all of its ids
user=user store=/mnt/user/store
mkdir /mnt/user /mnt/single && chown user /mnt/user && chown single /mnt/single
place="to begin with"
try 0 subuid sandbox init --from tar:/tree.tar '&& sandbox show postinit' && try 0 '' sandbox run --commit s1 -- /bin/true ||
    give_up "no store"
# without NAME PATTERN: no run, no box; what reads records goes on.
without() {
    place=$1
    try 125 "^hint: $2" sandbox run -- /bin/true && try 6 "$2" sandbox init other --from tar:/tree.tar &&
        try 6 "remedy: $2" sandbox doctor && try 0 s1 sandbox list && [ -z "$(ls $store/runs)" ] && say "REFUSED $1"
}
was=$(cat /proc/sys/user/max_user_namespaces)
echo 0 >/proc/sys/user/max_user_namespaces
without max_user_namespaces=0 'as root: `sysctl -w user.max_user_namespaces='
echo $was >/proc/sys/user/max_user_namespaces
echo 0 >/proc/sys/kernel/unprivileged_userns_clone
without unprivileged_userns_clone=0 'as root: `sysctl -w kernel.unprivileged_userns_clone=1`'
echo 1 >/proc/sys/kernel/unprivileged_userns_clone
# No module, and nobody who would load it: what a kernel without overlayfs says, too.
rmmod overlay || give_up "rmmod overlay"
place="no overlayfs"
try 125 '^hint: as root: `modprobe overlay`' sandbox run -- /bin/true && try 6 'remedy: as root: `modprobe overlay`' sandbox doctor &&
    try 0 s1 sandbox list && [ -z "$(ls $store/runs)" ] && say "REFUSED no overlayfs"
insmod /modules/overlay.ko || give_up "module overlay"

# ids WHAT PATTERN BOX: a box of many ids is refused, a new one has the mode `single`, and doctor says how to have more.
ids() {
    place=$1
    try 125 "^hint: $2" sandbox run -- /bin/true && try 6 "^hint: $2" sandbox init -b many --ids subuid --from tar:/tree.tar &&
        try 0 "remedy: $2" sandbox doctor &&
        try 0 '"mode": *"single"' "sh -c 'sandbox init -b $3 --from tar:/tree.tar && sandbox run -b $3 -- /bin/true &&
            sandbox run -b $3 --as-user --commit u -- /bin/sh -c \"/bin/busybox id -u | /bin/busybox grep -x 1000 && echo x >/tmp/x\" &&
            sandbox show -b $3 postinit --json'" && say "REFUSED $1"
}
mv /bin/newuidmap /bin/away
ids "no newuidmap" 'install the package uidmap' a
mv /bin/away /bin/newuidmap
chmod 0755 /bin/newgidmap
ids "newgidmap not setuid" 'as root: `chmod u+s .*/newgidmap`' b
chmod 4755 /bin/newgidmap
cp /etc/subuid /etc/was && : >/etc/subuid
ids "no sub-ids" 'as root: `usermod --add-subuids' c
