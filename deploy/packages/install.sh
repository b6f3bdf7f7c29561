#!/usr/bin/env bash
# Installs the Debian packages that tests need and this machine lacks: chromium drives the dashboard. Says one line for
# each package that is missing and cannot be installed, and ends well all the same: the tests say then what they lack.
# Never asks for a password, and touches nothing that is there.
set -euo pipefail

packages=(chromium) # each is known by a command of its own name
missing=()
for package in "${packages[@]}"; do
  command -v "$package" >/dev/null || missing+=("$package")
done
[[ ${#missing[@]} -gt 0 ]] || exit 0

say() { printf 'packages: %s\n' "$*" >&2; }
give_up() {
  say "${missing[*]} missing, $1: tests in a browser cannot run (Debian: apt-get install ${missing[*]})"
  exit 0
}

command -v apt-get >/dev/null || give_up 'and this is no Debian'
as_root=()
if [[ $EUID -ne 0 ]]; then
  sudo -n true 2>/dev/null || give_up 'and installing needs root'
  as_root=(sudo -n)
fi

say "installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -qq -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1; }
install() { apt install --no-install-recommends "${missing[@]}"; }
# A fresh image has no lists of packages yet, and old ones may name files that are gone.
install || { apt update && install; } || give_up "and apt-get failed ($(tail -n 1 "$log"))"
