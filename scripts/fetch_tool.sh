#!/usr/bin/env bash
# Debian's Chromium or Prometheus for the tests that look at a run from outside: scripts/fetch_tool.sh chromium|prometheus
# What is on the path is taken as it is. Prometheus is unpacked into .cache/prometheus, without root and without a
# service; Chromium, which needs dozens of libraries, is installed, and that needs root.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "error: $1" >&2; exit 1; }
apt() { apt-get -qq -o Acquire::Retries=3 "$@"; }
has_apt() { command -v apt-get > /dev/null || fail "$1 is not on the path, and there is no apt-get to fetch it with"; }

case "${1-}" in
chromium)
    for name in chromium chromium-browser google-chrome; do
        command -v "$name" > /dev/null && exit 0
    done
    has_apt chromium
    [ "$(id -u)" = 0 ] || fail "no Chromium on the path: as root, apt-get install chromium"
    apt update && apt install -y --no-install-recommends chromium ||
        fail "apt-get could not install chromium"
    ;;
prometheus)
    place=.cache/prometheus
    [ -x "$place/usr/bin/promtool" ] && exit 0
    command -v prometheus > /dev/null && command -v promtool > /dev/null && exit 0
    has_apt prometheus
    fetched=$(mktemp -d)
    trap 'rm -rf "$fetched"' EXIT
    get() { (cd "$fetched" && apt download prometheus); }
    get || { [ "$(id -u)" = 0 ] && apt update && get; } || fail "apt-get could not download prometheus"
    dpkg-deb --fsys-tarfile "$fetched"/prometheus_*.deb | tar -x -C "$fetched" ./usr/bin/prometheus ./usr/bin/promtool ||
        fail "the package of prometheus could not be unpacked"
    mkdir -p "$place" && rm -rf "$place/usr" && mv "$fetched/usr" "$place/usr"
    ;;
*)
    fail "scripts/fetch_tool.sh chromium|prometheus"
    ;;
esac
