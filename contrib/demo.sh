#!/usr/bin/env bash
# Ambra on a chain that lives, on a machine with nothing but Rust.
#
#   contrib/demo.sh          builds Ambra, starts a bitcoind on regtest and Ambra beside it, prints how to
#                            connect, and pays and mines until Ctrl-C
#   contrib/demo.sh --once   the same, then checks that a subscription is answered and that pushes arrive,
#                            prints what it saw, and stops; exit code 0 if all was as it should be
#
# Everything that it makes lies in a folder of its own under target/ and is removed at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

once=no
case "${1:-}" in
"") ;;
--once) once=yes ;;
*) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit 2 ;;
esac

# A chain of this many blocks to begin with: the first ones mature the coins, the others have payments.
empty_blocks=200
paid_blocks=100
# At the pace of a busy little town.
seconds_between_payments=4
seconds_between_blocks=30
# Longest wait for anything that is to happen.
patience=60

say() { printf '%s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

# --- what is needed

. contrib/packages.sh
need_packages
say "Building Ambra (the first time takes a while: RocksDB is compiled too)"
cargo build --release --locked --bin ambra
ambra=${CARGO_TARGET_DIR:-target}/release/ambra
bitcoind=$(contrib/bitcoind.sh)

# --- a folder, and an end to everything

mkdir -p target
dir=$(mktemp -d "$PWD/target/demo.XXXXXX")
bitcoind_pid=""
ambra_pid=""
failed=yes

# running PID
running() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }

# stop NAME PID: asks it to stop and waits; tells if it ended otherwise than it should.
stop() {
    local code=0 start=$SECONDS
    [ -n "$2" ] || return 0
    kill -TERM "$2" 2>/dev/null || true
    wait "$2" 2>/dev/null || code=$?
    say "$1 stopped (exit code $code, $((SECONDS - start)) s)"
    [ "$code" = 0 ] || failed=yes
}

finish() {
    local code=$?
    trap - EXIT
    trap '' INT TERM
    { exec 3>&-; } 2>/dev/null || true
    [ "$code" != 0 ] || failed=no
    stop Ambra "$ambra_pid"
    stop bitcoind "$bitcoind_pid"
    if [ "$failed" = yes ]; then
        say "The logs are in $dir:" >&2
        tail -n 20 "$dir/ambra.log" >&2 2>/dev/null || true
        [ "$code" != 0 ] || code=1
    else
        rm -rf "$dir"
    fi
    exit "$code"
}
trap finish EXIT
# Ctrl-C is how the demo ends when all is well; --once is not done then.
interrupted() { [ $once = no ] && [ -n "$ambra_pid" ] && exit 0 || exit 130; }
trap 'say ""; interrupted' INT
trap interrupted TERM

# in_background COMMAND...: in a process group of its own, so that Ctrl-C reaches this script alone, which
# then stops things in their order.
in_background() {
    set -m
    "$@" &
    set +m
}

# free_port FIRST: the first port from there on where nobody listens.
free_port() {
    local port=$1
    while (exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        port=$((port + 1))
    done
    echo "$port"
}

# --- a bitcoind on regtest

rpc_port=$(free_port 18443)
zmq_port=$(free_port 28332)
mkdir "$dir/bitcoin"
cat >"$dir/bitcoin/bitcoin.conf" <<END
regtest=1
server=1
rest=1
listen=0
dnsseed=0
fallbackfee=0.0002
zmqpubhashblock=tcp://127.0.0.1:$zmq_port
zmqpubsequence=tcp://127.0.0.1:$zmq_port
[regtest]
rpcport=$rpc_port
END
in_background "$bitcoind" -datadir="$dir/bitcoin" -printtoconsole=0 >"$dir/bitcoind.out" 2>&1
bitcoind_pid=$!

node() { "$(dirname "$bitcoind")/bitcoin-cli" -datadir="$dir/bitcoin" "$@"; }
wallet() { node -rpcwallet=demo "$@"; }

waited=0
until node getblockcount >/dev/null 2>&1; do
    running "$bitcoind_pid" || { cat "$dir/bitcoind.out" >&2; fail "bitcoind did not start"; }
    [ $((waited += 1)) -le $((patience * 5)) ] || fail "bitcoind did not answer within $patience s"
    sleep 0.2
done
node createwallet demo >/dev/null || fail "this bitcoind has no wallet; set BITCOIND to one that has"

# --- a chain with something of everything

# address TYPE: a new one of ours: legacy, p2sh-segwit, bech32 or bech32m.
address() { wallet getnewaddress "" "$1"; }
# field NAME: the string of that name in the JSON on stdin.
field() { sed -n 's/.*"'"$1"'": *"\([^"]*\)".*/\1/p' | head -n 1; }
# described DESCRIPTOR: the address of an output descriptor, say of P2SH or P2WSH.
described() {
    local checksum
    checksum=$(node getdescriptorinfo "$1" | field checksum)
    node deriveaddresses "$1#$checksum" | sed -n 's/.*"\(.*\)".*/\1/p'
}
mine() { node generatetoaddress "$1" "$2" >/dev/null; }

say "Making a chain of $((empty_blocks + paid_blocks)) blocks"
legacy=$(address legacy)
wrapped=$(address p2sh-segwit)
segwit=$(address bech32)
taproot=$(address bech32m)
pubkey=$(wallet getaddressinfo "$segwit" | field pubkey)
p2sh=$(described "sh(multi(1,$pubkey))")
p2wsh=$(described "wsh(multi(1,$pubkey))")
for to in "$legacy" "$wrapped" "$segwit" "$taproot"; do
    mine $((empty_blocks / 4)) "$to"
done
for i in $(seq $paid_blocks); do
    wallet sendmany "" "{\"$legacy\":0.0$((i % 9 + 1)),\"$wrapped\":0.02,\"$segwit\":0.03,\"$taproot\":0.04}" >/dev/null
    case $((i % 4)) in
    0) wallet send "[{\"$p2sh\":0.001},{\"data\":\"$(printf '%08x' "$i")\"}]" >/dev/null ;;
    1) wallet sendtoaddress "$p2wsh" 0.002 >/dev/null ;;
    2) wallet sendtoaddress "$(address bech32m)" 0.3 >/dev/null ;;
    esac
    mine 1 "$segwit"
