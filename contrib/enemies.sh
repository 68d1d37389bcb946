#!/usr/bin/env bash
# Hostile clients against the whole program, one attack after the other, beside an honest client: memory, waits, open
# files. And a node that stands still for longer than every deadline. About five minutes; what was seen goes into
# docs/reliability.md. For figures that mean something the machine should do nothing else.
#
#   contrib/enemies.sh [--no-docs]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_PROGRESS_WHEN=never
. contrib/packages.sh
need_packages
BITCOIND=$(contrib/bitcoind.sh)
STORIES_REPORT=$PWD/target/torture/report.jsonl
STORIES_CODE=$(git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
mkdir -p target/torture
export BITCOIND STORIES_REPORT STORIES_CODE

# Exactly one story must run.
long() {
    cargo test --release --locked --test stories -- --ignored --nocapture --exact "$1"
}

code=0
long enemies::enemies_are_measured || code=1
long node_faults::a_node_that_stands_still_beyond_every_deadline_is_waited_for || code=1
if [ "${1-}" != --no-docs ]; then
    long reliability::the_table_of_enemies_is_remade_from_the_report || code=1
fi
exit $code
