#!/usr/bin/env bash
# Tries the files of this folder with Prometheus itself: promtool reads them and runs the alerts' tests; then a
# Prometheus with these files stands beside an Ambra on regtest, and every expression of the alerts, of Grafana's
# dashboard and of docs/monitoring.md is evaluated over what Ambra tells (tests/stories/prometheus.rs).
#
#   contrib/monitoring/test.sh
#
# Needs prometheus and promtool (Debian: apt install prometheus) and a bitcoind (contrib/bitcoind.sh gets one).
# Grafana's part of the dashboard, how it is drawn, is not tried here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

for program in prometheus promtool; do
    if ! command -v $program >/dev/null; then
        echo "monitoring/test.sh: no $program: apt install prometheus" >&2
        exit 1
    fi
done
BITCOIND=${BITCOIND:-$(contrib/bitcoind.sh)}
export BITCOIND

promtool check config contrib/monitoring/prometheus.yml
promtool test rules contrib/monitoring/alerts_test.yml
cargo test --release --locked --test stories -- --nocapture prometheus::
