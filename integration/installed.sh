#!/bin/bash
# installed.sh: what `make install` puts beneath a DESTDIR: the binary, a manual page for each command, completions that
# their shells can read and, for bash, that complete, the profile for AppArmor. Nothing else, and nothing beside it.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binary=${SANDBOX_BIN:-$("$here/build.sh")}
work=$(mktemp -d "${TMPDIR:-/tmp}/sandbox-installed.XXXXXX")
trap 'rm -rf "$work"' EXIT
fail() {
    echo "installed: $*" >&2
    exit 1
}
(cd / && "$here/install.sh" "$binary" "$work/dest/usr/local") >/dev/null
dest=$work/dest/usr/local
version=$("$dest/bin/sandbox" --version)

commands=$("$binary" --help | sed -n 's/^  \([a-z][a-z-]*\)  .*/\1/p' | grep -vx help)
[ "$(wc -l <<<"$commands")" -gt 20 ] || fail "no list of commands"
for command in $commands; do
    page=$dest/share/man/man1/sandbox-$command.1
    [ -s "$page" ] || fail "no page of $command"
    grep -q '^\.TH ' "$page" && grep -q '^\.SH NAME' "$page" || fail "$page: not a manual page"
done
! command -v man >/dev/null || [ -z "$(man --warnings -E UTF-8 -l "$dest"/share/man/man1/*.1 2>&1 >/dev/null)" ] ||
    fail "man complains about a page"

completion=$dest/share/bash-completion/completions/sandbox
# What bash does for `sandbox ru<TAB>` and `sandbox run --as<TAB>`.
completed() {
    bash -c '
        . "$1"
        function_name=$(complete -p sandbox | sed "s/.*-F \([^ ]*\) .*/\1/")
        COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
        "$function_name" sandbox "${!#}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf "%s\n" "${COMPREPLY[@]}"' bash "$completion" "$@"
}
completed sandbox ru | grep -qx run || fail "bash does not complete a command"
completed sandbox run --as | grep -qx -- --as-user || fail "bash does not complete a flag"
read_by() { ! command -v "$1" >/dev/null || "$1" -n "$dest/$2" || fail "$1 cannot read its completion"; }
read_by zsh share/zsh/site-functions/_sandbox
read_by fish share/fish/vendor_completions.d/sandbox.fish
for file in share/zsh/site-functions/_sandbox share/fish/vendor_completions.d/sandbox.fish; do
    grep -q as-user "$dest/$file" || fail "$file: does not know --as-user"
done

cmp -s "$here/../profiles/apparmor/sandbox" "$dest/share/sandbox/apparmor/sandbox" || fail "no profile for AppArmor"

others=$(cd "$work/dest" && find . -type f | grep -v -e '^./usr/local/share/man/man1/sandbox[a-z-]*\.1$' \
    -e '^./usr/local/bin/sandbox$' -e '/completions/sandbox$' -e '/_sandbox$' -e '/sandbox.fish$' -e '^./usr/local/share/sandbox/apparmor/sandbox$' || true)
[ -z "$others" ] || fail "there is more: $others"
echo "installed: $version: the binary, $(find "$dest/share/man" -name '*.1' | wc -l) pages, completions of bash, zsh and fish, the profile for AppArmor"
