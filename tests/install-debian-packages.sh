#!/bin/sh
# Installs the Debian packages named as arguments that are not there yet: as root, or with sudo. Without either it says
# in one line what to install, since only the machine's owner can.
set -eu
missing=""
for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ]; then
    run=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    run="sudo"
else
    echo "these Debian packages are needed; install them and try again: apt-get install$missing" >&2
    exit 1
fi
echo "installing Debian packages:$missing"
$run apt-get update -qq
# The tests start their own daemons; the packages must not start theirs, nor ask anything.
$run env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing >/dev/null
