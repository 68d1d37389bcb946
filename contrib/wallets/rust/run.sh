#!/usr/bin/env bash
# Clients of Rust, from crates.io: electrum-client, bdk_wallet with bdk_electrum, and electrum_streaming_client.
# Building them takes a few minutes.
#
#   contrib/wallets/rust/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh

# Its own build: what Ambra's is told (target folder, flags) is not for it.
unset CARGO_TARGET_DIR RUSTFLAGS
(cd $here && cargo fetch --locked --quiet) || skip "the crates could not be fetched"
(cd $here && cargo build --locked --offline --quiet)

for transport in tcp tls; do
    life "rust-electrum-client-$transport" "$wallets/rust/debug/ambra-wallets" electrum-client $transport
    life "rust-bdk-$transport" "$wallets/rust/debug/ambra-wallets" bdk $transport
done
life rust-streaming-tcp "$wallets/rust/debug/ambra-wallets" streaming tcp
ended
