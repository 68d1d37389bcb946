# What the build and the scripts need from the system. Sourced by demo.sh and test.sh.

# need_packages: sees that there are a C++ compiler, make (for the allocator), clang's library (RocksDB's bindings are
# made with it) and netcat. Installs what is missing on Debian and Ubuntu; says what to install elsewhere.
need_packages() {
    if ! command -v cargo >/dev/null && [ -e "$HOME/.cargo/env" ]; then
        . "$HOME/.cargo/env"
    fi
    if ! command -v cargo >/dev/null; then
        echo "Rust is missing: see https://rustup.rs" >&2
        return 1
    fi
    local missing=""
    command -v c++ >/dev/null || missing="$missing g++"
    command -v make >/dev/null || missing="$missing make"
    has_libclang || missing="$missing clang libclang-dev"
    command -v nc >/dev/null || missing="$missing netcat-openbsd"
    [ -z "$missing" ] || install_packages $missing
}

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    local found
    for found in /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* /usr/lib*/libclang*.so* \
        /opt/homebrew/opt/llvm/lib/libclang.dylib /usr/local/opt/llvm/lib/libclang.dylib \
        /Library/Developer/CommandLineTools/usr/lib/libclang.dylib; do
        # libclang-cpp is another library.
        case $found in *libclang-cpp*) continue ;; esac
        [ -e "$found" ] && return
    done
    return 1
}

# install_packages NAME...: Debian's names.
install_packages() {
    local sudo=""
    if ! command -v apt-get >/dev/null; then
        echo "Please install what Debian calls: $*" >&2
        echo "(macOS: xcode-select --install, brew install llvm; Fedora: gcc-c++ make clang-devel nmap-ncat;" >&2
        echo " Arch: base-devel clang openbsd-netcat), then run this again." >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null; then
            echo "Please run as root: apt-get install $*" >&2
            return 1
        fi
        sudo=sudo
    fi
    echo "installing $*" >&2
    $sudo apt-get -qq update >&2 &&
        $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "$@" >/dev/null
}
