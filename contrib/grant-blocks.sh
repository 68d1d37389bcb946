#!/bin/sh
# Lets another user than bitcoind's read bitcoind's block files: now, and those to come.
#
#   sudo contrib/grant-blocks.sh DATADIR [USER]
#
# DATADIR is bitcoind's data directory (with testnet4/, signet/ or regtest/ at its end for these networks), USER is
# ambra if not given. bitcoind makes its files readable by its own user alone and has no option against that, so
# this sets an access control list on blocks/, with a default that new files inherit. Nothing else is opened: not the
# wallets, not the cookie (for that: rpccookieperms=group in bitcoin.conf).
#
#   sudo contrib/grant-blocks.sh --undo DATADIR [USER]     takes it back
set -eu

undo=no
if [ "${1:-}" = --undo ]; then
    undo=yes
    shift
fi
case "${1:-}" in
"" | -*)
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
datadir=$(cd "$1" && pwd -P)
user=${2:-ambra}

if [ ! -d "$datadir/blocks" ]; then
    echo "there is no $datadir/blocks: is $datadir bitcoind's data directory?" >&2
    exit 1
fi
if ! command -v setfacl >/dev/null; then
    echo "setfacl is missing: apt install acl" >&2
    exit 1
fi
if ! id "$user" >/dev/null 2>&1; then
    echo "there is no user $user" >&2
    exit 1
fi

if [ $undo = yes ]; then
    setfacl -R -x "u:$user" -x "d:u:$user" "$datadir/blocks"
    setfacl -x "u:$user" "$datadir"
    echo "$user reads the blocks in $datadir no more."
    exit 0
fi

# X: folders may be entered; files are not made executable.
setfacl -R -m "u:$user:rX" "$datadir/blocks"
find "$datadir/blocks" -type d -exec setfacl -m "d:u:$user:rX" {} +
# The way there: to pass through, not to look around.
folder=$datadir
while [ "$folder" != / ]; do
    if [ "$(id -u)" = 0 ] && ! runuser -u "$user" -- test -x "$folder"; then
        setfacl -m "u:$user:x" "$folder"
    fi
    folder=$(dirname "$folder")
done
echo "$user may read the blocks in $datadir."
