"""Writing checkpoints: every number where it belongs, rounded once."""

from __future__ import annotations

from pathlib import Path

import torch

from axtune.weights.safetensors_file import TensorInfo, blocks, read_checkpoint
from axtune.weights.stream_writer import OutputTensor, write_checkpoint


def test_tensors_survive_any_place_in_their_file(way: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    numbers = torch.randn(3_000_000).bfloat16()
    raw = numbers.view(torch.uint8).numpy().tobytes()
    for shift in (0, 1, 8, 4090):
        file = tmp_path / f"raw{shift}"
        file.write_bytes(bytes(shift) + raw)
        stored = [
            TensorInfo("a", torch.bfloat16, (7,), file, shift),
            TensorInfo("b", torch.bfloat16, (1500, 1999), file, shift + 14),
            TensorInfo("c", torch.bfloat16, (), file, shift + 100),
        ]
        out = tmp_path / f"out{shift}"
        out.mkdir()
        pieces = [OutputTensor(t.name, t.dtype, t.shape, t) for t in stored]
        pieces.append(OutputTensor("wide", torch.float32, (1500, 1999), stored[1]))
        pieces.append(OutputTensor("zero", torch.float16, (5, 5), None))
        write_checkpoint(out, {"model.safetensors": pieces})
        found = {t.name: t for t in read_checkpoint(out)["model.safetensors"]}
        matrix = numbers[7 : 7 + 1500 * 1999]
        assert torch.equal(read(found["a"]), numbers[:7])
        assert torch.equal(read(found["b"]), matrix)
        assert torch.equal(read(found["c"]), numbers[50:51])
        assert torch.equal(read(found["wide"]), matrix.float())
        assert torch.equal(read(found["zero"]), torch.zeros(25, dtype=torch.float16))


def read(tensor: TensorInfo) -> torch.Tensor:
    return torch.cat([block.clone() for block in blocks(tensor, multiple=64)])
