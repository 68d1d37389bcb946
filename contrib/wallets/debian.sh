# Debian packages of another suite, beside the system. Sourced.

debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror that apt uses.
debian_mirror() {
    local mirror
    mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' |
        grep -E '/debian/?$' | sort | uniq -c | sort -rn | awk 'NR == 1 { print $2 }' || true)
    if [ -z "$mirror" ] || [ ! -e "$debian_keyring" ]; then
        echo "apt knows no Debian mirror or has no Debian keys" >&2
        return 1
    fi
    echo "$mirror"
}

# unpack_debian SUITE PREFIX PACKAGE LEAVE_OUT...: unpacks the package and all that it needs, the C library too,
# under PREFIX/root. Nothing is installed. What LEAVE_OUT names counts as installed, and its own needs with it.
# The mirror is the one that apt already uses. Fails with words where that cannot be.
unpack_debian() {
    local suite=$1 prefix=$2 package=$3 work mirror name deb
    shift 3
    if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
        echo "$package comes from Debian's packages, and this is no Debian" >&2
        return 1
    fi
    mirror=$(debian_mirror) || return 1
    echo "getting $package ($suite) from $mirror" >&2
    mkdir -p "$prefix"
    work=$(mktemp -d)
    mkdir -p "$work"/lists/partial "$work"/cache/archives/partial
    echo "deb [signed-by=$debian_keyring] $mirror $suite main" >"$work/sources.list"
    for name in debconf "$@"; do
        printf 'Package: %s\nStatus: install ok installed\nArchitecture: all\nVersion: 9999\nMaintainer: nobody\nDescription: none\n\n' \
            "$name"
    done >"$work/status"
    if ! apt_beside update || ! apt_beside -y --download-only install "$package"; then
        rm -rf "$work"
        return 1
    fi
    rm -rf "$prefix/root"
    mkdir -p "$prefix/root"
    for deb in "$work"/cache/archives/*.deb; do
        dpkg-deb -x "$deb" "$prefix/root"
    done
    rm -rf "$work"
}

# apt with lists, packages and a system of its own, in $work.
apt_beside() {
    apt-get -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
        -o Dir::Cache="$work/cache" -o Dir::Cache::archives="$work/cache/archives" \
        -o APT::Install-Recommends=0 -o APT::Sandbox::User="$(id -un)" \
        -o Acquire::Languages=none -o Debug::NoLocking=1 -qq "$@" >&2
}

# python_of PREFIX: writes PREFIX/python, the unpacked Python, started by its own loader with its own libraries.
python_of() {
    local prefix=$1 loader libraries program
    loader=$(find "$prefix/root" -name 'ld-linux*.so.*' | sort | head -n 1)
    libraries=$(find "$prefix/root" -name '*.so*' -not -path '*/python3*' -printf '%h\n' | sort -u | paste -sd:)
    program=$(readlink -f "$prefix/root/usr/bin/python3")
    cat >"$prefix/python" <<PYTHON
#!/bin/sh
PYTHONHOME="$prefix/root/usr" exec "$loader" --library-path "$libraries" "$program" "\$@"
PYTHON
    chmod +x "$prefix/python"
}

# debian_source SUITE PACKAGE FOLDER: the package's source, unpacked, from the mirror that apt uses. apt checks Debian's
# signature.
debian_source() {
    local suite=$1 package=$2 folder=$3 work mirror tarball
    command -v apt-get >/dev/null && mirror=$(debian_mirror) || return 1
    work=$(mktemp -d)
    mkdir -p "$work"/lists/partial "$work"/cache/archives/partial "$work/source"
    echo "deb-src [signed-by=$debian_keyring] $mirror $suite main" >"$work/sources.list"
    : >"$work/status"
    if ! apt_beside update || ! (cd "$work/source" && apt_beside source --download-only "$package"); then
        echo "the source of $package ($suite) cannot be had from $mirror" >&2
        rm -rf "$work"
        return 1
    fi
    tarball=$(find "$work/source" -name '*.orig.tar.*' -not -name '*.asc' | head -n 1)
    rm -rf "$folder"
    mkdir -p "$folder"
    tar -xf "$tarball" --strip-components=1 -C "$folder"
    rm -rf "$work"
}
