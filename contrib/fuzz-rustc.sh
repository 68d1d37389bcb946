#!/usr/bin/env bash
# A RUSTC_WRAPPER for contrib/fuzz.sh: Ambra and its fuzz targets are compiled with the coverage counters
# that libFuzzer steers by (the flags are cargo-fuzz's), all else as always. So nothing but Ambra is built anew.
set -euo pipefail
rustc=$1
shift
case " $* " in
*" --crate-name ambra "* | *fuzz_targets/*)
    exec "$rustc" "$@" --cfg fuzzing -Cpasses=sancov-module \
        -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
*) exec "$rustc" "$@" ;;
esac
