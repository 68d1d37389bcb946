#!/usr/bin/env bash
# The long proofs: kills, torn writes, random lives, faults of disk and database, fuzzing, soak. What they saw goes
# into docs/reliability.md.
#
#   contrib/torture.sh [--kills N] [--tears N] [--steps N] [--soak MINUTES] [--fuzz MINUTES] [--seed N]
#                      [--only PART,...] [--no-docs]
#
#   --kills N        SIGKILLs of Ambra and of bitcoind, at every kind of moment              [200]
#   --tears N        files cut, zeroed, flipped or removed under a killed server             [300]
#   --steps N        steps of random chains, all scripts asked for everything after each     [2000]
#   --soak MINUTES   mixed load with blocks, reorganizations and reconnects                  [60]
#   --fuzz MINUTES   for each parser of bytes from outside (contrib/fuzz.sh)                 [5]
#   --seed N         the same seed, the same lives                                           [by chance, printed]
#   --only PARTS     of kills, tears, lives, faults, bounds, fuzz, soak; with commas         [all]
#   --no-docs        leave docs/reliability.md as it is
#
# With these defaults it takes about two hours, one of them the soak. Every part runs even if an earlier one failed;
# the last lines say how each went. Exit code 0 if all went well. Figures are added to target/torture/report.jsonl,
# one JSON object a line; the newest line of each story goes into the document, so parts may be run on their own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TERM_PROGRESS_WHEN=never

kills=200 tears=300 steps=2000 soak=60 fuzz=5 seed=$((RANDOM * 32768 + RANDOM)) only=kills,tears,lives,faults,bounds,fuzz,soak
docs=yes
while [ $# -gt 0 ]; do
    case $1 in
    --kills) kills=$2 ;;
    --tears) tears=$2 ;;
    --steps) steps=$2 ;;
    --soak) soak=$2 ;;
    --fuzz) fuzz=$2 ;;
    --seed) seed=$2 ;;
    --only) only=$2 ;;
    --no-docs)
        docs=no
        shift
        continue
        ;;
    -h | --help)
        sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//p}' "$0"
        exit 0
        ;;
    *)
        echo "torture.sh: $1: no such option (--help shows them)" >&2
        exit 2
        ;;
    esac
    [ $# -ge 2 ] || { echo "torture.sh: $1 needs a value" >&2; exit 2; }
    shift 2
done

. contrib/packages.sh
need_packages
BITCOIND=$(contrib/bitcoind.sh)
out=$PWD/target/torture
mkdir -p "$out"
export BITCOIND STORIES_SEED=$seed STORIES_KILLS=$kills STORIES_TEARS=$tears STORIES_STEPS=$steps \
    STORIES_MINUTES=$soak STORIES_FOLDER=$out STORIES_REPORT=$out/report.jsonl
STORIES_CODE=$(git describe --always --dirty --exclude '*' 2>/dev/null || echo unknown)
export STORIES_CODE

echo "torture.sh: seed $seed, code $STORIES_CODE, figures in $STORIES_REPORT"
cargo build --release --locked --bin ambra
cargo test --release --locked --no-run --test stories
summary="" all_well=yes

# part NAME COMMAND...: runs it if it is wanted, and keeps a line of how it went.
part() {
    local name=$1 code=0 start=$SECONDS word=ok
    shift
    case ",$only," in *",${name%% *},"*) ;; *) return 0 ;; esac
    printf '\n== %s: %s\n' "$name" "$*"
    "$@" || code=$?
    [ $code = 0 ] || { word=FAILED all_well=no; }
    summary="$summary$(printf '%-8s %-7s (%d s)' "$name" $word $((SECONDS - start)))"$'\n'
}

# Exactly one story must have run.
long() {
    cargo test --release --locked --test stories -- --ignored --nocapture --exact "$1"
}

stories() {
    cargo test --release --locked --test stories -- --nocapture --test-threads 2 "$@"
}

# "TARGET: N inputs in S s, ..." of each target becomes one line of the report.
fuzzing() {
    local code=0
    contrib/fuzz.sh $(($1 * 60)) | tee "$out/fuzz.log" || code=$?
    awk -v code="$STORIES_CODE" -F'[: ]+' '
        $3 == "inputs" && $2 ~ /^[0-9]+$/ { targets = targets (targets ? "," : "") "\"" $1 "\":" $2; sum += $2 }
        END { if (sum) printf "{\"story\":\"fuzz\",\"code\":\"%s\",\"figures\":{\"inputs\":%.0f,\"targets\":{%s}}}\n", code, sum, targets }
    ' "$out/fuzz.log" >>"$STORIES_REPORT"
    return $code
}

part kills long torture::torture_with_kills_of_both_sides
part tears long torn_writes::torture_with_torn_writes
part lives long random_lives::oracle_agrees_for_long
part faults stories torture:: torn_writes:: disk_faults:: permission_lost:: wrong_database:: damaged_blocks:: rollback:: verify::
part bounds long memory_parts::memory_is_flat_once_its_parts_are_at_their_bounds
part fuzz fuzzing "$fuzz"
part soak long soak::soak_under_mixed_load_stays_flat_and_right

if [ $docs = yes ]; then
    long reliability::the_document_is_remade_from_the_report || all_well=no
    [ ! -e "$out/soak.svg" ] || cp "$out/soak.svg" "$out/soak.csv" docs/
fi

printf '\n== Summary (seed %s)\n%s' "$seed" "$summary"
if [ $all_well = no ]; then
    echo "NOT all went well."
    exit 1
fi
echo "All went well."
