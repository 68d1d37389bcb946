#!/usr/bin/env bash
# Fuzzes every parser of bytes from outside: each target of fuzz/ for so many seconds, one after the other.
#
#   contrib/fuzz.sh [SECONDS [TARGET...]]     60 seconds for each, all of them
#
# Needs no nightly compiler and no cargo-fuzz (but fuzz/ is cargo-fuzz's layout: with both,
# `cargo fuzz run session` works too). What it finds lies in fuzz/artifacts; put it into fuzz/corpus/TARGET under a
# name that says what it is, and the suite will replay it. The last line of each target says how many inputs ran;
# the exit code is 1 if one of them broke something.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
seconds=${1:-60}
[ $# -eq 0 ] || shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then
    for program in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$program" .rs)"); done
fi
# Two targets write files; memory takes them faster than a disk.
[ -w /dev/shm ] && export TMPDIR=/dev/shm

# The folder that all else is built in: so RocksDB is there already.
RUSTC_WRAPPER="$PWD/contrib/fuzz-rustc.sh" cargo build --release --locked --manifest-path fuzz/Cargo.toml --target-dir target

log=$(mktemp)
trap 'rm -f "$log"' EXIT
code=0
for target in "${targets[@]}"; do
    found=fuzz/artifacts/$target
    grown=target/fuzz-corpus/$target
    mkdir -p "$found" "$grown"
    # What is found new goes to the first folder; the committed corpus stays as it is.
    if ! "target/release/$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=8192 \
        -print_final_stats=1 -artifact_prefix="$found/" "$grown" "fuzz/corpus/$target" >"$log" 2>&1; then
        tail -n 40 "$log"
        echo "$target: BROKEN, see $found"
        code=1
    fi
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
    echo "$target: ${runs:-?} inputs in $seconds s, ${coverage:-no coverage}"
done
exit $code
