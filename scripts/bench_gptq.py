#!/usr/bin/env python
"""Rounding single matrices: axtune's GPTQ beside llm-compressor's, on the same inputs.

Of the 135M model that ``bench_quant.py --model --work DIR`` left there: linears of seven layers,
with the moments of their inputs on its calibration rows. For each the error of its outputs as a
share of them, tr(E H Eᵀ) / tr(W H Wᵀ), for rounding to nearest, llm-compressor's
``quantize_weight`` (min-max scales, static order, as its examples set it) and axtune. ``--peers``
is the Python of an environment with llmcompressor.

    python scripts/bench_gptq.py --work DIR --peers .venv-llmcompressor/bin/python
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import torch
from measuring import machine

from axtune.checkpoint import locate
from axtune.checkpoint.tokenizer import load_tokenizer
from axtune.model.int4 import round_to_nearest
from axtune.model.load import load_model
from axtune.quiet import quiet_libraries
from axtune.weights import gptq

LAYERS = (0, 3, 8, 14, 20, 25, 29)
LINEARS = ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj")

PEER = """
import sys, torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.quantization.utils import calculate_qparams
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
folder, group = sys.argv[1], int(sys.argv[2])
how = QuantizationArgs(num_bits=4, type="int", symmetric=True, strategy="group",
                       group_size=group, actorder="static")
found = {}
for name, (weight, moment) in torch.load(f"{folder}/in.pt").items():
    groups = weight.view(len(weight), -1, group)
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), how)
    rounded, *_ = quantize_weight(weight[None], moment[None], scale[None], zero[None], None, how)
    found[name] = rounded[0]
torch.save(found, f"{folder}/out.pt")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="of bench_quant.py --model")
    parser.add_argument(
        "--peers", required=True, help="Python of an environment with llmcompressor"
    )
    parser.add_argument("--group", type=int, default=64)
    options = parser.parse_args()
    print(machine(("torch", "transformers")), flush=True)
    with quiet_libraries():
        matrices = moments(options.work / "dithered", options.work / "calibration.json")
    with tempfile.TemporaryDirectory(prefix="axtune-bench-") as folder:
        torch.save(matrices, f"{folder}/in.pt")
        subprocess.run([options.peers, "-W", "ignore", "-c", PEER, folder, str(options.group)],
                       check=True)  # fmt: skip
        theirs = torch.load(f"{folder}/out.pt")
    print("\n| | to nearest | llm-compressor | axtune | of llm-compressor's |")
    print("| --- | --: | --: | --: | --: |")
    ratios = []
    for name, (weight, moment) in matrices.items():
        factors = [gptq.Factor(moment.clone())]
        ours = gptq.gptq(weight, factors, options.group, torch.bfloat16).dequantized()
        nearest = round_to_nearest(weight, options.group, torch.bfloat16).dequantized()
        lost = [error(weight, each, moment) for each in (nearest, theirs[name], ours)]
        ratios.append(lost[2] / lost[1])
        cells = " | ".join(f"{each:.6f}" for each in lost)
        print(f"| {name.removeprefix('model.layers.')} | {cells} | {ratios[-1]:.2f} |")
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    print(
        f"\nGeometric mean {mean:.3f}; less in {sum(one < 1 for one in ratios)} of {len(ratios)}."
    )


def moments(folder: Path, calibration: Path) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Weights by name, each with the sum of x xᵀ over the inputs that it saw."""
    model = load_model(locate.find(str(folder)), load_tokenizer(str(folder)), precision="fp32")
    found = {}
    for name in (f"model.layers.{layer}.{linear}" for layer in LAYERS for linear in LINEARS):
        linear = model.get_submodule(name)
        moment = torch.zeros(linear.in_features, linear.in_features)
        linear.register_forward_pre_hook(partial(add, moment))
        found[name] = linear.weight.detach(), moment
    with torch.inference_mode():
        for ids in json.loads(calibration.read_text(encoding="utf-8")):
            model.eval()(torch.tensor([ids]))
    return found


def add(moment: torch.Tensor, _linear: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    tokens = inputs[0].flatten(0, -2)
    moment.addmm_(tokens.T, tokens)


def error(weight: torch.Tensor, rounded: torch.Tensor, moment: torch.Tensor) -> float:
    """What is lost of a layer's outputs, as a share of their square."""
    lost, whole, moment = (rounded.float() - weight).double(), weight.double(), moment.double()
    return float(((lost @ moment) * lost).sum() / ((whole @ moment) * whole).sum())


if __name__ == "__main__":
    main()
