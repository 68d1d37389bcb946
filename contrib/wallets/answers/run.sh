#!/usr/bin/env bash
# The answers of Ambra and of electrs, both beside one node, over a chain made by chance: every method that both know.
#
#   ELECTRS=/path/to/electrs contrib/wallets/answers/run.sh
#
# Without ELECTRS the one on the PATH is taken; `cargo install electrs --version 0.11.1 --locked` builds it in a quarter
# of an hour. CHANCE=NUMBER makes an earlier run's chain again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh

ELECTRS=${ELECTRS:-$(command -v electrs || true)}
[ -n "$ELECTRS" ] || skip "no electrs to compare with: ELECTRS names one (cargo install electrs)"
export ELECTRS
PYTHONPATH=contrib/wallets python3 $here/answers.py
