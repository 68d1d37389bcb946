#!/usr/bin/env bash
# Clients of Python, from PyPI: bdkpython (a whole wallet), and lwk, a wallet of Liquid, as far as a Bitcoin chain lets it.
#
#   contrib/wallets/python/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh

venv=$wallets/$client/venv
get() {
    rm -rf "$venv"
    python3 -m venv "$venv" &&
        "$venv/bin/pip" -q --disable-pip-version-check install --only-binary :all: -r $here/requirements.txt
}
installed "$(python3 --version) $(sha256sum <$here/requirements.txt)" get ||
    skip "pip could not bring the packages (Debian: apt-get install python3-venv)"

for transport in tcp tls; do
    life "bdkpython-$transport" "$venv/bin/python" $here/bdk_life.py $transport
done
life lwk-tcp "$venv/bin/python" $here/lwk_life.py
ended
