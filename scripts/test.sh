#!/usr/bin/env bash
# Everything that must pass before a change lands: lint, types, tests, the last with the real vLLM
# and llama.cpp.
#   bash scripts/test.sh            all of it
#   bash scripts/test.sh -m 'not slow'   words go to pytest
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh test
bash scripts/setup_llama_cpp.sh
bash scripts/setup_vllm.sh
export PATH="$PWD/.venv/bin:$PATH"
ruff check .
ruff format --check .
mypy
# Tiny models gain nothing from a second thread, and two processes that share cores lose by it.
export OMP_THREAD_LIMIT=1
python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder "$@"
