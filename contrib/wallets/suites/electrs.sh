#!/usr/bin/env bash
# electrs' own test (tests/run.sh of its source), unchanged, with Ambra in electrs' place: an Electrum that mines, pays and
# sees its payment confirmed. It wants bitcoind's and electrs' usual ports of regtest.
#
#   contrib/wallets/suites/electrs.sh SOURCE FOLDER LOG
#
# ELECTRUM: the program, in words. Exit code 75 where a port is taken or a program is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD source=$1 folder=$2 log=$3

# In a network of its own, where nobody else has those ports, if the system allows one; else only where they are free.
alone=""
if unshare -rn ip link set lo up 2>/dev/null; then
    alone="unshare -rn"
else
    for port in 18443 18444 24224 60401; do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "port $port is taken" >&2
            exit 75
        fi
    done
fi
for program in jq curl; do
    command -v $program >/dev/null || { echo "no $program" >&2; exit 75; }
done

rm -rf "$folder"
mkdir -p "$folder/bin"
cp "$source/tests/run.sh" "$folder/run.sh"
ln -s "$here/electrs" "$folder/bin/electrs"
ln -s "$BITCOIND" "$(dirname "$BITCOIND")/bitcoin-cli" "$folder/bin/"
printf '#!/bin/sh\nexec %s "$@"\n' "$ELECTRUM" >"$folder/bin/electrum"
chmod +x "$folder/bin/electrum"
cd "$folder"
export HOME=$folder PATH=$folder/bin:$PATH
unset DISPLAY PYTHONPATH
outcome=FAILED
timeout --kill-after=30 600 $alone bash -c '[ -z "$1" ] || ip link set lo up; exec bash run.sh' - "$alone" 2>&1 | tee run.log || true
! grep -q '=== PASSED ===' run.log || outcome=ok
echo "test run.sh ... $outcome" >"$log"
