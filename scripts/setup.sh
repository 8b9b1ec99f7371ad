#!/usr/bin/env bash
# Create .venv and install axtune with the versions it was tested with. Run again, it changes nothing.
#   bash scripts/setup.sh [extras]      extras: none (default), or such as test
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
[ -x .venv/bin/python ] || "$python" -m venv .venv
# torch first: with it in place, nothing that depends on it brings a different build.
.venv/bin/pip install --quiet --constraint scripts/constraints.txt torch
.venv/bin/pip install --quiet --constraint scripts/constraints.txt --editable ".${1:+[$1]}"
