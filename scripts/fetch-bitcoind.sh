#!/bin/sh
# Finds a bitcoind of version 25 or newer, on PATH or under PREFIX; where there is none, puts one under PREFIX.
#
# It comes from the Debian archive that this machine's apt already uses, and apt checks the archive's signatures with
# the keys that Debian installed. Nothing of the system is touched and no root is needed: the program runs with its
# own loader and libraries, which lie beside it. PREFIX appears whole or not at all.
#
# usage: fetch-bitcoind.sh [PREFIX]     default: ${XDG_DATA_HOME:-$HOME/.local/share}/pegnode/bitcoind
set -eu

MINIMUM=25
PACKAGE=bitcoin-knots
prefix=${1:-${XDG_DATA_HOME:-$HOME/.local/share}/pegnode/bitcoind}

say() { echo "bitcoind: $*"; }
fail() { echo "bitcoind: $*" >&2; exit 1; }

# Prints the first line of `PROGRAM -version`, if that program runs and is new enough.
usable() {
    line=$("$1" -version 2>/dev/null | head -n 1) || return 1
    major=$(printf '%s\n' "$line" | sed -n 's/.*version v\{0,1\}\([0-9]\{1,\}\)\..*/\1/p')
    [ -n "$major" ] && [ "$major" -ge "$MINIMUM" ] && printf '%s\n' "$line"
}

for candidate in bitcoind "$prefix/bin/bitcoind"; do
    path=$(command -v "$candidate") || continue
    if version=$(usable "$path"); then
        say "$version, at $path"
        exit 0
    fi
done

manual="install bitcoind $MINIMUM or newer yourself, on PATH"
for tool in apt-get apt-config dpkg; do
    command -v "$tool" >/dev/null || fail "no $tool here, so none can be fetched; $manual"
done
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null | grep -E '/debian/?$' | head -n 1) ||
    fail "apt has no Debian archive among its sources; $manual"
keyring=
for candidate in /usr/share/keyrings/debian-archive-keyring.gpg /usr/share/keyrings/debian-archive-keyring.pgp; do
    [ -r "$candidate" ] && keyring=$candidate && break
done
[ -n "$keyring" ] || fail "Debian's archive keys (package debian-archive-keyring) are missing; $manual"

mkdir -p "$(dirname "$prefix")" || fail "cannot write to $(dirname "$prefix")"
work=$(mktemp -d "$prefix.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

# An apt of our own: the system's settings for fetching (proxy, certificates, expiry), none of its hooks, pins, locks or package state.
mkdir -p "$work/state/lists/partial" "$work/cache/archives/partial" "$work/etc" "$work/root" "$work/log"
echo "deb [signed-by=$keyring] $mirror sid main" >"$work/etc/sources.list"
: >"$work/status"
{
    apt-config dump | grep '^Acquire::' | grep -v '^Acquire::IndexTargets' || true
    cat <<CONF
Dir::State "$work/state";
Dir::State::status "$work/status";
Dir::Cache "$work/cache";
Dir::Log "$work/log";
Dir::Etc "$work/etc";
Dir::Etc::parts "/dev/null";
Dir::Etc::main "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::Etc::sourceparts "/dev/null";
Acquire::Languages "none";
APT::Sandbox::User "$(id -un)";
APT::Install-Recommends "false";
Debug::NoLocking "true";
CONF
} >"$work/apt.conf"
# Runs apt-get; its own words are shown only when it fails.
quiet_apt() {
    APT_CONFIG="$work/apt.conf" DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$work/said" 2>&1 && return
    sed 's/^/    /' "$work/said" >&2
    return 1
}

say "none of version $MINIMUM or newer here; fetching $PACKAGE from the Debian archive"
quiet_apt update -o APT::Update::Error-Mode=any || fail "the archive's index could not be fetched and verified; $manual"
quiet_apt install --download-only "$PACKAGE" || fail "$PACKAGE could not be fetched and verified; $manual"
for archive in "$work"/cache/archives/*.deb; do
    dpkg -x "$archive" "$work/root" || fail "$(basename "$archive") could not be unpacked"
done

loader=$(find "$work/root" -name 'ld-linux*.so.*' -type f | head -n 1)
[ -n "$loader" ] || fail "no loader among the packages for this architecture; $manual"
libraries=$(dirname "$loader")
loader=$(basename "$loader")
new=$work/prefix
mkdir -p "$new/bin" "$new/lib" "$new/libexec"
cp "$libraries/$loader" "$new/lib/"
for program in bitcoind bitcoin-cli; do
    cp "$work/root/usr/bin/$program" "$new/libexec/" || fail "$PACKAGE holds no $program; $manual"
    "$libraries/$loader" --library-path "$libraries" --list "$new/libexec/$program" >"$work/needs" 2>&1 ||
        fail "$program does not find its libraries: $(head -n 1 "$work/needs")"
    sed -n 's/.*=> \(\/[^ ]*\).*/\1/p' "$work/needs" | sort -u | while read -r library; do
        cp -L "$library" "$new/lib/"
    done
    cat >"$new/bin/$program" <<WRAPPER
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")/..
exec "\$here/lib/$loader" --library-path "\$here/lib" "\$here/libexec/$program" "\$@"
WRAPPER
    chmod +x "$new/bin/$program"
done
version=$(usable "$new/bin/bitcoind") || fail "the bitcoind of $PACKAGE does not run here, or is older than $MINIMUM; $manual"

if [ -e "$prefix" ]; then mv "$prefix" "$work/old"; fi
mv -T "$new" "$prefix" || fail "cannot write to $prefix"
say "$version, installed at $prefix/bin/bitcoind"
