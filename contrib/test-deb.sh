#!/usr/bin/env bash
# Tries the Debian package as a new machine meets it: installs it into an empty Debian (debootstrap), runs the
# program there, upgrades, removes and purges it, and sees that nothing remains.
#
#   sudo contrib/test-deb.sh [PACKAGE.deb]
#
# Without a package it builds one (contrib/deb.sh). SUITE names the Debian (default: this system's), MIRROR the
# mirror, BASE a folder with a debootstrapped minbase root that is copied instead of made anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}

say() { printf '\n== %s\n' "$*"; }
fail() { echo "test-deb.sh: FAILED: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "a chroot needs root"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt install debootstrap"

# All mounts are made in a namespace of this script's own, and are gone with it.
if [ -z "${AMBRA_TEST_DEB_INSIDE:-}" ]; then
    AMBRA_TEST_DEB_INSIDE=yes exec unshare --mount --propagation private "$0" "$@"
fi

if [ $# -gt 0 ]; then
    package=$(realpath "$1")
else
    package=$(realpath "$(contrib/deb.sh | tail -1)")
fi

work=$(mktemp -d)
root=$work/root
clean_up() {
    umount -R "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT

say "an empty Debian ($suite)"
if [ -n "${BASE:-}" ]; then
    cp -a "$BASE" "$root"
else
    debootstrap --variant=minbase "$suite" "$root" ${MIRROR:+"$MIRROR"} >"$work/debootstrap.log" 2>&1 ||
        { tail -5 "$work/debootstrap.log" >&2; fail "debootstrap"; }
fi
mount -t proc proc "$root/proc"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
cp "$package" "$root/tmp/ambra.deb"

inside() { chroot "$root" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C DEBIAN_FRONTEND=noninteractive "$@"; }
as_ambra() { inside runuser -u ambra -- "$@"; }

# What the package needs comes first, so that the two lists differ by the package alone.
inside apt-get -qq update
depends=$(dpkg-deb -f "$package" Depends | tr ',' '\n' | sed 's/(.*)//; s/|.*//' | tr -d ' ')
# shellcheck disable=SC2086
inside apt-get -qq -y --no-install-recommends install $depends >/dev/null 2>&1

# Everything but what dpkg, apt and the clock write for themselves. Names, owners and modes.
state() {
    (cd "$root" && find . -xdev \( -path ./proc -o -path ./dev -o -path ./tmp -o -path ./var/lib/dpkg -o -path ./var/lib/apt \
        -o -path ./var/cache -o -path ./var/log -o -path ./run \) -prune -o -printf '%p %U:%G %m\n' |
        grep -vE '^\./(etc/(passwd|group|shadow|gshadow)-|etc/ld.so.cache|etc|var/lib) ' | sort)
    cat "$root/etc/passwd" "$root/etc/group"
}
state >"$work/before"

say "installing $(basename "$package")"
inside apt-get -qq -y --no-install-recommends install /tmp/ambra.deb >"$work/install.log" 2>&1 ||
    { cat "$work/install.log" >&2; fail "it does not install"; }
grep -iE 'warning|error' "$work/install.log" | grep -v debconf && fail "the installation complains"
inside dpkg --verify ambra || fail "installed files differ from the package's"
inside getent passwd ambra || fail "there is no user ambra"
[ "$(inside stat -c '%U:%G %a' /etc/ambra/ambra.toml)" = "root:ambra 640" ] || fail "others may read ambra.toml"
[ "$(inside stat -c '%U:%G %a' /var/lib/ambra)" = "ambra:ambra 700" ] || fail "others may read the index"
as_ambra test -r /etc/ambra/ambra.toml || fail "Ambra may not read its own settings"

say "running it"
inside ambra --version
as_ambra ambra config --conf /etc/ambra/ambra.toml | tee "$work/config"
grep -q '/var/lib/ambra' "$work/config" || fail "the settings of the package are not in force"
# There is no node: doctor says so, with words, and with the exit code for "not all is well".
code=0
as_ambra ambra doctor --conf /etc/ambra/ambra.toml | tee "$work/doctor" || code=$?
[ "$code" = 1 ] || fail "doctor's exit code is $code where there is no node"
grep -qi fail "$work/doctor" || fail "doctor sees nothing wrong where there is no node"
inside bash -n /usr/share/bash-completion/completions/ambra
inside bash -c '. /usr/share/bash-completion/completions/ambra && complete -p ambra'
# The empty Debian leaves manual pages out, so it is looked for in the package.
dpkg-deb --fsys-tarfile "$package" | tar -xO ./usr/share/man/man1/ambra.1.gz | gunzip | grep -q '^\.TH' ||
    fail "there is no manual page"

say "upgrading: the owner's settings stay"
echo '# mine' >>"$root/etc/ambra/ambra.toml"
inside apt-get -qq -y --reinstall install /tmp/ambra.deb >"$work/again.log" 2>&1 ||
    { cat "$work/again.log" >&2; fail "it does not upgrade"; }
grep -q '^# mine' "$root/etc/ambra/ambra.toml" || fail "an upgrade has overwritten ambra.toml"

say "removing: settings and index stay"
as_ambra touch /var/lib/ambra/index
inside apt-get -qq -y remove ambra >/dev/null 2>&1 || fail "it cannot be removed"
[ ! -e "$root/usr/bin/ambra" ] || fail "the program is still there"
[ -e "$root/etc/ambra/ambra.toml" ] || fail "settings have gone before a purge"
[ -e "$root/var/lib/ambra/index" ] || fail "the index has gone before a purge"

say "purging: nothing remains"
inside apt-get -qq -y purge ambra >/dev/null 2>&1 || fail "it cannot be purged"
state >"$work/after"
diff "$work/before" "$work/after" || fail "the purge has left or taken something (above)"

if command -v lintian >/dev/null; then
    say "lintian"
    # Not an upload to Debian: no bug to close.
    lintian --suppress-tags initial-upload-closes-no-bugs --fail-on error "$package"
fi

printf '\nAll as it should be.\n'
