"""A model in training answers as it would elsewhere, and is afterwards what it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.model import attention, shared_prefix
from axtune.model.adapter import add_adapter
from axtune.model.answering import answering
from axtune.model.load import load_model
from axtune.model.offload import embeddings_to_host

pytestmark = LIBRARY_WARNINGS

PROMPTS = torch.tensor([[0, 0, 300, 301, 302], [400, 401, 402, 403, 404]])
MASK = (PROMPTS > 0).long()


@pytest.fixture
def model(tmp_path: Any) -> Any:
    base = checkpoint(tmp_path / "base")
    loaded = load_model(base, load_tokenizer(base), precision="fp32")
    adapted = add_adapter(loaded, {"r": 4, "lora_dropout": 0.5}, seed=0).model
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.5)
    return adapted


def answers(model: Any) -> list[list[int]]:
    with torch.inference_mode():
        out = model.generate(
            input_ids=PROMPTS, attention_mask=MASK, max_new_tokens=6, do_sample=False,
            eos_token_id=-1, pad_token_id=0,
        )  # fmt: skip
    return out[:, PROMPTS.shape[1] :].tolist()  # type: ignore[no-any-return]


def nothing() -> None:
    """Of every token."""


@pytest.mark.parametrize(
    "install",
    [
        lambda base: None,
        attention.install,
        shared_prefix.install,
        lambda base: embeddings_to_host(base, torch.device("cpu")),
    ],
    ids=["plain", "packing", "shared prefix", "offloaded"],
)
def test_whatever_training_made_of_it_it_answers_as_it_would(
    model: Any, install: Callable[[Any], None]
) -> None:
    before = answers(model.eval())
    with model.disable_adapter():
        assert answers(model) != before  # the adapter has a say
    base = model.get_base_model()
    install(base)
    kernel = base.config._attn_implementation
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    model.config.use_cache = False
    model.train()
    widths: list[int] = []
    base.base_model.register_forward_pre_hook(
        lambda module, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    random = torch.get_rng_state()
    with answering(model, nothing):
        assert answers(model) == before
        torch.rand(3)
    assert widths == [5, 1, 1, 1, 1, 1]  # with what it knows of the prompt kept
    assert all(module.training for module in model.modules())
    assert base.config._attn_implementation == kernel
    assert torch.equal(torch.get_rng_state(), random)


def test_it_is_stopped_before_a_token_and_is_what_it_was(model: Any) -> None:
    class Stopped(Exception):
        pass

    tokens = iter([None, None])

    def each_token() -> None:
        try:
            next(tokens)
        except StopIteration:
            raise Stopped from None

    attention.install(model.get_base_model())
    model.train()
    with pytest.raises(Stopped), answering(model, each_token):
        answers(model)
    assert model.training
    assert model.get_base_model().config._attn_implementation == attention.ATTENTION
    with answering(model, nothing):
        answers(model)  # nobody stops it any more
