#!/usr/bin/env bash
# Everything that must pass before a change lands: lint, types, tests, the last with the real vLLM
# and llama.cpp, and with Chromium where it is installed (scripts/setup_chromium.sh).
#   bash scripts/test.sh            all of it
#   bash scripts/test.sh -m 'not slow'   words go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
# Downloads, a check on one core and a compiler do not wait for each other.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
bash scripts/setup_vllm.sh &
vllm=$!
bash scripts/setup.sh test
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy &
types=$!
bash scripts/setup_llama_cpp.sh
wait "$types"
wait "$vllm"
# Tiny models gain nothing from a second thread, and two processes that share cores lose by it.
export OMP_THREAD_LIMIT=1
python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
