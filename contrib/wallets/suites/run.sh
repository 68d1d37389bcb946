#!/usr/bin/env bash
# Test suites that others wrote, against Ambra: their sources come from their registry, are unpacked under
# target/wallets/suites and stay there. Those of Rust take some minutes to build, Electrum's own takes half an hour, in three parts
# side by side.
#
#   contrib/wallets/suites/run.sh [SUITE...]     of: electrum crates electrs
#
# Where Debian does not give Electrum's source away, ELECTRUM_SOURCE names a folder with it (a clone of its repository).
# ELECTRUM_TESTS: some of its tests, in unittest's words (tests.regtest.TestLightningAB); all without.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh
. contrib/wallets/debian.sh

# The longest first: it runs beside the others, in so many scenes.
electrum_parts=3
at_once=${WALLETS_AT_ONCE:-$((electrum_parts + 1))}
suites=${*:-electrum crates electrs}
# A whole suite of Rust, and Electrum's.
suite_seconds=1200
electrum_seconds=5400
# A test that fails is run again so often: many of them wait for a set time, and machines are busy.
runs=3

result() { PYTHONPATH=contrib/wallets python3 $here/result.py "$@" || all_well=no; }

# source_of CRATE VERSION: unpacks the crate's source from its registry into the folder of that name.
source_of() {
    local crate=$1 version=$2 folder=$wallets/$client/$1 probe manifest
    [ "$(cat "$folder/.version" 2>/dev/null)" != "$version" ] || return 0
    probe=$(mktemp -d)
    mkdir "$probe/src"
    : >"$probe/src/lib.rs"
    printf '[package]\nname = "probe"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = { version = "=%s", default-features = false }\n' \
        "$crate" "$version" >"$probe/Cargo.toml"
    manifest=$(cd "$probe" && cargo fetch --quiet && cargo metadata --quiet --format-version 1 |
        python3 -c 'import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == sys.argv[1]:
        print(package["manifest_path"])' "$crate") || manifest=""
    rm -rf "$probe"
    [ -n "$manifest" ] || return 1
    rm -rf "$folder"
    cp -r "$(dirname "$manifest")" "$folder"
    chmod -R u+w "$folder"
    echo "$version" >"$folder/.version"
}

# The helper crates would fetch an electrs and a bitcoind of their own, and start these instead.
export ELECTRSD_SKIP_DOWNLOAD=1 BITCOIND_SKIP_DOWNLOAD=1
export BITCOIND_ARGUMENTS=""
export ELECTRS_EXE=$PWD/$here/electrs BITCOIND_EXE=$PWD/$here/bitcoind
export CARGO_TARGET_DIR=$wallets/$client/target CARGO_PROFILE_DEV_DEBUG=0 CARGO_TERM_PROGRESS_WHEN=never RUST_BACKTRACE=0
unset RUSTFLAGS

# crate_suite TITLE CRATE VERSION ARGUMENTS...: the crate's own tests, by cargo test's arguments.
crate_suite() {
    local title=$1 crate=$2 version=$3 folder=$wallets/$client/$2 log run failed tests logs=()
    shift 3
    printf '\n%s %s\n' "$title" "$version"
    rm -f "$wallets/results/suite-$crate.skipped"
    if ! source_of "$crate" "$version"; then
        left_out "suite-$crate" "the source of $crate could not be fetched"
        return
    fi
    # The published manifest has lost their helper crate, which is published too.
    [ ! -e "$here/$crate.toml" ] || cp "$here/$crate.toml" "$folder/Cargo.toml"
    [ ! -e "$here/$crate.lock" ] || cp "$here/$crate.lock" "$folder/Cargo.lock"
    if ! (cd "$folder" && cargo fetch --quiet --locked); then
        left_out "suite-$crate" "what $crate needs could not be fetched"
        return
    fi
    if ! (cd "$folder" && cargo test --quiet --locked --offline --no-run "$@"); then
        echo "FAILED: $title cannot be built"
        all_well=no
        return
    fi
    if [ -n "${in_scene:-}" ]; then
        life "$in_scene" $here/crate.sh "$title" "$version" "$folder" "$@"
        return
    fi
    failed=""
    for run in $(seq $runs); do
        log=$wallets/$client/$crate.$run.log
        rm -f "$log"
        [ "$run" = 1 ] || [ -n "$failed" ] || continue
        # The first run takes all; --exact with names takes only these.
        tests="$* -- --format pretty --test-threads=1 ${failed:+--exact $failed}"
        (cd "$folder" && timeout $suite_seconds cargo test --quiet --locked --offline $tests) | tee "$log" || true
        logs+=("$log")
        failed=$(sed -n '/^failures:$/,/^test result/s/^    \([^ ]*\)$/\1/p' "$log" | sort -u)
    done
    result to-file "$title" "$version" "${logs[@]}"
}

suite_crates() {
    # These two read bitcoind's answers as those of years ago. The first counts on coins of the kind that Bitcoin Core's
    # wallet takes by itself: Knots' takes legacy ones, which cost more to spend than its tests reckon.
    BITCOIND_ARGUMENTS="-deprecatedrpc=warnings -addresstype=bech32" \
        crate_suite "bdk_electrum's own tests" bdk_electrum 0.24.1 --test test_electrum
    BITCOIND_ARGUMENTS=-deprecatedrpc=warnings \
        crate_suite "electrum_streaming_client's own tests" electrum_streaming_client 0.4.0 --test synopsis
    # And these two as those of today.
    crate_suite "electrsd's own tests" electrsd 0.43.2 --features bitcoind_29_0 --lib
    crate_suite "lightning-transaction-sync's own tests" lightning-transaction-sync 0.2.7 \
        --features electrum-rustls-ring --test integration_tests
    # These ask a server that is there, by TLS.
    in_scene=suite-electrum-client crate_suite "electrum-client's own tests" electrum-client 0.25.2 --lib raw_client
}

suite_electrs() {
    local version=0.11.1 code=0 log=$wallets/$client/electrs.log
    if ! source_of electrs $version; then
        left_out suite-electrs "the source of electrs could not be fetched"
        return
    fi
    if [ -z "$ELECTRUM" ]; then
        left_out suite-electrs "electrs' own test needs an Electrum"
        return
    fi
    $here/electrs.sh "$wallets/$client/electrs" "$wallets/$client/electrs-run" "$log" || code=$?
    case $code in
    0) result to-file "electrs' own test" $version "$log" ;;
    75) left_out suite-electrs "electrs' own test needs jq, curl and the usual ports of regtest" ;;
    *) all_well=no ;;
    esac
}

