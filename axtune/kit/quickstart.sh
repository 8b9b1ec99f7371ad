#!/usr/bin/env bash
# The embedded tiny-ax-4.0 learns sample data of data_templates/ in one or two minutes on two cores,
# and answers; without a network or a GPU. Needs axtune on PATH; run where recipes/ lies.
set -euo pipefail
out=runs/quickstart
rm -rf "$out"
show() { printf '\n$ %s\n' "$*"; "$@"; }

show axtune data preview data_templates/sharegpt.jsonl -n 2 --model tiny-ax-4.0
show accelerate launch --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no \
    recipes/sft_lora.yaml model=tiny-ax-4.0 output_dir="$out" \
    "data.train=[data_templates/alpaca.jsonl,data_templates/prompt_completion.jsonl,data_templates/sharegpt.jsonl]" \
    data.eval=null \
    training.num_train_epochs=60 training.per_device_train_batch_size=4 \
    training.gradient_accumulation_steps=1 training.learning_rate=3e-3 \
    training.gradient_checkpointing=false
show axtune chat "$out" --message "금형 보관 창고 열쇠는 누가 가지고 있나요?"