done

# --- Ambra

port=$(free_port 60401)
page=$(free_port 60409)
in_background "$ambra" --daemon-dir "$dir/bitcoin" --db-dir "$dir/ambra" \
    --listen "tcp://127.0.0.1:$port" --admin-listen "127.0.0.1:$page" >"$dir/ambra.log" 2>&1
ambra_pid=$!

# script_hash ADDRESS: SHA-256 of its output script, bytes reversed, as the protocol names scripts.
script_hash() {
    local script hash reversed="" i
    script=$(wallet getaddressinfo "$1" | field scriptPubKey)
    hash=$(printf "$(printf '%s' "$script" | sed 's/../\\x&/g')" | sha256 | cut -c 1-64)
    for ((i = 62; i >= 0; i -= 2)); do reversed=$reversed${hash:i:2}; done
    echo "$reversed"
}
sha256() { if command -v sha256sum >/dev/null; then sha256sum; else shasum -a 256; fi; }

# A wallet in bash: requests go out on descriptor 3, and what comes back is a reply or a push.
reply=""
pushes=""
request_id=0

# receive SECONDS: the next line into $line.
receive() { IFS= read -r -t "$1" line <&3; }

# ask METHOD PARAMS: the reply into $reply; pushes that come before it are kept.
ask() {
    request_id=$((request_id + 1))
    printf '{"jsonrpc":"2.0","id":%d,"method":"%s","params":%s}\n' "$request_id" "$1" "$2" >&3
    while receive "$patience"; do
        case $line in
        *'"method"'*) pushes=$pushes$line$'\n' ;;
        *) reply=$line; return ;;
        esac
    done
    fail "no reply to $1 within $patience s"
}

# await_push METHOD TEXT: a push of that method that has the text in it, into $push. Others are kept: the order
# of pushes is the server's affair.
await_push() {
    local others seen end=$((SECONDS + patience))
    while :; do
        others=""
        push=""
        while IFS= read -r seen; do
            [ -n "$seen" ] || continue
            if [ -z "$push" ]; then
                case $seen in *"\"$1\""*"$2"*) push=$seen; continue ;; esac
            fi
            others=$others$seen$'\n'
        done <<<"$pushes"
        pushes=$others
        [ -z "$push" ] || return 0
        [ $SECONDS -lt $end ] || fail "no push of $1 within $patience s"
        if receive 1; then pushes=$pushes$line$'\n'; fi
    done
}

# connect: opens descriptor 3, waiting until somebody listens.
connect() {
    local waited=0
    until (exec 9<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        running "$ambra_pid" || fail "Ambra has ended"
        [ $((waited += 1)) -le $((patience * 5)) ] || fail "nobody listens on port $port after $patience s"
        sleep 0.2
    done
    exec 3<>"/dev/tcp/127.0.0.1/$port"
    ask server.version '["demo.sh","1.4"]'
}

# Until the first sync is done script questions are answered by an error that says so.
await_sync() {
    local end=$((SECONDS + patience))
    while :; do
        ask blockchain.scripthash.get_balance "[\"$1\"]"
        case $reply in *'"confirmed"'*) return ;; esac
        [ $SECONDS -lt $end ] || fail "not in step with the node after $patience s: $reply"
        sleep 0.2
    done
}

known=$(script_hash "$segwit")
connect
version=$reply
await_sync "$known"
grep -q "listening on tcp://127.0.0.1:$port" "$dir/ambra.log" ||
    fail "the log does not say where Ambra listens"

cat <<END

Ambra serves regtest, height $(node getblockcount), on

    tcp://127.0.0.1:$port

How it does is at

    http://127.0.0.1:$page/

Open Electrum on it:

    electrum --regtest --oneserver --server 127.0.0.1:$port:t

