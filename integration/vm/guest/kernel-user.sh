# kernel-user.sh NAME: the main job, as whoever calls.
set -eu
say() { echo "$*" >&3; }
# How full this small disk is must not matter here.
export SANDBOX_BUDGET=off
export SANDBOX_BASE_DIR=/mnt/$1/store
export TMPDIR=/mnt/$1
mkdir -m 0700 "$SANDBOX_BASE_DIR"
sandbox doctor --json >/mnt/$1/doctor || true
say "OVERLAY $1 $(sed -n 's/.*"overlay": *"\([^"]*\)".*/\1/p' /mnt/$1/doctor)"
# expect TEXT CMD...: what the command prints has this.
expect() {
    local text=$1 found
    shift
    found=$("$@")
    case $found in
    *"$text"*) ;;
    *)
        echo "$*: has no '$text': $found"
        return 1
        ;;
    esac
}
sandbox init --from tar:/tree.tar
expect "uid=0" sandbox run -- /bin/busybox id
for n in 1 2 3 4; do
    from=s$((n - 1))
    [ $n != 1 ] || from=postinit
    sandbox run --from $from --commit s$n -- /bin/vm-guest fill /data $n
done
for n in 1 4; do
    sandbox run --from s$n -- /bin/vm-guest check /data $n
done
expect '"s4"' sandbox list --json
# What was there is gone, what is new is there, what is read-only stays so.
expect /data/d1 sandbox diff s3 s4
! sandbox run --profile strict -- /bin/vm-guest fill /data 9
expect deep sandbox run --from s4 --keep=force -- /bin/sh -c \
    '/bin/busybox mkdir -p /a/b && cd /a && /bin/busybox mv b c && echo deep >c/f && cat /a/c/f'
# No protection is missing, and Landlock of either version keeps what is given to be read.
echo given >"$TMPDIR/given"
sandbox run --strict -- /bin/sh -c 'echo bad >>/dev/stdin || exit 0; exit 1' <"$TMPDIR/given"
expect given cat "$TMPDIR/given"
sandbox rm s4
sandbox gc --all
expect '"s3"' sandbox list --json
