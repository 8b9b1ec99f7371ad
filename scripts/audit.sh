#!/usr/bin/env bash
# Say which known vulnerabilities the locked versions have (pip-audit, advisories of PyPI).
#   bash scripts/audit.sh [pip-audit]      fails when it finds one; not when it cannot ask
set -uo pipefail
cd "$(dirname "$0")/.."
audit=${1:-pip-audit}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ask() { "$audit" --no-deps --disable-pip --progress-spinner off --desc off -r "$1"; }

# An index without advisories answers as one would where nothing is known: ask it for what is.
echo 'jinja2==2.10' >"$work/known.txt"
if ask "$work/known.txt" 2>&1 | tee "$work/said" | grep -q CVE-2019-10906; then :; else
    echo "Not audited: the advisory service cannot be asked from here (it knows nothing of" \
        "jinja2 2.10, which is vulnerable): $(tail -n 1 "$work/said")"
    exit 0
fi
found=0
for lock in scripts/lock/*-py312.txt; do
    echo "$lock"
    # By its public version, for no advisory names a build; without hashes, for none is installed.
    sed -nE 's/^([a-z0-9._-]+==[^+ ]*).*/\1/p' "$lock" >"$work/pins.txt"
    ask "$work/pins.txt" || found=1
done
exit $found
