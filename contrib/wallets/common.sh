# What the scripts of all clients share. Sourced by contrib/wallets/NAME/run.sh, from the repository's root.

export PYTHONDONTWRITEBYTECODE=1
wallets=$PWD/target/wallets
client=$(basename "$(dirname "${BASH_SOURCE[1]}")")
here=contrib/wallets/$client
mkdir -p "$wallets/$client" "$wallets/results"
rm -f "$wallets/results/$client".skipped "$wallets/results/$client"-*.skipped
all_well=yes
# So many lives at once: each waits for others most of the time.
at_once=${WALLETS_AT_ONCE:-2}
lives=""

# Set where only what takes under two minutes is wanted (run-all.sh --ci): each client, but not by each transport.
quick=${WALLETS_QUICK:-}

# left_out NAME WORDS: what cannot be had here. Said aloud, kept for docs/wallets.md, and no failure.
left_out() {
    local name=$1
    shift
    echo "SKIPPED: $name: $*"
    echo "$*" >"$wallets/results/$name.skipped"
}

# skip WORDS: nothing of this folder can be had here.
skip() {
    left_out "$client" "$@"
    exit 75
}

# life NAME COMMAND...: a life in a scene of its own, beside others.
life() {
    [ "$(wc -w <<<"$lives")" -lt "$at_once" ] || one_ended
    contrib/wallets/scene.py "$@" &
    lives="$lives $!"
}

# Waits for the life that was begun first.
one_ended() {
    set -- $lives
    [ $# -gt 0 ] || return 0
    wait "$1" || all_well=no
    shift
    lives=$*
}

# What runs is ended with this script, by Ctrl-C and otherwise; a scene stops its programs then.
end_lives() {
    trap - EXIT
    [ -z "$lives" ] || kill $lives 2>/dev/null || true
    for running in $lives; do wait "$running" || true; done
}
trap end_lives EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# installed STAMP COMMAND...: runs the command once for what the stamp says (versions, a lock file's sum). What an
# earlier run brought is kept, so that a second run needs no registry.
installed() {
    local stamp=$1
    shift
    [ "$(cat "$wallets/$client/installed" 2>/dev/null)" != "$stamp" ] || return 0
    rm -f "$wallets/$client/installed"
    "$@" || return 1
    echo "$stamp" >"$wallets/$client/installed"
}

# For the last line of each script.
ended() {
    while [ -n "$lives" ]; do one_ended; done
    [ $all_well = yes ]
}
