# flushes.sh: commits as a user on a file system whose disk keeps a log of its writes (dm-log-writes), each
# acknowledgement marked in the log. Then every state that the disk may have had when power went is made on
# another disk, mounted and looked at.
#
#   /dev/vda the disk, /dev/vdb its log, /dev/vdc a copy of vda from before, /dev/vdd room for changes
#   commits=N  snapshots to take         torn=N       states to try where writes are on their way
#   leave_out= syncfs or fsync: pretends to the supervisor of the run that this call had been done
as() { su user -c ". /jobs/store.sh; $*" </dev/null; }
. /jobs/store.sh

# No udev here: dmsetup makes the nodes itself.
export DM_DISABLE_UDEV=1
size=$(blockdev --getsz /dev/vda)
dmsetup create logged --table "0 $size log-writes /dev/vda /dev/vdb" || give_up "dm-log-writes"
mark() { dmsetup message logged 0 mark "$1" || give_up "mark"; }
mount -t "$fs" /dev/mapper/logged /mnt || give_up "mount of the disk"
mkdir -m 0700 /mnt/store && chown user /mnt/store
as sandbox init -q --from tar:/tree.tar || give_up "init"
mark 0,0,0

pretend=
[ -z "$leave_out" ] || pretend="strace -qq -o /dev/null -e trace=$leave_out -e inject=$leave_out:retval=0"
n=0 gone=0
while [ $n -lt "$commits" ]; do
    n=$((n + 1))
    as "commit $n $pretend" || give_up "commit $n"
    mark $n,$gone,$gone
    [ $((n % 3)) = 0 ] || continue
    mark $n,$gone,$((gone + 1))
    gone=$((gone + 1))
    as sandbox rm -q s$gone || give_up "rm"
    mark $n,$gone,$gone
    as sandbox gc -q || give_up "gc"
done
away /mnt
dmsetup remove logged || give_up "end of the log"
say "LOGGED $n commits"

# look MARK HOW: whether all that was acknowledged at MARK is on /dev/mapper/state, which is used up by it.
states=0 early=0 bad=0
look() {
    states=$((states + 1))
    mount -t "$fs" /dev/mapper/state /mnt || give_up "mount of state $states"
    if [ "$1" = - ]; then
        [ ! -d /mnt/store ] || as begin_again
    elif [ $((states % 5)) = 0 ]; then
        as "verify $(echo "$1" | tr , " "); swept; goes_on; none_found"
    else
        as "verify $(echo "$1" | tr , " "); none_found"
    fi || {
        bad=$((bad + 1))
        say "STATE $states $2"
    }
    away /mnt
    dmsetup remove --retry state || give_up "end of state $states"
}
copy() {
    dmsetup create state --table "0 $size snapshot /dev/vdc /dev/vdd N 8" || give_up "dm-snapshot"
}

vm-guest plan /dev/vdb "$torn" >/tmp/plan || give_up "plan"
while read -r what from to mark seed; do
    # States of a store that is just being made are many, and much alike: one in three. None where the test
    # itself is tested.
    if [ "$mark" = - ]; then
        early=$((early + 1))
        [ -z "$leave_out" ] && [ $((early % 3)) = 0 ] || {
            [ $what = tear ] || vm-guest apply /dev/vdb /dev/vdc "$from" "$to" || give_up "$what $from $to"
            continue
        }
    fi
    case $what in
    apply)
        vm-guest apply /dev/vdb /dev/vdc "$from" "$to" || give_up "$what $from $to"
        copy
        ;;
    tear)
        copy
        vm-guest tear /dev/vdb /dev/mapper/state "$from" "$to" "$seed" || give_up "$what $from $to"
        ;;
    esac
    look "$mark" "$what $from $to, acknowledged: $mark"
    [ $((states % 25)) != 0 ] || say "SEEN $states"
    # A few are enough to know.
    [ $bad -lt 3 ] || break
done </tmp/plan
say "STATES $states BAD $bad"
