#!/usr/bin/env bash
# Prints the path of a bitcoind with a bitcoin-cli beside it; gets one if there is none.
#
#   contrib/bitcoind.sh
#
# 1. $BITCOIND, if it is set;
# 2. else bitcoind on the PATH;
# 3. else Debian's package bitcoin-knots (Bitcoin Core's RPC, REST, ZMQ and wallet), unpacked under
#    target/bitcoind with all libraries that it needs, the C library too. Nothing is installed and
#    nothing outside of target/ changes. The mirror is the one that apt already uses.
#
# All words go to stderr; stdout has the path alone.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The Debian suite with the package; overridable for the day when it has moved on.
suite=${BITCOIND_SUITE:-forky}
prefix=$PWD/target/bitcoind

say() { echo "bitcoind.sh: $*" >&2; }

# Runs it for its version: a file that is there and cannot run is no bitcoind.
works() { "$1" -version >/dev/null 2>&1 && "$(dirname "$1")/bitcoin-cli" -version >/dev/null 2>&1; }

if [ -n "${BITCOIND:-}" ]; then
    works "$BITCOIND" || { say "BITCOIND=$BITCOIND does not run, or has no bitcoin-cli beside it"; exit 1; }
    echo "$BITCOIND"
    exit 0
fi

if on_path=$(command -v bitcoind) && works "$on_path"; then
    echo "$on_path"
    exit 0
fi

# Two scripts may want it at once; one gets it, the other waits.
mkdir -p "$prefix"
if command -v flock >/dev/null; then
    exec 9>"$prefix/lock"
    flock 9
fi

if works "$prefix/bin/bitcoind"; then
    echo "$prefix/bin/bitcoind"
    exit 0
fi

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    say "found no bitcoind, and can get one by itself only on Debian and Ubuntu."
    say "Install Bitcoin Core or Bitcoin Knots 25 or newer (macOS: brew install bitcoin;"
    say "Fedora, Arch, NixOS: the package bitcoin or bitcoind; else https://bitcoincore.org/en/download/),"
    say "then run this again with bitcoind on the PATH, or with BITCOIND=/path/to/bitcoind."
    exit 1
fi

keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# apt's own list of package files: the Debian mirror that most of them come from.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
    grep -E '/debian/?$' | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }' || true)
if [ -z "$mirror" ] || [ ! -e "$keyring" ]; then
    say "apt knows no Debian mirror or has no Debian keys (this is not Debian?)."
    say "Install Bitcoin Core by hand (https://bitcoincore.org/en/download/) and set BITCOIND=/path/to/bitcoind."
    exit 1
fi

say "getting bitcoin-knots ($suite) from $mirror into target/bitcoind"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
echo "deb [signed-by=$keyring] $mirror $suite main" >"$work/sources.list"
# An empty system with only what the package's system service asks for: so apt brings every library,
# of the package's own suite, and none has to fit this system's.
for package in debconf systemd systemd-sysusers systemd-standalone-sysusers; do
    printf 'Package: %s\nStatus: install ok installed\nArchitecture: all\nVersion: 9999\nMaintainer: nobody\nDescription: none\n\n' \
        "$package"
done >"$work/status"
apt_own() {
    apt-get -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
        -o Dir::Cache="$work/cache" -o Dir::Cache::archives="$work/cache/archives" \
        -o APT::Install-Recommends=0 -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none -o Debug::NoLocking=1 -qq "$@" >&2
}
if ! apt_own update || ! apt_own -y --download-only install bitcoin-knots; then
    say "apt could not get it (its words are above)."
    say "Install Bitcoin Core by hand (https://bitcoincore.org/en/download/) and set BITCOIND=/path/to/bitcoind."
    exit 1
fi

rm -rf "$prefix/root" "$prefix/bin"
mkdir -p "$prefix/root" "$prefix/bin"
for deb in "$work"/cache/archives/*.deb; do
    dpkg-deb -x "$deb" "$prefix/root"
done
# Started by their own loader, with their own libraries.
loader=$(find "$prefix/root" -name 'ld-linux*.so.*' | sort | head -n 1)
libraries=$(find "$prefix/root" -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
for program in bitcoind bitcoin-cli; do
    cat >"$prefix/bin/$program" <<END
#!/bin/sh
exec "$loader" --library-path "$libraries" "$prefix/root/usr/bin/$program" "\$@"
END
    chmod +x "$prefix/bin/$program"
done
works "$prefix/bin/bitcoind" || { say "the unpacked bitcoind does not run"; "$prefix/bin/bitcoind" -version >&2 || true; exit 1; }
"$prefix/bin/bitcoind" -version | head -n 1 >&2
echo "$prefix/bin/bitcoind"
