# cuts-user.sh: the part of cuts.sh that a user does. A line is said only when its command has exited with 0.
say() { echo "$*" >&3; }
. /jobs/store.sh
# So many snapshots stay.
window=6

if [ "$state" = - ]; then
    sandbox init -q --from tar:/tree.tar || exit
    say "INIT"
    state=0
fi
as_recorded
# Where the power was cut, one more may have been on its way (below).
going=$gone
[ $((state + 1 - gone)) -le $window ] || going=$((gone + 1))
verify "$state" "$gone" "$going"
[ "$head" = - ] || verify_head "$head"
swept
say "CHECKED $violations"
[ $violations = 0 ] || exit

# What was on its way has arrived: it is not to be removed again.
[ "$going" = "$gone" ] || listed | grep -qx "$going" || {
    gone=$going
    say "GONE $gone"
}

# Beside all that: runs that are thrown away.
passing &
beside=$!
trap 'kill $beside 2>/dev/null' EXIT

n=$last
until [ "$cut" = no ] && [ "$n" -ge $((last + 3)) ]; do
    n=$((n + 1))
    commit $n || exit
    say "COMMIT $n"
    [ $((n % 4)) = 0 ] || continue
    while [ $((n - gone)) -gt $window ]; do
        gone=$((gone + 1))
        sandbox rm -q "s$gone" || exit
        say "GONE $gone"
    done
    sandbox run -q --keep=force --from s$n -- /bin/vm-guest fill /data $((n + 1)) || exit
    say "HEAD $((n + 1))"
    sandbox gc -q || exit
    say "GC"
done
kill $beside
wait
verify "$n" "$gone" "$gone"
[ $violations = 0 ]
