#!/usr/bin/env bash
# Electrum's own regtest suite (tests/regtest.py of its source) against Ambra, in a scene: two or three Electrums with
# channels of Lightning between them, which watch the chain by the server. Of its source nothing is changed but the
# folder that it works in, the server's port and what its people listen on.
#
#   scene.py suite-electrum-regtest-1 contrib/wallets/suites/electrum.sh SOURCE [TEST...]
#
# ELECTRUM_PYTHON: a Python with what Electrum needs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."

path=$PATH pythonpath=$PYTHONPATH
result=$PWD/contrib/wallets/suites/result.py
source=$1
shift
[ $# -gt 0 ] || set -- tests.regtest

# Its scripts call these by name.
mkdir "$SCENE_DIR/bin"
cat >"$SCENE_DIR/bin/python3" <<PYTHON
#!/bin/sh
exec $ELECTRUM_PYTHON "\$@"
PYTHON
cat >"$SCENE_DIR/bin/bitcoin-cli" <<'CLI'
#!/usr/bin/env bash
# Another port and login than it says, and the scene's wallet.
words=()
for word in "$@"; do
    case $word in -rpc* | -regtest) ;; *) words+=("$word") ;; esac
done
exec "$(dirname "$BITCOIND")/bitcoin-cli" -regtest -datadir="$SCENE_NODE" -rpcport="$SCENE_RPC_PORT" -rpcwallet=bank \
    "${words[@]}"
CLI
chmod +x "$SCENE_DIR"/bin/*

cp -r "$source" "$SCENE_DIR/electrum"
cd "$SCENE_DIR/electrum"
version=$(sed -n "s/^ELECTRUM_VERSION = '\([^']*\)'.*/\1/p" electrum/version.py)
sed -i "s#/tmp/#$SCENE_DIR/#g; s#127.0.0.1:51001#127.0.0.1:$SCENE_TCP#g" tests/regtest/regtest.sh
read -r peers swaps tower < <(python3 -c 'from programs import free_port; print(free_port(), free_port(), free_port())')
sed -i "s/9735/$peers/g; s/5455/$swaps/g; s/12345/$tower/g" tests/regtest.py
"$SCENE_DIR/bin/python3" -m compileall -q electrum run_electrum tests >/dev/null 2>&1 || true

# Neither a screen nor the user's own wallets; and its `screen`s know nothing of those of other parts, which run beside.
SCREENDIR=$(mktemp -d)
trap 'rm -rf "$SCREENDIR"' EXIT
export SCREENDIR HOME=$SCENE_DIR PATH=$SCENE_DIR/bin:$PATH
unset DISPLAY PYTHONPATH
"$SCENE_DIR/bin/python3" -u -m unittest -v "$@" 2>&1 | tee "$SCENE_DIR/suite.log" || true
PATH=$path PYTHONPATH=$pythonpath python3 "$result" in-scene "Electrum's own regtest suite" "$version" "$SCENE_DIR/suite.log"
