#!/bin/bash
# fuzz.sh: the readers of what others have written, fed with what a fuzzer makes of it (libFuzzer).
#
#   fuzz.sh [TARGET...]            each for FUZZ_SECONDS (20); all of them if none is named
#   fuzz.sh --build                makes them and runs none
#
# Needs a C++ compiler. `cargo fuzz run TARGET` does the same, where it and a nightly compiler are at hand. What was found lies in
# fuzz/artifacts, what was tried in fuzz/corpus, where the next call goes on.
#
# The instrumented dependencies take minutes to build and seldom change. They are kept outside the checkout, where base-tree.sh
# keeps its trees, under a name that changes with the compiler, its flags and the manifests, one for each user.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
PATH=$PATH:$HOME/.cargo/bin
seconds=${FUZZ_SECONDS:-20}
only_build=no
if [ "${1:-}" = --build ]; then
    only_build=yes
    shift
fi
target=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
[ $# -gt 0 ] || targets=(archive profile records subuid mountinfo passwd)

# What cargo-fuzz gives to the compiler, but for the sanitizer: all of our code that is unsafe stands in one folder.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions --cfg fuzzing"
bins=()
for name in "${targets[@]}"; do bins+=(--bin "$name"); done

cache=${SANDBOX_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sandbox-test}
# The profiles and dependencies stand in the manifests, the versions in the lock file.
key=$({ rustc -vV && cc --version && echo "$RUSTFLAGS" && cat Cargo.toml Cargo.lock ../Cargo.toml; } | sha256sum | cut -c1-12)
export CARGO_TARGET_DIR=$cache/fuzz-$(id -u)-$key
mkdir -p "$CARGO_TARGET_DIR"
touch "$CARGO_TARGET_DIR"
# What nobody has used for a month goes; it is this user's.
find "$cache" -maxdepth 1 -name "fuzz-$(id -u)-*" -mtime +30 -exec rm -rf {} + 2>/dev/null || true

# build: the fuzzers of this checkout, in $built. Another checkout builds programs of the same names in the same place, so it is ours
# until they are copied. Cargo tells by times what has changed, which say nothing of files that came from elsewhere: our own
# crates are built anew unless their content, and where they lie, is what was built last.
built=$PWD/target/built
build() {
    local own name
    own=$({ pwd && find ../src ../profiles fuzz_targets -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
    if [ "$own" != "$(cat "$CARGO_TARGET_DIR/own" 2>/dev/null)" ]; then
        rm -f "$CARGO_TARGET_DIR/own"
        cargo clean --quiet --locked --release --target "$target" -p sandbox -p sandbox-fuzz
    fi
    nice -n 19 cargo build --locked --release --target "$target" "${bins[@]}"
    echo "$own" >"$CARGO_TARGET_DIR/own"
    mkdir -p "$built"
    # A fuzzer that still runs keeps its file.
    for name in "${targets[@]}"; do
        cp "$CARGO_TARGET_DIR/$target/release/$name" "$built/.$name.$$" && mv "$built/.$name.$$" "$built/$name"
    done
}
exec 9>"$CARGO_TARGET_DIR/lock"
flock 9
build 9>&-
exec 9>&-
[ $only_build = no ] || exit 0

# seed TARGET: whole ones to begin with, so that time is not lost on finding the form.
seed() {
    local dir=corpus/$1 from
    mkdir -p "$dir" "artifacts/$1"
    case $1 in
    archive)
        from=$(mktemp -d)
        mkdir "$from/d"
        echo x >"$from/d/file" && ln "$from/d/file" "$from/hard" && ln -s d/file "$from/link" && mkfifo "$from/fifo"
        truncate -s 64K "$from/sparse" && echo y >>"$from/sparse"
        for form in v7 ustar gnu pax; do tar --format=$form -C "$from" -cf "$dir/$form" . 2>/dev/null || true; done
        tar --format=pax --sparse -C "$from" -cf "$dir/sparse" .
        gzip -c "$dir/pax" >"$dir/gz" && xz -c "$dir/gnu" >"$dir/xz"
        rm -r "$from"
        ;;
    profile) cp ../profiles/*.json ../tests/fixtures/seccomp/*.json "$dir" ;;
    records)
        local which=0 line
        while read -r line; do
            printf "\\$(printf %o $((which % 8)))%s" "$line" >"$dir/line-$which"
            which=$((which + 1))
        done <../tests/fixtures/format-1.jsonl
        ;;
    subuid)
        printf 'bob:100000:65536\n1000:231072:65536\n#x\nann:4294967295:2\n' >"$dir/subuid"
        printf '         0       1000          1\n         1     100000      65536\n' >"$dir/map"
        cp /etc/passwd "$dir/passwd"
        ;;
    mountinfo) { cat /proc/self/cgroup && printf '0::/a/b\n\0' && cat /proc/self/mountinfo && echo '31 1 0:27 /a /sys/fs/cg\040x rw - cgroup2 c rw'; } >"$dir/own" ;;
    passwd)
        { printf 'bob:staff\0' && cat /etc/passwd && printf '\0' && cat /etc/group; } >"$dir/own"
        printf 'bob\0bob:x:5:6::/h:/sh\n\0g:x:7:a,bob\n' >"$dir/bob"
        ;;
    esac
}

summary=() bad=no
for name in "${targets[@]}"; do
    seed "$name"
    verdict=ok
    nice -n 19 "$built/$name" "corpus/$name" -artifact_prefix="artifacts/$name/" \
        -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
        >"artifacts/$name.log" 2>&1 || verdict=FAILED bad=yes
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "artifacts/$name.log")
    summary+=("$(printf '%-10s %9s inputs in %ss: %s' "$name" "${runs:-?}" "$seconds" "$verdict")")
    [ $verdict = ok ] || tail -n 30 "artifacts/$name.log"
done
printf '%s\n' "${summary[@]}"
[ $bad = no ]