The script hash of the node's address $segwit is

    $known

Its balance, and its status with a push whenever it changes (Ctrl-C ends it):

    echo '{"id":1,"method":"blockchain.scripthash.get_balance","params":["$known"]}' | nc -w 2 127.0.0.1 $port
    (echo '{"id":2,"method":"blockchain.scripthash.subscribe","params":["$known"]}'; sleep 1000) | nc 127.0.0.1 $port

Ambra's log: $dir/ambra.log

END

# --- --once: be a wallet

if [ $once = yes ]; then
    saw() { printf '%-52s %s\n' "$1" "$2"; }
    mined() { node getblockcount; }

    saw "server.version" "$version"
    ask blockchain.headers.subscribe '[]'
    saw "headers.subscribe" "$reply"
    case $reply in *"\"height\":$(mined)"*) ;; *) fail "the tip is not the node's, $(mined)" ;; esac

    mine_to=$(address bech32)
    new=$(address bech32)
    hash=$(script_hash "$new")
    ask blockchain.scripthash.subscribe "[\"$hash\"]"
    saw "scripthash.subscribe to an unused address" "$reply"
    case $reply in *'"result":null'*) ;; *) fail "an unused address has a status" ;; esac

    txid=$(wallet sendtoaddress "$new" 0.5)
    await_push blockchain.scripthash.subscribe "$hash"
    saw "paid 0.5 to it: push" "$push"
    ask blockchain.scripthash.get_history "[\"$hash\"]"
    saw "its history" "$reply"
    case $reply in *"$txid"*) ;; *) fail "the payment $txid is not in the history" ;; esac
    case $reply in *'"height":0'*) ;; *) fail "the payment is not told as unconfirmed" ;; esac
    ask blockchain.scripthash.get_balance "[\"$hash\"]"
    saw "its balance" "$reply"
    case $reply in *'"unconfirmed":50000000'*) ;; *) fail "the balance is not 0.5, unconfirmed" ;; esac

    mine 1 "$mine_to"
    await_push blockchain.headers.subscribe "\"height\":$(mined)"
    saw "mined a block: push" "$push"
    await_push blockchain.scripthash.subscribe "$hash"
    saw "and push" "$push"
    ask blockchain.scripthash.get_history "[\"$hash\"]"
    saw "its history" "$reply"
    case $reply in *"\"height\":$(mined)"*) ;; *) fail "the payment is not told as confirmed at $(mined)" ;; esac
    ask blockchain.scripthash.get_balance "[\"$hash\"]"
    saw "its balance" "$reply"
    case $reply in *'"confirmed":50000000'*) ;; *) fail "the balance is not 0.5, confirmed" ;; esac

    say "All as it should be."
    exit 0
fi

# --- the chain lives

exec 3>&-
if [ -t 0 ]; then
    say "Type an address and Enter, and it is paid 1 BTC. Ctrl-C stops everything."
else
    say "Ctrl-C stops everything."
fi
now() { date +%H:%M:%S; }
# A failing payment (say, no confirmed coin just now) is told; the next one may do.
paid() { if [ -n "$2" ]; then say "$(now)  $1: $2"; else say "$(now)  $1: not this time"; fi; }

next_payment=$SECONDS
next_block=$((SECONDS + seconds_between_blocks))
n=0
last=""
while :; do
    running "$bitcoind_pid" || fail "bitcoind has ended"
    running "$ambra_pid" || fail "Ambra has ended"
    if [ -t 0 ]; then
        line=""
        read -r -t 1 line || true
        if [ -n "$line" ]; then
            paid "1 BTC to $line" "$(wallet sendtoaddress "$line" 1 || true)"
        fi
    else
        sleep 1
    fi
    if [ $SECONDS -ge $next_payment ]; then
        next_payment=$((SECONDS + seconds_between_payments))
        n=$((n + 1))
        case $((n % 6)) in
        0) paid "a higher fee, replacing $last" "$(wallet bumpfee "$last" 2>/dev/null | field txid)" ;;
        1) paid "to $segwit" "$(last=$(wallet sendtoaddress "$segwit" 0.01) && echo "$last" || true)" ;;
        2) paid "to a new taproot address" "$(wallet sendtoaddress "$(address bech32m)" 0.02 || true)" ;;
        3) paid "to a P2WSH multisig" "$(wallet sendtoaddress "$p2wsh" 0.001 || true)" ;;
        4) paid "to four kinds of address" "$(wallet sendmany "" "{\"$legacy\":0.01,\"$wrapped\":0.02,\"$segwit\":0.03,\"$taproot\":0.04}" || true)" ;;
        5)
            last=$(wallet sendtoaddress "$segwit" 0.01 || true)
            paid "to $segwit" "$last"
            ;;
        esac
    fi
    if [ $SECONDS -ge $next_block ]; then
        next_block=$((SECONDS + seconds_between_blocks))
        mine 1 "$segwit" && say "$(now)  block $(node getblockcount)"
    fi
done
