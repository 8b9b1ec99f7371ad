#!/usr/bin/env bash
# Build llama.cpp and install what the tests of GGUF files run, into .venv: llama.cpp behind
# llama-cpp-python. Run again, it changes nothing, and returns at once until the versions change.
#   bash scripts/setup_llama_cpp.sh          needs a C++ compiler; about a minute on two cores
set -euo pipefail
cd "$(dirname "$0")/.."
done_mark=.venv/.installed-llama_cpp
wanted=$(cat scripts/constraints.txt scripts/setup_llama_cpp.sh | cksum)
[ "$(cat "$done_mark" 2>/dev/null)" = "$wanted" ] && exit
# The library alone: what its programs share takes longer to build than it does. For all machines of
# this kind: `native` builds instructions that some virtual machines announce and cannot run. Made
# for tiny models, so barely optimised.
lean=$(mktemp --suffix .cmake)
trap 'rm -f "$lean"' EXIT
echo 'set(LLAMA_BUILD_COMMON OFF)' >"$lean"
export CMAKE_ARGS="-DCMAKE_PROJECT_llama.cpp_INCLUDE=$lean -DLLAVA_BUILD=OFF -DGGML_NATIVE=OFF \
    -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF -DGGML_CPU_REPACK=OFF \
    -DCMAKE_C_FLAGS_RELEASE=-O1 -DCMAKE_CXX_FLAGS_RELEASE=-O1"
.venv/bin/pip install --quiet --constraint scripts/constraints.txt gguf llama-cpp-python
echo "$wanted" >"$done_mark"
