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
        "$venv/bin/pip" -q --disable-pip-version-check install --timeout 30 --retries 2 --only-binary :all: \
            -r $here/requirements.txt
}
installed "$(python3 --version) $(sha256sum <$here/requirements.txt)" get ||
    skip "pip could not bring the packages (Debian: apt-get install python3-venv)"

life bdkpython-tls "$venv/bin/python" $here/bdk_life.py tls
[ -n "$quick" ] || life bdkpython-tcp "$venv/bin/python" $here/bdk_life.py tcp
life lwk-tcp "$venv/bin/python" $here/lwk_life.py
ended
