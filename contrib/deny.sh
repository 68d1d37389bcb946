#!/usr/bin/env bash
# Licences, sources and banned crates of all that Ambra depends on, by deny.toml; and known weaknesses (RustSec), where
# their database can be fetched. Exit code 0 if nothing is wrong.
#
#   contrib/deny.sh          checks
#   contrib/deny.sh --has    says by its exit code whether cargo-deny is there already
#
# cargo-deny is the one that is installed. Where there is none it is built once, into target/tools, which takes many
# minutes on two cores: so contrib/test.sh checks only where it is there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=0.20.2
export CARGO_TERM_PROGRESS_WHEN=never PATH="$PWD/target/tools/bin:$PATH"

if ! cargo deny --version >/dev/null 2>&1; then
    [ "${1-}" != --has ] || exit 1
    echo "deny.sh: building cargo-deny $version into target/tools, once" >&2
    # A target folder of its own: it is thrown away.
    env -u CARGO_TARGET_DIR cargo install --quiet --debug --locked --root target/tools "cargo-deny@$version" >&2 || {
        echo "deny.sh: cargo-deny cannot be had (no network, or too old a Rust)" >&2
        exit 1
    }
fi
[ "${1-}" != --has ] || exit 0

code=0
cargo deny --locked check bans licenses sources || code=1
if cargo deny --locked fetch db >/dev/null 2>&1; then
    cargo deny --locked check --disable-fetch advisories || code=1
else
    echo "advisories: not checked, their database cannot be fetched"
fi
exit $code
