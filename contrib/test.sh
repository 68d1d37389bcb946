#!/usr/bin/env bash
# The whole suite: formatting, lints, all tests with a real bitcoind and (where it can be had) the real
# Electrum wallet, doc tests, the exact answers of a build whose index meets strangers at every look-up,
# licences of what we depend on.
#
#   contrib/test.sh
#
# Installs what is missing on Debian and Ubuntu, names it elsewhere. Every step runs even if an earlier one
# failed; the last lines say how each went. Exit code 0 if all went well.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_PROGRESS_WHEN=never

. contrib/packages.sh
need_packages
# A suite without the wallet is still worth a run; its test says aloud that it is skipped.
command -v electrum >/dev/null || install_packages electrum ||
    echo "test.sh: no electrum; the wallet's own test is skipped" >&2
# What the Python clients are unpacked with.
python3 -c "import ensurepip" 2>/dev/null || install_packages python3-venv ||
    echo "test.sh: no python3-venv; the Python clients are skipped" >&2
# So large that nobody is made to install it.
command -v chromedriver >/dev/null ||
    echo "test.sh: no chromedriver (Debian: chromium, chromium-driver); the status page is not tested in a browser" >&2
BITCOIND=$(contrib/bitcoind.sh)
export BITCOIND

log=$(mktemp)
trap 'rm -f "$log"' EXIT
summary=""
all_well=yes

# step NAME COMMAND...: runs it, shows what it says, keeps a line of how it went.
step() {
    local name=$1 code=0 start=$SECONDS counts failed
    shift
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" 2>&1 | tee "$log" || code=$?
    counts=$(counts)
    # A test step in which nothing ran has proved nothing.
    case "$name: $counts" in
    "tests: " | "tests: 0 "* | "one-byte tests: " | "one-byte tests: 0 "*)
        counts="no test ran"
        code=1
        ;;
    esac
    if [ "$code" = 0 ]; then
        summary="$summary$(printf '%-22s ok      %s (%d s)' "$name" "$counts" $((SECONDS - start)))"$'\n'
    else
        summary="$summary$(printf '%-22s FAILED  %s (%d s)' "$name" "$counts" $((SECONDS - start)))"$'\n'
        failed=$(failed)
        summary="$summary${failed:+$failed$'\n'}"
        all_well=no
    fi
}

# The log without colours.
plain() { sed $'s/\e\\[[0-9;]*m//g' "$log"; }

# Sums of what cargo test ("test result: ok. 3 passed; 0 failed; 1 ignored; …") and nextest
# ("Summary [ 1.0s] 3 tests run: 3 passed (1 slow), 1 skipped") said.
counts() {
    plain | awk '
        /^test result:/ || /Summary \[/ {
            seen = 1
            gsub(/[();,]/, " ")
            for (i = 2; i <= NF; i++) {
                if ($i == "passed") passed += $(i - 1)
                if ($i == "failed") failed += $(i - 1)
                if ($i == "timed" && $(i + 1) == "out") failed += $(i - 1)
                if ($i == "ignored" || $i == "skipped") ignored += $(i - 1)
            }
        }
        END { if (seen) printf "%d passed, %d failed, %d ignored", passed, failed, ignored }'
}

# The names of the tests that failed, from the same two.
failed() {
    plain | awk '
        /^test .* \.\.\. FAILED/ { print "    " $2 }
        /^ *(FAIL|TIMEOUT|ABORT|SIG[A-Z]+) +\[/ { sub(/^ *[A-Z]+ +\[[^]]*\] *(\([^)]*\) *)?/, ""); print "    " $0 }' | sort -u
}

step "rustfmt" cargo fmt --all --check
step "clippy" cargo clippy --release --all-targets --locked -- -D warnings
if cargo nextest --version >/dev/null 2>&1; then
    step "tests" cargo nextest run --release --locked --no-fail-fast
else
    step "tests" cargo test --release --locked --no-fail-fast --lib --bins --tests --examples
fi
step "doc tests" cargo test --release --locked --doc
step "rustdoc" env RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --no-deps --document-private-items
step "one-byte tests" cargo test --release --locked --features one-byte-prefixes --test stories oracle
# Real clients from their registries; one that cannot be installed is skipped aloud.
step "wallets" contrib/wallets/run-all.sh --ci
step "cargo-deny" contrib/deny.sh
grep -q '^advisories NOT CHECKED' "$log" && summary="$summary    advisories were not checked"$'\n'

printf '\n== Summary\n%s' "$summary"
if [ $all_well = no ]; then
    echo "NOT all went well."
    exit 1
fi
echo "All went well."
