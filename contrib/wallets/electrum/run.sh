#!/usr/bin/env bash
# The Electrum wallet: the system's own (Debian's package electrum, on Debian 12 it is 4.3.4), and the newest that
# Debian has, unpacked under target/wallets/electrum with its own Python. Over TCP, and over TLS with the certificate
# pinned.
#
#   contrib/wallets/electrum/run.sh [own] [newest]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh
. contrib/wallets/debian.sh

# The Debian suite with the newest one; overridable for the day when it has moved on.
suite=${ELECTRUM_SUITE:-forky}
# What its windows need is left out, and with it two thirds of the bytes.
windows="python3-pyqt6.qtquick python3-qdarkstyle libjs-jquery"

get() {
    unpack_debian "$suite" "$wallets/$client" electrum $windows || return 1
    python_of "$wallets/$client"
    "$wallets/$client/python" -m compileall -q "$wallets/$client/root/usr/lib/python3" >/dev/null 2>&1 || true
}

# lives_by TRANSPORT...
lives_by() {
    local version transport empty
    empty=$(mktemp -d)
    version=$($ELECTRUM version --offline -D "$empty")
    rm -rf "$empty"
    for transport in "$@"; do
        life "electrum-$version-$transport" python3 $here/life.py $transport
    done
}

found=no
case "${*:-own newest}" in *own*)
    if ELECTRUM=$(command -v electrum); then
        export ELECTRUM
        found=yes
        lives_by tcp $([ -n "$quick" ] || echo tls)
    else
        left_out electrum-own "the system has no electrum: apt-get install electrum, and run again"
    fi ;;
esac
case "${*:-own newest}" in *newest*)
    if installed "electrum of $suite" get; then
        export ELECTRUM="$wallets/$client/python $wallets/$client/root/usr/bin/electrum"
        found=yes
        lives_by tls $([ -n "$quick" ] || echo tcp)
    else
        left_out electrum-newest "Debian's newest electrum ($suite) cannot be had here"
    fi ;;
esac
[ $found = yes ] || skip "no electrum installed, and none to be had from Debian"
ended
