"""Writing checkpoints: every number where it belongs, rounded once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from axtune.errors import AxtuneError
from axtune.weights.output_tensor import OutputTensor, resharded
from axtune.weights.safetensors_file import TensorInfo, blocks, read_checkpoint, read_header
from axtune.weights.stream_writer import write_checkpoint


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
        digests = write_checkpoint(out, {"model.safetensors": pieces})
        written = (out / "model.safetensors").read_bytes()
        assert digests == {"model.safetensors": hashlib.sha256(written).hexdigest()}
        found = {t.name: t for t in read_checkpoint(out)["model.safetensors"]}
        matrix = numbers[7 : 7 + 1500 * 1999]
        assert torch.equal(read(found["a"]), numbers[:7])
        assert torch.equal(read(found["b"]), matrix)
        assert torch.equal(read(found["c"]), numbers[50:51])
        assert torch.equal(read(found["wide"]), matrix.float())
        assert torch.equal(read(found["zero"]), torch.zeros(25, dtype=torch.float16))


def read(tensor: TensorInfo) -> torch.Tensor:
    return torch.cat([block.clone() for block in blocks(tensor, multiple=64)])


@pytest.fixture
def source(tmp_path: Path) -> TensorInfo:
    torch.manual_seed(0)
    save_file({"a": torch.randn(16, 96)}, tmp_path / "source")
    return read_header(tmp_path / "source")[0]


def write(folder: Path, *pieces: OutputTensor) -> dict[str, torch.Tensor]:
    folder.mkdir()
    write_checkpoint(folder, {"model.safetensors": list(pieces)})
    return load_file(folder / "model.safetensors")


def test_steps_are_taken_in_float32_and_rounded_once(source: TensorInfo, tmp_path: Path) -> None:
    def third(rows: torch.Tensor, start: int, scratch: torch.Tensor) -> None:
        assert rows.dtype == torch.float32
        rows.div_(3)

    def numbered(rows: torch.Tensor, start: int, scratch: torch.Tensor) -> None:
        rows.add_(torch.arange(start, start + len(rows)).unsqueeze(1))

    original = load_file(source.file)["a"]
    piece = OutputTensor(
        "b", torch.bfloat16, source.shape, source, prepare=lambda: (third, numbered)
    )
    written = write(tmp_path / "out", piece)["b"]
    expected = original / 3 + torch.arange(16).unsqueeze(1)
    assert torch.equal(written, expected.bfloat16())
    assert torch.equal(load_file(source.file)["a"], original)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("number", "message"),
    [
        (float("-inf"), "a in .*source holds 1 numbers that are not finite"),
        (float("nan"), "a in .*source holds 1 numbers that are not finite"),
        (7e4, r"model\.a .*not finite in float16 \(1 or more\)"),
    ],
)
def test_numbers_that_do_not_fit_are_not_written(
    number: float, message: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    save_file({"a": torch.tensor([[1.0, number]])}, tmp_path / "source")
    tensor = read_header(tmp_path / "source")[0]
    piece = OutputTensor("model.a", dtype, tensor.shape, tensor)
    if number == 7e4 and dtype == torch.float32:
        assert write(tmp_path / "out", piece)["model.a"][0, 1] == number
        return
    with pytest.raises(AxtuneError, match=message):
        write(tmp_path / "out", piece)


def test_the_halves_of_a_head_are_interleaved(source: TensorInfo, tmp_path: Path) -> None:
    original = load_file(source.file)["a"]
    piece = OutputTensor("b", torch.float32, source.shape, source, head_rows=4)
    order = [0, 2, 1, 3]
    expected = original[[4 * head + row for head in range(4) for row in order]]
    assert torch.equal(write(tmp_path / "out", piece)["b"], expected)


def test_several_files_have_an_index(source: TensorInfo, tmp_path: Path) -> None:
    pieces = [OutputTensor(name, torch.float32, source.shape, source) for name in ("b", "a")]
    write_checkpoint(tmp_path, resharded(pieces, source.nbytes))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * source.nbytes
    assert index["weight_map"] == {
        "a": "model-00002-of-00002.safetensors",
        "b": "model-00001-of-00002.safetensors",
    }
    assert len(read_checkpoint(tmp_path)) == 2
