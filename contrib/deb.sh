#!/usr/bin/env bash
# Builds the Debian package; its path is the last line of stdout.
#
#   contrib/deb.sh [--no-build]      --no-build: target/release/ambra is there and fresh
#
# It depends on the C library of the system that it is built on: build on the oldest Debian or Ubuntu that it
# is for. Needs cargo-deb (cargo install cargo-deb --locked) and Debian's dpkg-dev.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! cargo deb --version >/dev/null 2>&1; then
    echo "deb.sh: cargo-deb is missing: cargo install cargo-deb --locked" >&2
    exit 1
fi
if [ "${1:-}" != --no-build ]; then
    . contrib/packages.sh
    need_packages
    # A Raspberry Pi 5 has pages of 16 KiB, other ARM systems of 64 KiB; what is built for those runs on all.
    [ "$(uname -m)" != aarch64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16
    cargo build --release --locked --bin ambra >&2
fi

# What the package has beside the program, and only the program knows.
made=target/debian-files
mkdir -p $made
target/release/ambra man >$made/ambra.1
for shell in bash zsh fish; do
    target/release/ambra completions $shell >$made/ambra.$shell
done
gzip -9nc CHANGELOG.md >$made/changelog.gz

cargo deb --no-build --locked --strip --quiet
