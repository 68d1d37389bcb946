# What the scripts of all clients share. Sourced by contrib/wallets/NAME/run.sh, from the repository's root.

export PYTHONDONTWRITEBYTECODE=1
wallets=$PWD/target/wallets
client=$(basename "$(dirname "${BASH_SOURCE[1]}")")
here=contrib/wallets/$client
mkdir -p "$wallets/$client" "$wallets/results"
rm -f "$wallets/results/$client.skipped"
all_well=yes

# skip WORDS: this client cannot be had here. Said aloud, kept for the table, and no failure.
skip() {
    echo "SKIPPED: $client: $*"
    echo "$*" >"$wallets/results/$client.skipped"
    exit 75
}

# life NAME COMMAND...: a life in a scene of its own.
life() { contrib/wallets/scene.py "$@" || all_well=no; }

# installed STAMP COMMAND...: runs the command once for what the stamp says (versions, a lock file's sum). What an
# earlier run brought is kept, so that a second run needs no registry.
installed() {
    local stamp=$1
    shift
    [ "$(cat "$wallets/$client/installed" 2>/dev/null)" != "$stamp" ] || return 0
    "$@" || return 1
    echo "$stamp" >"$wallets/$client/installed"
}

# For the last line of each script.
ended() { [ $all_well = yes ]; }
