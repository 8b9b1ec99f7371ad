#!/usr/bin/env bash
# Install Chromium, in which the tests open the report's page, where apt can do so; elsewhere those
# tests are skipped. Run again, it changes nothing.
#   bash scripts/setup_chromium.sh
set -euo pipefail
command -v chromium >/dev/null && exit
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "No Chromium here, and it cannot be installed; the tests that need it are skipped." >&2
    exit
fi
export DEBIAN_FRONTEND=noninteractive
apt-get --quiet --quiet update || true
apt-get --quiet --quiet install --yes --no-install-recommends chromium >/dev/null ||
    echo "Chromium was not installed; the tests that need it are skipped." >&2
