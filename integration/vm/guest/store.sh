# store.sh: a store whose snapshots s1, s2, ... have known content, and what must hold of it. Sourced by jobs
# and by what they do as a user.
# How full this small disk is must not matter here.
export SANDBOX_BUDGET=off
export SANDBOX_BASE_DIR=/mnt/store
# Chains start anew now and then, so that gc has layers to remove, and are folded before that.
chain=30
export SANDBOX_LONGEST_CHAIN=5

# commit N [STRACE WORDS...]: takes the snapshot sN of state N.
commit() {
    local n=$1 from
    shift
    from=s$((n - 1))
    [ $((n % chain)) != 1 ] || from=postinit
    "$@" sandbox run -q --from $from --commit "s$n" -- /bin/vm-guest fill /data "$n"
}

# listed: the numbers of all snapshots.
listed() {
    sandbox list --json >/tmp/list || return
    tr '{' '\n' </tmp/list | sed -n 's/.*"name": *"s\([0-9]*\)".*/\1/p' | sort -n
}

# verify STATE GONE GOING: says what does not hold. Every snapshot from GOING+1 to STATE was acknowledged and
# must be there; those up to GONE were removed, acknowledged too, and must not; between GONE and GOING a removal
# may be on its way. Whatever is listed, acknowledged or not, must be whole. $last becomes the last one there.
verify() {
    local n names
    names=$(listed 2>/tmp/why) || {
        violation "list: $(cat /tmp/why)"
        return
    }
    last=0
    for n in $names; do
        last=$n
        [ "$n" -gt "$2" ] || violation "s$n was removed and is there again"
        sandbox run -q --from "s$n" -- /bin/vm-guest check /data "$n" 2>/tmp/why ||
            violation "s$n: $(cat /tmp/why)"
    done
    n=$(($3 + 1))
    while [ $n -le "$1" ]; do
        case " "$(echo $names)" " in
        *" $n "*) ;;
        *) violation "s$n was acknowledged and is lost" ;;
        esac
        n=$((n + 1))
    done
}

violations=0
violation() {
    violations=$((violations + 1))
    echo "VIOLATION $*" >&3
}

# verify_head STATE: what `run --keep` acknowledged last is there, or a later one.
verify_head() {
    sandbox run -q -- /bin/sh -c "n=\$(cat /data/state) && [ \$n -ge $1 ] && /bin/vm-guest check /data \$n" \
        2>/tmp/why || violation "head, which was acknowledged at $1: $(cat /tmp/why)"
}

# passing: runs without end that are thrown away; each leaves its number in its record and in its upper. Somewhere in each
# the disk is written to, so that a cut finds runs at each of their steps.
passing() {
    # Also those of an earlier start have other numbers.
    local n=$(($(date +%s) * 1000)) run
    while :; do
        n=$((n + 1))
        sandbox run -q --from postinit -- /bin/sh -c "echo $n >/passing; sleep 1" 2>/tmp/passing &
        run=$!
        sleep 0.$((n % 10))
        sync
        wait $run && continue
        echo "PASSING ended: $(cat /tmp/passing)" >&3
        return
    done
}

# as_recorded: of the runs that a power cut has ended none has the record of another. Before anybody removes them.
as_recorded() {
    local run record upper
    for run in /mnt/store/runs/r-*; do
        record=$(sed -n 's/.*echo \([0-9]*\) >.passing.*/\1/p' "$run/run.json" 2>/dev/null)
        upper=$(cat "$run/layer/fs/passing" 2>/dev/null)
        [ -n "$record" ] && [ -n "$upper" ] || continue
        found=$((found + 1))
        [ "$record" = "$upper" ] || violation "$run: its record is of run $record, its upper of $upper"
    done
    echo "FOUND $found" >&3
}
found=0

# swept: gc and fsck find nothing wrong, and then nothing is left of runs that a power cut ended.
swept() {
    sandbox gc -q 2>/tmp/why || violation "gc: $(cat /tmp/why)"
    sandbox fsck -q >/tmp/why 2>&1 || violation "fsck: $(cat /tmp/why)"
    [ -n "$(ls /mnt/store/runs)" ] || return 0
    # What has no lock yet, or no more, is left alone for ten seconds.
    sleep 11
    sandbox gc -q 2>/tmp/why || violation "gc: $(cat /tmp/why)"
    [ -z "$(ls /mnt/store/runs)" ] || violation "left after gc: $(echo /mnt/store/runs/*)"
}

none_found() { [ $violations = 0 ]; }

# goes_on: after verify, the store takes the next commit.
goes_on() {
    local n=$((last + 1))
    commit $n 2>/tmp/why && sandbox run -q --from "s$n" -- /bin/vm-guest check /data $n 2>>/tmp/why ||
        violation "next commit: $(cat /tmp/why)"
}

# begin_again: a store whose `init` was cut short is filled by another one.
begin_again() {
    sandbox init -q --from tar:/tree.tar 2>/tmp/why || violation "init again: $(cat /tmp/why)"
    verify 0 0 0
    goes_on
    none_found
}
