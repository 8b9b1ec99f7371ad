#!/usr/bin/env bash
# From nothing to a fine-tuned model that answers, without a network or a GPU once installed:
# the embedded tiny-ax-4.0 learns the sample data of data_templates/.
#   bash scripts/quickstart.sh
set -euo pipefail
cd "$(dirname "$0")/.."
bash scripts/setup.sh
export PATH="$PWD/.venv/bin:$PATH"
out=runs/quickstart
rm -rf "$out"
show() { printf '\n$ %s\n' "$*"; "$@"; }

show axtune data preview data_templates/chat.jsonl -n 1 --model tiny-ax-4.0
show accelerate launch --num_processes 1 recipes/sft_lora.yaml \
    model=tiny-ax-4.0 output_dir="$out" training.num_train_epochs=20 \
    training.per_device_train_batch_size=8 training.gradient_accumulation_steps=1 \
    training.learning_rate=3e-3
show axtune chat "$out" --tools data_templates/tools.json \
    --message "VPN 연결이 안 돼요. 사번은 HB18012입니다."
