"""MLPs and norms in tiles: the gradients of plain checkpointing, at its number of computations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bitsandbytes
import pytest
import torch
from support.pairs import stir
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.model import tiles
from axtune.model.adapter import add_adapter
from axtune.model.load import load_model
from axtune.plan import memory

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.skipif(torch.cuda.is_available(), reason="compares float32 on a CPU"),
]

ROWS, LENGTH = 2, 45
TILES = 6  # of 15 positions: one ends in one row and begins in the other
FOUR_BIT = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}

Step = tuple[float, dict[str, torch.Tensor]]
Make = Callable[..., Any]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(memory, "TILE", 16)


@pytest.fixture(params=["4.0", "3.1"])
def make(request, tmp_path):
    """Makes checkpointed models under adapters that add something, the same one each time."""
    base = checkpoint(tmp_path / "m", request.param)
    tokenizer = load_tokenizer(base)

    def build(*, quantization: Any = None, **lora: Any) -> Any:
        model = load_model(base, tokenizer, precision="fp32", quantization=quantization)
        made = add_adapter(model, {"r": 4, "target_modules": "all-linear", **lora}, seed=0).model
        stir(made)
        made.enable_input_require_grads()
        made.train()
        made.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        return made

    return build


def step(model: Any, *, autocast: bool = False) -> Step:
    """The loss and the gradients of one batch."""
    torch.manual_seed(5)
    ids = torch.randint(0, 128, (ROWS, LENGTH))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()  # inside, as the trial step has it
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return loss.item(), gradients


def assert_alike(found: Step, wanted: Step, tolerance: float = 2e-6) -> None:
    (loss, gradients), (plain_loss, plain) = found, wanted
    assert loss == pytest.approx(plain_loss, rel=tolerance)
    assert gradients.keys() == plain.keys()
    for name, gradient in gradients.items():
        assert_near(gradient, plain[name], tolerance)


def assert_near(found: torch.Tensor, wanted: torch.Tensor, tolerance: float = 2e-6) -> None:
    """But for the rounding of sums in another order, of which the largest number is the measure."""
    assert (found - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize(
    "lora",
    [
        {},
        {"use_dora": True},
        {"target_modules": ["q_proj", "gate_proj"]},
        {"target_modules": ["v_proj"]},
        {"modules_to_save": ["post_attention_layernorm", "input_layernorm", "norm", "lm_head"]},
    ],
    ids=str,
)
def test_gradients_are_those_of_plain_checkpointing(make: Make, lora: dict[str, Any]) -> None:
    model = make(**lora)
    plain = step(model)
    tiles.install(model.get_base_model())
    assert_alike(step(model), plain)


@pytest.mark.parametrize("double", [False, True])
def test_gradients_over_a_base_in_4_bit(make: Make, double: bool, monkeypatch: Any) -> None:
    """The weights of an MLP are unpacked once in each computation, however many tiles it has."""
    model = make(quantization=FOUR_BIT | {"bnb_4bit_use_double_quant": double})
    plain = step(model)
    tiles.install(model.get_base_model())
    assert_alike(step(model), plain)
    unpacked = []
    unpack = bitsandbytes.functional.dequantize_4bit
    monkeypatch.setattr(
        bitsandbytes.functional, "dequantize_4bit", lambda *a: unpacked.append(a) or unpack(*a)
    )
    layers = model.get_base_model().model.layers
    model.eval()
    with torch.no_grad():
        model(input_ids=torch.zeros(ROWS, LENGTH, dtype=torch.long), use_cache=False)
    mlps = [part.weight for layer in layers for part in layer.mlp.modules() if is_packed(part)]
    assert len(mlps) == 3 * len(layers)
    seen = [entry[0].data_ptr() for entry in unpacked]
    assert all(seen.count(weight.data_ptr()) == 1 for weight in mlps)


def is_packed(module: Any) -> bool:
    return isinstance(module, bitsandbytes.nn.Linear4bit)


def test_gradients_under_autocast(make: Make) -> None:
    model = make()
    plain = step(model, autocast=True)
    tiles.install(model.get_base_model())
    assert_alike(step(model, autocast=True), plain, tolerance=2e-2)


def test_a_tile_is_computed_again_with_its_own_random_numbers(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same tiles in the graph: without dropout's numbers the two would differ."""
    model = make(lora_dropout=0.3)
    tiles.install(model.get_base_model())
    found = step(model)

    def in_graph(of: Any, hidden: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        parts = [of.compute(rows) for _, rows in tiles.tiles(hidden)]
        return torch.cat(parts).view(hidden.shape)

    monkeypatch.setattr(tiles._Function, "apply", in_graph)
    assert_alike(found, step(model))
    monkeypatch.undo()
    model.eval()
    without = step(model)
    assert abs(without[0] - found[0]) > 1e-4  # it was on


def test_what_each_tile_gives_is_in_the_gradient(make: Make) -> None:
    """A slope on one tile alone gives that tile's part, and the parts are the whole."""
    model = make()
    layer = model.get_base_model().model.layers[0]
    weight = next(p for name, p in layer.mlp.named_parameters() if "lora_A" in name)
    torch.manual_seed(1)
    hidden = torch.randn(ROWS, LENGTH, 64)

    def gradient(slope: torch.Tensor) -> torch.Tensor:
        normed = layer.post_attention_layernorm(hidden.clone().requires_grad_())
        return torch.autograd.grad(layer.mlp(normed), weight, slope)[0]

    everywhere = torch.randn(hidden.shape)
    spans = [span for span, _ in tiles.tiles(hidden)]
    assert len(spans) == TILES
    plain, alone = gradient(everywhere), []
    for span in spans:
        slope = torch.zeros_like(everywhere)
        slope.view(-1, 64)[span] = everywhere.view(-1, 64)[span]
        alone.append(gradient(slope))
    tiles.install(model.get_base_model())
    assert_near(gradient(everywhere), plain)
    assert_near(torch.stack(alone).sum(0), plain)
    for number, span in enumerate(spans):
        slope = torch.zeros_like(everywhere)
        slope.view(-1, 64)[span] = everywhere.view(-1, 64)[span]
        assert_near(gradient(slope), alone[number])
        assert alone[number].abs().max() > 1e-3


def test_each_position_is_computed_twice_a_step_as_without_tiles(make: Make) -> None:
    model = make()
    positions: list[int] = []
    for layer in model.get_base_model().model.layers:
        layer.mlp.gate_proj.register_forward_pre_hook(
            lambda _, args: positions.append(args[0].numel() // 64)
        )
    step(model)
    plain, positions[:] = sum(positions), []
    tiles.install(model.get_base_model())
    step(model)
    assert sum(positions) == plain == 2 * 2 * ROWS * LENGTH  # twice, in each of two layers
    assert max(positions) <= memory.TILE


@pytest.mark.parametrize("reentrant", [False, True])
def test_either_way_of_checkpointing(make: Make, reentrant: bool) -> None:
    model = make()
    plain = step(model)
    base = model.get_base_model()
    base.activation_checkpointing_enable({"use_reentrant": reentrant})
    tiles.install(base)
    assert_alike(step(model), plain)


def test_without_gradients_the_values_are_the_same(make: Make) -> None:
    model = make()
    model.eval()
    ids = torch.arange(ROWS * LENGTH).view(ROWS, LENGTH)
    with torch.no_grad():
        plain = model(input_ids=ids, use_cache=False).logits
        tiles.install(model.get_base_model())
        assert_near(model(input_ids=ids, use_cache=False).logits, plain)
        empty = model.get_base_model().model.norm(torch.empty(1, 0, 64))
    assert empty.shape == (1, 0, 64)


def test_layers_that_nobody_computes_again_keep_their_graph(make: Make) -> None:
    """A tile's own computation would be a third one there."""
    model = make()
    model.get_base_model().activation_checkpointing_disable()
    plain = step(model)
    tiles.install(model.get_base_model())
    sizes: list[int] = []
    mlp = model.get_base_model().model.layers[0].mlp
    mlp.gate_proj.register_forward_pre_hook(lambda _, args: sizes.append(args[0].numel() // 64))
    assert_alike(step(model), plain)
    assert sizes == [ROWS * LENGTH]


@pytest.mark.parametrize("length", [1, 15, 16, 17, 90])
def test_tiles_cover_a_sequence_once_and_are_alike(length: int) -> None:
    rows = torch.arange(length * 2.0).view(1, length, 2)
    parts = tiles.tiles(rows)
    assert torch.equal(torch.cat([part for _, part in parts]), rows[0])
    sizes = [len(part) for _, part in parts]
    assert max(sizes) <= memory.TILE
    assert max(sizes) - min(sizes) < len(sizes)
    assert len(sizes) == -(-length // memory.TILE)
