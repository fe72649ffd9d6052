# cuts-user.sh: the part of cuts.sh that a user does. A line is said only when its command has exited with 0.
say() { echo "$*" >&3; }
. /jobs/store.sh

if [ "$state" = - ]; then
    sandbox init -q --from tar:/tree.tar || exit
    say "INIT"
    state=0
fi
verify "$state" "$gone"
swept
say "CHECKED $violations"
[ $violations = 0 ] || exit

n=$last
until [ "$cut" = no ] && [ "$n" -ge $((last + 3)) ]; do
    n=$((n + 1))
    commit $n || exit
    say "COMMIT $n"
    [ $((n % 4)) = 0 ] || continue
    while [ $((n - gone)) -gt 6 ]; do
        gone=$((gone + 1))
        sandbox rm -q "s$gone" || exit
        say "GONE $gone"
    done
    sandbox gc -q || exit
    say "GC"
done
verify "$n" "$gone"
[ $violations = 0 ]
