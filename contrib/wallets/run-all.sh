#!/usr/bin/env bash
# Real wallets and clients live a wallet's life with Ambra and a bitcoind on regtest: connect, restore, sync,
# receive, confirm, send, replace by fee, see a reorganization, reconnect after a restart.
#
#   contrib/wallets/run-all.sh               every client; then docs/wallets.md is written anew
#   contrib/wallets/run-all.sh --ci          what takes under two minutes together: the clients of Debian, npm and PyPI,
#                                            each by one transport; docs/wallets.md stays
#   contrib/wallets/run-all.sh CLIENT...     these (folders beside this script); docs/wallets.md stays
#
# Each client is installed from its own registry under target/wallets, in the version that its lock file names. One
# that cannot be had is skipped aloud. The last lines say how each went. Exit code 0 if none failed. Ctrl-C ends all that
# was started.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

. contrib/packages.sh
need_packages
command -v python3 >/dev/null || install_packages python3 || {
    echo "SKIPPED: all wallets: the scene needs python3"
    exit 0
}
if [ -z "${AMBRA:-}" ]; then
    cargo build --release --locked --bin ambra
    AMBRA=$PWD/${CARGO_TARGET_DIR:-target}/release/ambra
fi
BITCOIND=$(contrib/bitcoind.sh)
export AMBRA BITCOIND

document=no
case "${1:-}" in
--ci)
    set -- electrum node python
    export WALLETS_QUICK=yes
    ;;
"") set -- electrum node python rust suites answers; document=yes ;;
esac
# Of runs before, only what is not run now is kept.
[ $document = no ] || rm -rf target/wallets/results

# Each client's script has a process group of its own (-m), which is ended with this script.
set -m
running=""
trap '[ -z "$running" ] || { kill -- -"$running"; wait "$running" || true; }' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

summary=""
all_well=yes
for client in "$@"; do
    [ -x "contrib/wallets/$client/run.sh" ] || continue
    printf '\n-- %s\n' "$client"
    code=0
    began=$SECONDS
    "contrib/wallets/$client/run.sh" &
    running=$!
    wait "$running" || code=$?
    running=""
    case $code in
    0) how=ok ;;
    75) how="skipped: $(cat "target/wallets/results/$client.skipped")" ;;
    *) how=FAILED all_well=no ;;
    esac
    summary="$summary$(printf '%-10s %s (%d s)' "$client" "$how" $((SECONDS - began)))"$'\n'
done
[ $document = no ] || contrib/wallets/report.py
printf '\n-- wallets\n%s' "$summary"
[ $all_well = yes ]
