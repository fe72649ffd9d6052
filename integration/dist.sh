#!/bin/sh
# dist.sh: target/dist/sandbox-VERSION-ARCH.tar.gz with the static binary, its manual pages, its completions,
# the profile for AppArmor and the licences it comes under.
# The same sources and tools give the same bytes.
set -eu
cd "$(dirname -- "$0")/.."
PATH=$PATH:$HOME/.cargo/bin
binary=$(integration/build.sh --static)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
name=sandbox-$version-$(uname -m)-linux
out=${CARGO_TARGET_DIR:-target}/dist
mkdir -p "$out"

# Fully static, or it does not run in an image without our C library.
if readelf -l "$binary" | grep -q INTERP; then
    echo "dist: $binary wants a dynamic loader" >&2
    exit 1
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# Nothing beside it: no library, no /proc, no /etc.
mkdir "$folder/empty"
install -m 0755 "$binary" "$folder/empty/sandbox"
unshare --user --map-root-user --root="$folder/empty" /sandbox --version >/dev/null || {
    echo "dist: $binary does not run in an empty directory" >&2
    exit 1
}
integration/install.sh "$binary" "$folder/$name" >/dev/null
mv "$folder/$name/bin/sandbox" "$folder/$name/sandbox"
rmdir "$folder/$name/bin"
for file in README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE docs/licenses.md; do
    [ ! -e "$file" ] || install -m 0644 "$file" "$folder/$name/"
done
epoch=$(git log -1 --format=%ct 2>/dev/null || echo 0)
tar -C "$folder" --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$epoch" -cf - "$name" |
    gzip -n9 >"$out/$name.tar.gz"
(cd "$out" && sha256sum "$name.tar.gz" | tee "$name.tar.gz.sha256")
ls -l "$binary" | awk '{ printf "binary: %.1f MB, static\n", $5 / 1e6 }'
