#!/usr/bin/env bash
# Licences, sources and banned crates of all that Ambra depends on, by deny.toml; and known weaknesses (RustSec) of that
# and of what the fuzz targets and the wallets' runner depend on. Exit code 0 if nothing is wrong.
#
#   contrib/deny.sh [ADVISORIES]
#
# The database of advisories is fetched from GitHub. Where that cannot be reached, the copy of the last time is used, and
# its date is said; if there is none, it is said that advisories were not checked; all the rest always is, or the exit
# code is 1. ADVISORIES is a clone of https://github.com/RustSec/advisory-db, brought here some other way.
#
# cargo-deny is the one that is installed if it is of the same series. Else it is built once, into target/tools: two
# minutes of one core, since nothing is optimized.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.20.2
export CARGO_TERM_PROGRESS_WHEN=never PATH="$PWD/target/tools/bin:$PATH"

# Options and files change their meaning between series.
is_there() { [[ "$(cargo deny --version 2>/dev/null)" == "cargo-deny ${version%.*}."* ]]; }

if ! is_there; then
    echo "deny.sh: building cargo-deny $version into target/tools, once" >&2
    # A target folder of its own: it is thrown away. What is built checks once and ends.
    env -u CARGO_TARGET_DIR -u RUSTC_WRAPPER CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 CARGO_NET_RETRY=5 \
        cargo install --quiet --debug --locked --force --root target/tools "cargo-deny@$version" >&2 && is_there || {
        echo "deny.sh: cargo-deny $version cannot be built (no network, or too old a Rust), so nothing is checked" >&2
        exit 1
    }
fi

code=0
cargo deny --locked check bans licenses sources || code=1

# A clone at another place is taken for the one at GitHub.
if [ $# -gt 0 ]; then
    export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0="url.file://$(realpath "$1").insteadOf"
    export GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
fi
is_fresh=yes
GIT_TERMINAL_PROMPT=0 timeout 120 cargo deny --locked fetch db >/dev/null 2>&1 || is_fresh=no
[ $# = 0 ] || [ $is_fresh = yes ] || {
    echo "deny.sh: $1 is no clone of the advisories' database" >&2
    exit 1
}
# cargo-deny adds a hash of the address to the name.
databases=${CARGO_HOME:-$HOME/.cargo}/advisory-dbs
database=$(find "$databases" -maxdepth 1 -name 'advisory-db-*' -print -quit 2>/dev/null || true)
if [ -z "$database" ]; then
    echo "advisories NOT CHECKED: their database is at GitHub, which cannot be reached"
    exit $code
fi
echo "advisories of $(git -C "$database" log -1 --format=%cs)$([ $is_fresh = yes ] || echo ", since GitHub cannot be reached")"
for manifest in Cargo.toml fuzz/Cargo.toml contrib/wallets/rust/Cargo.toml; do
    # `cargo fetch` gets what the manifest names; the check itself asks nobody, so an older copy of the database is fine.
    cargo fetch --quiet --locked --manifest-path "$manifest" || code=1
    # What is set aside for Ambra need not be there in the others.
    cargo deny --offline --locked --manifest-path "$manifest" --config deny.toml \
        check --allow advisory-not-detected advisories || code=1
done
exit $code
