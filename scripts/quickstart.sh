#!/usr/bin/env bash
# From nothing to a fine-tuned model that answers, without a network or a GPU once installed:
# axtune/kit/quickstart.sh has the commands, which a kit (`axtune kit`) runs as well.
#   bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
PATH="$PWD/.venv/bin:$PATH" exec bash axtune/kit/quickstart.sh
