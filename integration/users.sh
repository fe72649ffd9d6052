#!/bin/sh
# The unprivileged users that the tests run as, because users of sandbox are not root.
#
#   users.sh make                 makes them (root; again: changes nothing)
#   users.sh run USER CMD ARGS    runs CMD as USER: own HOME, clean environment, no capability
#   users.sh drop                 removes them and their homes
#
# sandbox-test has ranges in /etc/subuid and /etc/subgid (id mode `subuid`), sandbox-single has none
# (id mode `single`).
set -eu

# A range of 65536 ids above everything that either file gives away already.
free_range() {
    cat /etc/subuid /etc/subgid 2>/dev/null |
        awk -F: 'BEGIN { top = 524288 } $2 + $3 > top { top = $2 + $3 } END { print top "-" top + 65535 }'
}

has_range() { grep -qs "^$2:" "/etc/$1"; }

make_user() {
    # -r: useradd gives no ranges of its own to a system user, so both users are made alike.
    id "$1" >/dev/null 2>&1 || useradd -r -U -M -d "/var/lib/$1" -s /bin/sh "$1"
    # 0711: programs that take another id of the range (mmdebstrap, dpkg) must get through it.
    install -d -o "$1" -g "$1" -m 0711 "/var/lib/$1"
}

case "${1:-}" in
make)
    make_user sandbox-test
    make_user sandbox-single
    # One range for both files, worked out before either is written.
    range=$(free_range)
    touch /etc/subuid /etc/subgid
    has_range subuid sandbox-test || usermod --add-subuids "$range" sandbox-test
    has_range subgid sandbox-test || usermod --add-subgids "$range" sandbox-test
    if has_range subuid sandbox-single || has_range subgid sandbox-single; then
        echo "users: sandbox-single must have no line in /etc/subuid and /etc/subgid" >&2
        exit 1
    fi
    ;;
run)
    user=$2
    shift 2
    home=$(getent passwd "$user" | cut -d: -f6)
    # Only what the tests and the network need comes along; everything else is what a fresh login has.
    set -- "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin" "$@"
    for name in CI UPDATE_GOLDEN RUST_BACKTRACE CARGO_MANIFEST_DIR TMPDIR http_proxy https_proxy no_proxy \
        $(env | sed -n 's/^\(SANDBOX_[A-Z_]*\)=.*/\1/p'); do
        eval "value=\${$name-}"
        [ -z "$value" ] || set -- "$name=$value" "$@"
    done
    cd "${SANDBOX_TEST_CWD:-$home}"
    exec setpriv --reuid "$user" --regid "$user" --init-groups --inh-caps=-all -- \
        env -i "HOME=$home" "USER=$user" "LOGNAME=$user" LANG=C.UTF-8 "TERM=${TERM:-dumb}" "$@"
    ;;
drop)
    for user in sandbox-test sandbox-single; do
        ! id "$user" >/dev/null 2>&1 || userdel "$user"
        rm -rf "/var/lib/$user"
    done
    ;;
*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
