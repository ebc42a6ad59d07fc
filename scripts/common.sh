# shellcheck shell=bash
# Sourced by the other scripts: where things are kept, and how Debian gets a package.
cache=${FRAZIL_CACHE:-$HOME/.cache/frazil}
me=scripts/$(basename "$0")

have() { command -v "$1" >/dev/null 2>&1; }

# Says what is missing and ends as sysexits(3) has it: EX_UNAVAILABLE.
unavailable() {
    echo "$me: $*" >&2
    exit 69
}

# Only one process at a time makes `$1`; the others wait and then find it made.
lock() {
    mkdir -p "$cache/locks"
    exec 9>"$cache/locks/$1"
    flock 9
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        unavailable "need root or sudo for: $*"
    fi
}

# Installs Debian packages; says so, and is silent about the rest unless it fails.
install() {
    have apt-get || unavailable "no apt-get here; please install: $*"
    echo "$me: installing $*" >&2
    local log
    log=$(mktemp)
    # A server that starts by itself is not wanted: the demo and the tests start their own.
    if ! { as_root apt-get update -q &&
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -q -y --no-install-recommends -o Dpkg::Use-Pty=0 \
            -o Dpkg::Options::=--force-confold "$@"; } >"$log" 2>&1; then
        cat "$log" >&2
        exit 69
    fi
    rm -f "$log"
}
