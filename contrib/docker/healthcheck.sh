#!/bin/bash
# Exit code 0 if Ambra says that it is ready (GET /health), else 1. For containers: needs bash and nothing else.
set -u
# Where the admin listener is, as Ambra itself was told; all addresses are reached by this one.
at=${AMBRA_ADMIN_LISTEN:-127.0.0.1:50009}
port=${at##*:}

exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
printf 'GET /health HTTP/1.1\r\nHost: 127.0.0.1:%s\r\nConnection: close\r\n\r\n' "$port" >&3
read -r -t 4 _ status _ <&3 || exit 1
[ "$status" = 200 ]
