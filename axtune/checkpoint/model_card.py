"""The README.md of an adapter: what it is, and how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from axtune.checkpoint import locate


def model_card(manifest: dict[str, Any], adapter: Path) -> str:
    """A card whose example runs as it stands, where the training was started.

    Args:
        manifest: The run's, as `axtune.checkpoint.run_dir.describe` wrote it, with its end.
        adapter: Where the adapter will stand, by the path that the user gave.
    """
    base, metrics = manifest["base"], manifest.get("metrics", {})
    name = base["name"]
    losses = "".join(f"- {key}: {value:.4f}\n" for key, value in metrics.items() if "loss" in key)
    # The Hub knows its own models; a folder's path, or a name of axtune's, would be a dead link.
    of_hub = f"base_model: {name}\n" if base.get("commit") else ""
    embedded = name in {folder.name for folder in locate.embedded()}
    imported, given = ("import axtune\n", f'axtune.model_folder("{name}")') if embedded else (
        "", f'"{name}"')  # fmt: skip
    return f"""---
library_name: peft
{of_hub}tags: [axtune, lora, {manifest["task"]}]
---
# LoRA adapter for {name}

Trained with axtune {manifest["axtune"]} on {manifest["counts"]["samples"]:,} samples.

{losses}
```python
{imported}from peft import PeftModel
from transformers import AutoModelForCausalLM

base = AutoModelForCausalLM.from_pretrained({given})
model = PeftModel.from_pretrained(base, "{adapter}")
```

Use the tokenizer files of this folder unchanged: transformers 5 loads A.X 4.0 tokenizers with
another pre-tokenizer. `axtune chat RUN` loads the right one.
"""
