#!/usr/bin/env bash
# Checks the documents and builds the book into target/book.
#
#   contrib/docs.sh [--open]
#
# The checks (links, pages, metrics) are tests/docs.rs; the book needs mdbook (Debian 13: apt install mdbook; or
# cargo install mdbook --locked) and is left out with a word where there is none. Seen with mdbook 0.4.48 and 0.5.4.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo test --release --locked --test docs

if ! command -v mdbook >/dev/null; then
    echo "docs.sh: no mdbook, so no book: apt install mdbook, or cargo install mdbook --locked" >&2
    exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
mdbook build docs 2>&1 | tee "$log"
# mdbook only warns where a page cannot be read as meant.
if grep -qE 'WARN|ERROR' "$log"; then
    echo "docs.sh: mdbook complains (above)" >&2
    exit 1
fi
echo "docs.sh: target/book/index.html"
if [ "${1:-}" = --open ]; then
    xdg-open target/book/index.html
fi
