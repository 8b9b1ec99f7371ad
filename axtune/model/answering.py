"""A model in training that gives answers in between, and then goes on as if it had not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel

from axtune.model import attention, shared_prefix
from axtune.model.offload import HostHead

# Attention that knows a training batch's layout alone; it computes what sdpa does.
_LAYOUTS = (attention.ATTENTION, shared_prefix.ATTENTION)


@contextmanager
def answering(model: PeftModel, each_token: Callable[[], None]) -> Iterator[None]:
    """Make a model ready to generate; modes, attention and random numbers are restored.

    Args:
        model: With its adapter, which stays active; not wrapped.
        each_token: Called before every forward pass; what it raises ends the generation.
    """
    base: Any = model.get_base_model()
    modes = [(module, module.training) for module in model.modules()]
    kernel: str = base.config._attn_implementation
    head = base.get_output_embeddings()
    # A table in host memory would go to the card for every token anew.
    held = head.weight if isinstance(head, HostHead) else None
    hook = base.register_forward_pre_hook(lambda *_: each_token())
    model.eval()  # without dropout, and layers do not checkpoint
    try:
        if kernel in _LAYOUTS:
            base.set_attn_implementation("sdpa")
        with torch.random.fork_rng([model.device] if model.device.type == "cuda" else []):
            yield
    finally:
        del held
        hook.remove()
        if kernel in _LAYOUTS:
            base.set_attn_implementation(kernel)
        for module, training in modes:
            module.training = training
