#!/usr/bin/env bash
# Tests of a crate that ask a server by TLS (TEST_ELECTRUM_SERVER), in a scene.
#
#   scene.py NAME contrib/wallets/suites/crate.sh TITLE VERSION SOURCE ARGUMENTS...     those of cargo test
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
title=$1 version=$2 source=$3 log=$SCENE_DIR/suite.log
shift 3
(cd "$source" && TEST_ELECTRUM_SERVER=$SCENE_HOST:$SCENE_TLS \
    cargo test --quiet --locked --offline "$@" -- --format pretty --test-threads=1) | tee "$log" || true
python3 contrib/wallets/suites/result.py in-scene "$title" "$version" "$log"
