#!/usr/bin/env bash
# Create .venv and install axtune with the versions it was tested with. Run again, it changes
# nothing, and returns at once until the versions or the project's own list of packages change.
#   bash scripts/setup.sh [extras]      extras: none (default), or such as test
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
done_mark=.venv/.installed-with-${1:-nothing}
wanted=$(cat pyproject.toml scripts/constraints.txt scripts/setup.sh | cksum)
[ "$(cat "$done_mark" 2>/dev/null)" = "$wanted" ] && exit
[ -x .venv/bin/python ] || "$python" -m venv .venv
# Python compiles a file when it is first imported; of these packages, most files never are.
pip() { .venv/bin/pip install --quiet --no-compile --constraint scripts/constraints.txt "$@"; }
# torch first: with it in place, nothing that depends on it brings a different build.
pip torch
pip --editable ".${1:+[$1]}"
echo "$wanted" >"$done_mark"
