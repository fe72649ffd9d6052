#!/bin/sh
# install.sh BINARY PREFIX: the binary, its manual pages and its completions, where shells and man(1) look for them, and
# the profile for AppArmor, which only root can put where it works.
set -eu
binary=$1 prefix=$2
profile=$(dirname -- "$0")/../profiles/apparmor/sandbox
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$binary" man --dir "$work/man"
for page in "$work"/man/*.1; do
    install -D -m 0644 "$page" "$prefix/share/man/man1/$(basename "$page")"
done
completion() {
    "$binary" completions "$1" >"$work/$1"
    install -D -m 0644 "$work/$1" "$prefix/share/$2"
}
completion bash bash-completion/completions/sandbox
completion zsh zsh/site-functions/_sandbox
completion fish fish/vendor_completions.d/sandbox.fish
install -D -m 0644 "$profile" "$prefix/share/sandbox/apparmor/sandbox"
install -D -m 0755 "$binary" "$prefix/bin/sandbox"
echo "$prefix/bin/sandbox"