suite_electrum() {
    local source=${ELECTRUM_SOURCE:-$wallets/$client/electrum}
    if ! [ -x "$wallets/electrum/python" ]; then
        left_out suite-electrum "needs what contrib/wallets/electrum/run.sh installs"
        return
    fi
    for program in jq bc screen; do
        if ! command -v $program >/dev/null; then
            left_out suite-electrum "Electrum's own suite needs $program"
            return
        fi
    done
    if ! [ -e "$source/tests/regtest.py" ] && ! debian_source "${ELECTRUM_SUITE:-forky}" electrum "$source"; then
        left_out suite-electrum "no mirror of Debian's gives Electrum's source away here; ELECTRUM_SOURCE may name a folder with it"
        return
    fi
    if ! [ -e "$source/tests/regtest.py" ]; then
        left_out suite-electrum "this source of Electrum's has no tests in it; ELECTRUM_SOURCE may name a folder with them"
        return
    fi
    rm -f "$wallets"/results/suite-electrum-regtest*.json
    export ELECTRUM_PYTHON=$wallets/electrum/python
    local tests part parts=()
    # Their names, one after the other to each part.
    tests=${ELECTRUM_TESTS:-$(cd "$source" && $ELECTRUM_PYTHON $OLDPWD/$here/tests_of.py tests.regtest)} || {
        echo "FAILED: the tests of Electrum's suite cannot be named"
        all_well=no
        return
    }
    for part in $(seq $electrum_parts); do
        parts=($(tr ' ' '\n' <<<"$tests" | awk "NF && NR % $electrum_parts == $((part - 1))"))
        [ ${#parts[@]} -gt 0 ] || continue
        SCENE_SECONDS=$electrum_seconds life "suite-electrum-regtest-$part" $here/electrum.sh "$source" "${parts[@]}"
    done
}

ELECTRUM=$(command -v electrum || true)
export ELECTRUM
for suite in $suites; do
    rm -f "$wallets/results/suite-$suite.skipped"
    case $suite in
    crates | electrs | electrum) "suite_$suite" ;;
    *) echo "no suite $suite" && all_well=no ;;
    esac
done
ended
