# cgroups-user.sh NAME WANTED: limits as whoever calls: held, held where only one process is there (alone), or lost;
# a run that stays, and what joins it (stays, apart, joins); a run to be killed, and one after it (sleeps, beside).
set -eu
export SANDBOX_BUDGET=off SANDBOX_BASE_DIR=/mnt/$1/store TMPDIR=/mnt/$1
[ -e "$SANDBOX_BASE_DIR" ] || {
    mkdir -m 0700 "$SANDBOX_BASE_DIR"
    sandbox init --from tar:/tree.tar
}
report=/mnt/$1/report
if [ "$2" = alone ]; then
    # This shell becomes the sandbox, so that there is one process.
    exec sandbox run --strict --memory 32M --pids 20 --cpus 0.5 --report $report -- /bin/sh -c \
        '[ "$(cat /proc/self/cgroup)" = 0::/ ] && echo inside'
fi
# One of two processes, so that the cgroup above is taken.
if [ "$2" = beside ]; then
    sandbox run --strict --memory 32M -- true
    exit
fi
[ "$2" != sleeps ] || exec sandbox run --strict --memory 32M -- /bin/busybox sleep 1000
# refused NAME WHY: nothing joins the run that stays, and the fault is this.
refused() {
    local found=0
    sandbox exec web -- /bin/busybox echo joined >/tmp/out-$1 2>&1 || found=$?
    [ $found = 125 ] && ! grep -q joined /tmp/out-$1 && grep -q "$2" /tmp/out-$1 || { echo "exit $found"; cat /tmp/out-$1; exit 1; }
}
case $2 in
stays) exec sandbox start --name web --memory 64M --pids 6 -- /bin/busybox sleep 1000 ;;
apart)
    refused apart "enter: the cgroup of the run"
    exit
    ;;
joins)
    path=$(find /sys/fs/cgroup -name 'sandbox-r-*')
    [ "$(sandbox exec web -- cat /proc/self/cgroup)" = 0::/ ]
    sandbox exec web -- /bin/sh -c 'for n in 1 2 3; do /bin/busybox sleep 1000 & done; wait' 2>/dev/null &
    for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        [ "$(cat "$path/pids.current")" = 7 ] && break
        sleep 0.5
    done
    # All processes that it may have: in our own cgroup there is room, and nothing is started there.
    refused full "has as many processes"
    sandbox stop web --discard
    wait
    exit
    ;;
esac
# run CODE FLAGS -- CMD: with this exit code.
run() {
    local code=$1 found=0
    shift
    rm -f $report
    sandbox run --report $report "$@" || found=$?
    [ $found = "$code" ] || {
        echo "exit $found, not $code: $*"
        cat $report || true
        exit 1
    }
}
has() { grep -q "$1" $report || { echo "the report has no $1: $(cat $report)"; exit 1; }; }
fill='/bin/busybox dd if=/dev/zero of=/dev/shm/x bs=1M count=64 2>/dev/null'
if [ "$2" = lost ]; then
    run 0 --memory 32M --pids 20 --cpus 0.5 -- true
    for protection in memory pids cpus; do has "\"protection\":\"$protection\""; done
    rm -f $report
    ! sandbox run --strict --memory 32M -- true || exit 1
    exit 0
fi
# Memory: files in memory count, and there is no swap beside it.
run 137 --strict --memory 24M -- /bin/sh -c "exec $fill"
has '"error":"memory"'
has '"oom_kills":[1-9]'
run 0 --strict --memory 128M -- /bin/sh -c "$fill; [ \"\$(cat /proc/self/cgroup)\" = 0::/ ]"
has '"lost":\[\]'
# Processes: the command is one, ours do not count.
run 0 --strict --pids 2 -- /bin/sh -c '/bin/busybox true; true'
run 0 --strict --pids 5 -- /bin/sh -c '(for n in 1 2 3 4 5 6 7 8; do /bin/busybox sleep 100 & done) 2>/dev/null; true'
has '"pids_refused":[1-9]'
# Processor time, and what the others are set to.
sandbox run --memory 32M --pids 20 --cpus 0.5 -- /bin/busybox sleep 1000 &
supervisor=$!
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    path=$(find /sys/fs/cgroup -name 'sandbox-r-*' -o -name 'sandbox-[0-9a-z]*' | head -n 1)
    [ -n "$path" ] && grep -q . "$path/cgroup.procs" && break
    sleep 0.5
done
[ "$(cat "$path/cpu.max")" = "50000 100000" ] && [ "$(cat "$path/memory.max")" = 33554432 ] &&
    [ "$(cat "$path/pids.max")" = 21 ] || { echo "limits of $path"; cat $path/*.max; exit 1; }
[ "$(cat "$path/memory.swap.max" 2>/dev/null || echo 0)" = 0 ]
# A supervisor that is killed leaves a cgroup; the next one takes it away.
kill -9 $supervisor
wait $supervisor || true
for try in 1 2 3 4 5 6 7 8 9 10; do
    grep -q . "$path/cgroup.procs" || break
    sleep 0.5
done
[ -d "$path" ]
run 0 --memory 32M -- true
[ ! -d "$path" ] || { echo "left: $path"; exit 1; }
