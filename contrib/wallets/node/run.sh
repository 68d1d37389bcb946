#!/usr/bin/env bash
# Clients of Node.js, from npm: electrumjs, electrum-client, @mempool/electrum-client, @electrum-cash/network, and others
# that grew out of them.
#
#   contrib/wallets/node/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. contrib/wallets/common.sh

command -v node >/dev/null && command -v npm >/dev/null || skip "no node or no npm"

get() {
    (cd "$wallets/$client" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error \
        --fetch-timeout=60000 --fetch-retries=1)
}

# A module finds its libraries beside itself.
cp $here/*.mjs $here/package.json $here/package-lock.json "$wallets/$client/"
installed "$(node --version) $(sha256sum <$here/package-lock.json)" get || skip "npm could not bring the packages"

# lives_of LIBRARY TRANSPORT...: the library by each transport, or by the first only.
lives_of() {
    local library=$1 transport
    shift
    [ -z "$quick" ] || set -- "$1"
    for transport in "$@"; do
        # Node must take Ambra's certificate, and does so for a certificate that it is given as an authority's.
        life "npm-$(tr -d @ <<<"$library" | tr / -)-$transport" \
            bash -c 'NODE_EXTRA_CA_CERTS=$SCENE_CERTIFICATE exec "$@"' - \
            node "$wallets/$client/life.mjs" "$library" "$transport"
    done
}

lives_of electrumjs tls tcp
lives_of electrum-client tcp tls
lives_of @mempool/electrum-client tls tcp
lives_of @electrum-cash/network wss ws tcp tls
lives_of rn-electrum-client tcp
lives_of electrum-client-js tcp tls
lives_of @samouraiwallet/electrum-client tls tcp
lives_of @codewarriorr/electrum-client-js wss tcp ws
lives_of electrum-cash tls wss tcp ws
ended
