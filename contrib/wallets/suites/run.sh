#!/usr/bin/env bash
# Test suites that others wrote, against Ambra: their sources come from their registry, are unpacked under
# target/wallets/suites and stay there. Building takes some minutes.
#
#   contrib/wallets/suites/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh

# bdk_electrum's own tests, from the source that contrib/wallets/rust builds with. The published manifest has lost
# their helper crate, which is published too.
get() {
    local manifest source
    manifest=$(cd contrib/wallets/rust && cargo metadata --locked --format-version 1 |
        python3 -c 'import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "bdk_electrum":
        print(package["manifest_path"])') || return 1
    source=$(dirname "$manifest")
    rm -rf "$wallets/$client/bdk_electrum"
    mkdir -p "$wallets/$client/bdk_electrum"
    cp -r "$source/src" "$source/tests" "$wallets/$client/bdk_electrum/"
    cp $here/bdk_electrum.toml "$wallets/$client/bdk_electrum/Cargo.toml"
    cp $here/bdk_electrum.lock "$wallets/$client/bdk_electrum/Cargo.lock"
}
get || skip "the source of bdk_electrum could not be fetched"

# The helper crate would fetch an electrs and a bitcoind of its own.
export ELECTRSD_SKIP_DOWNLOAD=1 BITCOIND_SKIP_DOWNLOAD=1
export ELECTRS_EXE=$PWD/$here/electrs BITCOIND_EXE=$PWD/$here/bitcoind
export CARGO_TARGET_DIR=$wallets/$client/target
unset RUSTFLAGS
(cd "$wallets/$client/bdk_electrum" && cargo test --locked --quiet --no-run --test test_electrum) ||
    skip "bdk_electrum's tests could not be built"
(cd "$wallets/$client/bdk_electrum" && RUST_BACKTRACE=0 cargo test --locked --test test_electrum -- --test-threads=1) |
    tee "$wallets/$client/bdk_electrum.log" || true
python3 $here/result.py "$wallets/$client/bdk_electrum.log" bdk_electrum "$wallets/results/suite-bdk_electrum.json"
