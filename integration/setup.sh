#!/bin/sh
# setup.sh GROUP...: what the make targets need from the machine; installs what is missing.
#
# Groups: build, test, vm, engine-vm, dist, engines, bench, lint. Root, or a user whom `sudo -n` lets, gets the packages
# installed; anybody else is told in one line for each package manager. Nothing missing: no output.
set -eu
PATH=$PATH:$HOME/.cargo/bin:/usr/sbin:/sbin

apt='' dnf='' rust=''
# lacks CHECK APT DNF: remembers both packages when the shell command CHECK fails.
lacks() {
    if ! eval "$1" >/dev/null 2>&1; then
        apt="$apt $2" dnf="$dnf $3"
    fi
}
has() { command -v "$1" >/dev/null 2>&1; }
musl=$(uname -m)-unknown-linux-musl
# Where the compiler would find libseccomp.a (Debian: multiarch folder, Fedora: lib64).
static_seccomp() { has cc && [ -f "$(cc -print-file-name=libseccomp.a)" ]; }
musl_std() { has rustc && [ -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ]; }

look() {
    apt='' dnf='' rust=''
    for group; do
        case $group in
        build)
            lacks 'has cc' build-essential gcc
            lacks 'has make' make make
            lacks 'has pkg-config' pkg-config pkgconf-pkg-config
            lacks 'pkg-config --exists libseccomp' libseccomp-dev libseccomp-devel
            has cargo || rust="$rust cargo"
            ;;
        test)
            lacks 'has newuidmap && has newgidmap' uidmap shadow-utils
            lacks 'has setpriv && has flock' util-linux util-linux
            lacks 'has mmdebstrap' mmdebstrap mmdebstrap
            lacks '[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]' debian-archive-keyring debian-keyring
            lacks 'has rpm' rpm rpm
            lacks 'has rpmbuild' rpm rpm-build
            lacks 'has dpkg-deb' dpkg dpkg
            lacks 'has xz' xz-utils xz
            lacks 'has zstd' zstd zstd
            # What udev gives everybody, and a machine without it root alone.
            [ "$(id -u)" != 0 ] || [ ! -c /dev/net/tun ] || chmod 0666 /dev/net/tun
            lacks 'has pasta' passt passt
            lacks 'has slirp4netns' slirp4netns slirp4netns
            lacks 'has ps' procps procps-ng
            lacks 'has getfattr && has setfattr' attr attr
            lacks 'has script' bsdutils util-linux-script
            ;;
        vm)
            lacks 'has qemu-system-x86_64' qemu-system-x86 qemu-system-x86-core
            # Debian's plain busybox is not static.
            lacks 'has busybox && ! ldd "$(command -v busybox)" 2>/dev/null | grep -q "=>"' busybox-static busybox
            lacks 'has apt-get && has dpkg-deb' 'apt dpkg' 'apt dpkg'
            lacks '[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]' debian-archive-keyring debian-keyring
            lacks 'has depmod && has modprobe' kmod kmod
            lacks 'has cpio' cpio cpio
            lacks 'has xz' xz-utils xz
            lacks 'has strip' binutils binutils
            lacks 'has dmsetup' dmsetup device-mapper
            lacks 'has strace' strace strace
            lacks 'has newuidmap && has newgidmap' uidmap shadow-utils
            lacks 'has mkfs.ext4' e2fsprogs e2fsprogs
            lacks 'has mkfs.xfs' xfsprogs xfsprogs
            ;;
        dist)
            lacks 'has musl-gcc' musl-tools 'musl-gcc musl-libc-static'
            lacks static_seccomp libseccomp-dev libseccomp-static
            musl_std || rust="$rust $musl"
            ;;
        engines)
            # Only root can start one, or mount a disk. Neither needs its service.
            if [ "$(id -u)" = 0 ]; then
                lacks 'has mkfs.ext4' e2fsprogs e2fsprogs
                lacks 'has mkfs.xfs' xfsprogs xfsprogs
                lacks 'has mkfs.btrfs' btrfs-progs btrfs-progs
                lacks 'has bindfs' bindfs bindfs
                lacks 'has dockerd && has docker' docker.io moby-engine
                lacks 'has runc' runc runc
                lacks 'has podman' podman podman
            fi
            ;;
        engine-vm)
            # Nobody starts it here.
            lacks 'has dockerd && has docker && has containerd' docker.io moby-engine
            lacks 'has runc' runc runc
            lacks 'has apparmor_parser' apparmor apparmor-parser
            lacks 'has rpmbuild' rpm rpm-build
            lacks 'has mmdebstrap' mmdebstrap mmdebstrap
            ;;
        bench)
            lacks 'has bwrap' bubblewrap bubblewrap
            lacks 'has buildah' buildah buildah
            lacks 'has strace' strace strace
            ;;
        lint)
            has cargo && cargo fmt --version >/dev/null 2>&1 || rust="$rust rustfmt"
            has cargo && cargo clippy --version >/dev/null 2>&1 || rust="$rust clippy"
            ;;
        *)
            echo "setup: no group $group" >&2
            exit 2
            ;;
        esac
    done
}

unique() { printf '%s\n' $1 | sort -u | tr '\n' ' ' | sed 's/ $//'; }

# The toolchain: the distribution's rustup where there is one, because many releases carry a Rust
# older than ours (Cargo.toml, rust-version).
install_rust() {
    if ! has rustup && ! has cargo; then
        if has apt-get && apt-cache policy rustup | grep -q 'Candidate: [0-9]'; then
            $sudo apt-get install -y -q rustup && rustup default stable
        elif has dnf; then
            $sudo dnf install -y -q cargo rustfmt clippy
        fi
    fi
    for part in $rust; do
        case $part in
        cargo) ;;
        *-musl)
            if has rustup; then
                rustup target add "$part"
            elif has dnf; then
                $sudo dnf install -y -q "rust-std-static-$part"
            fi
            ;;
        *) ! has rustup || rustup component add "$part" ;;
        esac
    done
}

look "$@"
[ -n "$apt$dnf$rust" ] || exit 0

sudo=''
if [ "$(id -u)" = 0 ]; then
    may=yes
elif sudo -n true 2>/dev/null; then
    may=yes sudo='sudo -n'
else
    may=no
fi

if [ $may = yes ]; then
    if [ -n "$apt$dnf" ]; then
        echo "setup: installing:$apt" >&2
        if has apt-get; then
            # stdin away: a package's question must never stop a run without a terminal.
            { $sudo apt-get update -q && $sudo env DEBIAN_FRONTEND=noninteractive \
                apt-get install -y -q --no-install-recommends $(unique "$apt"); } </dev/null >&2 || true
        elif has dnf; then
            $sudo dnf install -y -q $(unique "$dnf") </dev/null >&2 || true
        fi
    fi
    # A user's own toolchain needs no root.
    [ -z "$rust" ] || install_rust </dev/null >&2 || true
elif [ -n "$rust" ] && has rustup; then
    install_rust </dev/null >&2 || true
fi

look "$@"
[ -n "$apt$dnf$rust" ] || exit 0
{
    echo "setup: missing; install as root:"
    [ -z "$apt" ] || echo "  Debian, Ubuntu:  apt-get install $(unique "$apt")"
    [ -z "$dnf" ] || echo "  Fedora, RHEL:    dnf install $(unique "$dnf")"
    [ -z "$rust" ] || echo "  Rust 1.89 or newer with $(unique "$rust"): the packages rustup or cargo, or https://rustup.rs"
} >&2
exit 1
