#!/usr/bin/env bash
# Clients of Node.js, from npm: electrumjs, electrum-client, @mempool/electrum-client and @electrum-cash/network.
#
#   contrib/wallets/node/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh

command -v node >/dev/null && command -v npm >/dev/null || skip "no node or no npm"

get() { (cd "$wallets/$client" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error); }

# A module finds its libraries beside itself.
cp $here/*.mjs $here/package.json $here/package-lock.json "$wallets/$client/"
installed "$(node --version) $(sha256sum <$here/package-lock.json)" get || skip "npm could not bring the packages"

# Node must take Ambra's certificate, and does so for a certificate that it is given as an authority's.
with_certificate='NODE_EXTRA_CA_CERTS=$SCENE_CERTIFICATE exec "$@"'
for library in electrumjs electrum-client @mempool/electrum-client; do
    for transport in tcp tls; do
        life "npm-$(tr -d @ <<<$library | tr / -)-$transport" bash -c "$with_certificate" - \
            node "$wallets/$client/life.mjs" $library $transport
    done
done
for transport in ws wss tcp tls; do
    life "npm-electrum-cash-network-$transport" bash -c "$with_certificate" - \
        node "$wallets/$client/life.mjs" @electrum-cash/network $transport
done
ended
