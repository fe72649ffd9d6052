#!/bin/sh
# build.sh [--static]: the release binary; prints its path.
#
# One static file (musl) where the machine has what that takes: it can be dropped into any image, and it
# starts several times faster, since there is no dynamic loader and no set-up of glibc. Otherwise a glibc
# build, which --static refuses.
set -eu
cd "$(dirname -- "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
target=$(uname -m)-unknown-linux-musl
out=${CARGO_TARGET_DIR:-$PWD/target}

# The distribution's libseccomp.a is made for glibc. Alone in a folder of its own (beside it lies glibc's
# libc.a, which must not be picked up) and with the one function added that it takes from glibc, it links
# with musl as well.
seccomp_for_musl() {
    lib=$out/musl-lib
    mkdir -p "$lib"
    cp "$(cc -print-file-name=libseccomp.a)" "$lib/new.a" || return 1
    cat >"$lib/fortify.c" <<'C'
#include <stdarg.h>
#include <stdio.h>

/* What glibc's headers make of fprintf under _FORTIFY_SOURCE. */
int __fprintf_chk(FILE *file, int flag, const char *format, ...)
{
	va_list args;
	int n;

	(void)flag;
	va_start(args, format);
	n = vfprintf(file, format, args);
	va_end(args);
	return n;
}
C
    cat >"$lib/probe.c" <<'C'
void *seccomp_init(unsigned int action);
int seccomp_export_bpf(void *filter, int fd);
int seccomp_export_pfc(void *filter, int fd);
int seccomp_rule_add_array(void *filter, unsigned int action, int call, unsigned int n, void *args);

int main(void)
{
	void *filter = seccomp_init(0x7fff0000);

	return !filter || seccomp_rule_add_array(filter, 0x50001, 83, 0, 0) || seccomp_export_bpf(filter, 1) ||
	       (filter == 0 && seccomp_export_pfc(filter, 1));
}
C
    musl-gcc -O2 -fPIC -c "$lib/fortify.c" -o "$lib/fortify.o" &&
        ar rs "$lib/new.a" "$lib/fortify.o" 2>/dev/null &&
        # A newer library may want more of glibc than this: better found out here than by cargo.
        musl-gcc -static "$lib/probe.c" "$lib/new.a" -o "$lib/probe" &&
        "$lib/probe" >/dev/null || return 1
    # Kept as it is when nothing changed, or cargo would link again.
    cmp -s "$lib/new.a" "$lib/libseccomp.a" || mv "$lib/new.a" "$lib/libseccomp.a"
}

# Not every linker takes a script that adds to its own.
can_order() {
    echo 'int main(void) { return 0; }' |
        cc -x c - -Tintegration/order.ld -o "$out/musl-lib/ordered" 2>/dev/null
}

can_static() {
    command -v musl-gcc >/dev/null && [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ] &&
        [ -f "$(cc -print-file-name=libseccomp.a)" ] && seccomp_for_musl
}

if can_static; then
    # The name cargo's C compiler variables want: dashes as underscores.
    export "CC_$(echo "$target" | tr - _)=musl-gcc"
    # The functions of a start next to one another: see order.sh.
    # A name by its content, because cargo looks at the name alone.
    ordered=target/order-$(cksum <integration/order.ld | tr ' ' -).ld
    if can_order && mkdir -p target && cp integration/order.ld "$ordered"; then
        export "CARGO_TARGET_$(echo "$target" | tr a-z- A-Z_)_RUSTFLAGS=-C link-arg=-T$ordered"
    fi
    LIBSECCOMP_LINK_TYPE=static LIBSECCOMP_LIB_PATH=$out/musl-lib \
        cargo build --release --locked --bin sandbox --target "$target" >&2
    echo "$out/$target/release/sandbox"
elif [ "${1:-}" = --static ]; then
    echo "build: no static build here; see: integration/setup.sh dist" >&2
    exit 1
else
    echo "build: no musl here, so a glibc build (slower to start); see: integration/setup.sh dist" >&2
    cargo build --release --locked --bin sandbox >&2
    echo "$out/release/sandbox"
fi
