# common.sh: sourced by the scripts that boot virtual machines.
#
# A machine is qemu with one processor and no network, and runs from memory: the initial file system has all
# that it needs, disks are for what is tested. It needs no root and no KVM: without, it boots in 3 seconds.
#
#   SANDBOX_BIN       the binary under test; must be static (default: integration/build.sh --static)
#   SANDBOX_VM_KERNEL the kernel where one is enough (default 6.12)
#   SANDBOX_VM_ACCEL  qemu's -accel (default tcg)
#   SANDBOX_VM_KEEP=1 leaves the folder with disks and logs there (so does a failure outside CI)

vm=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin
[ "$(uname -m)" = x86_64 ] || {
    echo "vm: virtual machines are tested on x86-64 only; this is $(uname -m)" >&2
    exit 1
}
"$vm/../setup.sh" vm || exit 1
binary=${SANDBOX_BIN:-$("$vm/../build.sh" --static)}

work=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-vm.XXXXXX")
machine=''
# What a machine has besides, as words for qemu.
also=()
# On a busy host the processor's own clock is calibrated wrongly, and then runs several times too fast.
clock='tsc=unstable clocksource=acpi_pm no_timer_check'
# shellcheck disable=SC2329
finish() {
    local code=$?
    stop
    if [ -n "${SANDBOX_VM_KEEP:-}" ] || { [ $code != 0 ] && [ "${CI:-}" != true ]; }; then
        echo "vm: disks and logs are in $work" >&2
    else
        rm -rf "$work"
    fi
}
trap finish EXIT
trap 'exit 130' INT TERM

# boot COMMANDLINE DISK...: starts a machine that is up. One that hangs before it comes to our programs is
# ended and tried again: that is not what is tested.
boot() {
    local try
    for try in 1 2 3; do
        start "$@"
        ! until_said '^UP$' 180 || return 0
        echo "vm: the kernel did not come up (try $try of 3)" >&2
        tail -n 5 "$work/console" "$work/qemu" >&2
        stop
    done
    return 1
}

# start COMMANDLINE DISK...: boots in the background. What the job says comes to $work/said, the kernel's
# messages to $work/console.
start() {
    local words=$1 drives=()
    shift
    for disk; do
        # What the guest wrote is with the host when qemu is killed; what it only has in memory is lost.
        drives+=(-drive "file=$disk,format=raw,if=virtio,cache=writeback")
    done
    : >"$work/said"
    # cx16: qemu 7.2 loses flags in cmpxchg16b now and then, and the kernel does not live through that.
    nice -n 5 qemu-system-x86_64 -accel "${SANDBOX_VM_ACCEL:-tcg}" -cpu max,-cx16 -M pc -smp 1 -m 512 \
        -nodefaults -no-user-config -display none -no-reboot \
        -serial "file:$work/console" -serial "file:$work/said" \
        -kernel "$kernel/vmlinuz" -initrd "$work/initrd" "${drives[@]}" "${also[@]}" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off $clock $words" \
        </dev/null >"$work/qemu" 2>&1 &
    machine=$!
}

# stop: ends the machine the way a power cut does.
stop() {
    [ -n "$machine" ] || return 0
    kill -KILL "$machine" 2>/dev/null || true
    wait "$machine" 2>/dev/null || true
    machine=''
}

# until_said PATTERN SECONDS: waits until the job says a line that matches. Fails when the machine ends
# before, or the time is over.
until_said() {
    local end=$((SECONDS + $2))
    until grep -Eq "$1" "$work/said"; do
        [ $SECONDS -lt $end ] && kill -0 "$machine" 2>/dev/null || {
            # The last words may have come with the end.
            grep -Eq "$1" "$work/said"
            return
        }
        sleep 0.05
    done
}

# until_said_so_often PATTERN COUNT SECONDS: waits until so many lines match.
until_said_so_often() {
    local end=$((SECONDS + $3))
    until [ "$(grep -Ec "$1" "$work/said" || true)" -ge "$2" ]; do
        [ $SECONDS -lt $end ] && kill -0 "$machine" 2>/dev/null || return
        sleep 0.05
    done
}

# finished SECONDS: waits for the end of a machine that switches itself off after `OK`.
finished() {
    local end=$((SECONDS + $1))
    while kill -0 "$machine" 2>/dev/null; do
        [ $SECONDS -lt $end ] || break
        sleep 0.1
    done
    stop
    grep -q '^OK$' "$work/said"
}

# tell WHAT: what a machine said and what its kernel said, when it went wrong.
tell() {
    echo "vm: $1" >&2
    tail -n 30 "$work/said" "$work/console" "$work/qemu" >&2 || true
}

# disk NAME MEGABYTES [ext4|xfs [DIR]]: a disk, sparse, empty or (ext4) with what is in DIR; prints its path.
disk() {
    local path=$work/$1
    rm -f "$path"
    truncate -s "$2M" "$path"
    case ${3:-} in
    ext4) mkfs.ext4 -q -F -E nodiscard ${4:+-d "$4"} "$path" >&2 ;;
    xfs) mkfs.xfs -q -f -K "$path" >&2 ;;
    esac
    echo "$path"
}

# use VERSION [PROGRAM...]: the kernel of the machines that follow, and what they have of this machine besides.
use() {
    kernel=$("$vm/kernel.sh" "$1")
    "$vm/image.sh" "$binary" "$kernel" "$work/initrd" "${@:2}"
}
