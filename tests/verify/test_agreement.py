"""What 4 bit costs is measured, judged, and never passed over in silence."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import tiny
from support.adapters import adapter_for, in_float32, run_with, sharded_checkpoint
from support.tiny import LIBRARY_WARNINGS

from axtune.checkpoint import locate
from axtune.checkpoint.locate import Checkpoint
from axtune.checkpoint.record import RECORD, Record
from axtune.data.samples import IGNORED, Sample
from axtune.evaluate.same_calls import same_calls
from axtune.export.export import export
from axtune.export.four_bit import FourBitOptions
from axtune.model.int4 import quantization_config
from axtune.verify.agreement import (
    Agreement,
    _judged,
    agreement,
    how_made,
    how_to_lose_less,
    recorded_base,
)
from axtune.verify.certificate import Check
from axtune.verify.layerwise import Layerwise
from axtune.verify.verify import verify
from axtune.weights.merge import merge

pytestmark = LIBRARY_WARNINGS

SAMPLES = [
    Sample([25, 8, 2000, 27, 41, 9, 27], [IGNORED] * 4 + [41, 9, 27]),
    Sample([25, 8, 61, 2475, 384, 539, 27], [IGNORED] * 5 + [539, 27]),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return sharded_checkpoint(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def run(base: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return run_with(adapter_for(base, folder / "adapter"), base, folder / "run")


@pytest.fixture(scope="module")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("packed") / "out"
    export(run, out, to="vllm", four_bit=FourBitOptions())
    return out


def checks(folder: Path, part: str = "4 bit", **words: object) -> dict[str, Check]:
    certificate = verify(folder, **words)  # type: ignore[arg-type]
    return {check.name: check for check in certificate.checks if check.part == part}


def test_the_figures_are_those_of_whole_models(base: Checkpoint, run: Path, tmp_path: Path) -> None:
    merge([run], None, tmp_path / "merged")
    found = agreement(Layerwise(locate.find(str(tmp_path / "merged"))), Layerwise(base), SAMPLES)
    one, other = in_float32(tmp_path / "merged"), in_float32(base.folder)
    kls, answers_kl, same, nats = [], [], [], []
    for sample in SAMPLES:
        ids = torch.tensor([sample.input_ids])
        with torch.no_grad():
            p, q = (torch.log_softmax(model(ids).logits[0], -1) for model in (one, other))
        kl = (p.exp() * (p - q)).sum(-1)
        kls.append(kl)
        for place, label in enumerate(sample.labels[1:]):
            if label != IGNORED:
                answers_kl.append(kl[place])
                same.append(float(p[place].argmax() == q[place].argmax()))
                nats.append(p[place, label] - q[place, label])
    assert found.positions == 14
    assert found.answers == 5
    assert found.kl == pytest.approx(float(torch.cat(kls).mean()), rel=1e-3)
    assert found.answers_kl == pytest.approx(float(torch.stack(answers_kl).mean()), rel=1e-3)
    assert found.top1 == sum(same) / len(same)
    assert found.perplexity == pytest.approx(float(torch.stack(nats).mean().exp()), rel=1e-3)


def test_a_model_agrees_with_itself(base: Checkpoint) -> None:
    found = agreement(Layerwise(base), Layerwise(base), SAMPLES)
    assert (found.kl, found.top1, found.perplexity) == (0, 1, 1)


def test_an_export_is_held_against_the_merge(base: Checkpoint, run: Path, packed: Path) -> None:
    found = checks(packed, adapter=run)
    check = found["16-bit base + adapter"]
    assert check.status in ("pass", "warn")
    assert 0 < check.figures["kl_nats"] < 0.1
    assert "rows that it was trained on" in check.found
    weights = checks(packed, "weights", adapter=run)
    assert weights["architecture"].status == weights["numbers"].status == "pass"
    assert json.loads((packed / "certificate.json").read_text())["passed"] is True
    (packed / "certificate.json").unlink()


def test_held_out_rows_come_first(base: Checkpoint, tmp_path: Path) -> None:
    folder = run_with(adapter_for(base, tmp_path / "adapter"), base, tmp_path / "run")
    file = folder / "recipe.yaml"
    recipe = file.read_text().replace("eval:\n", "eval: 0.25\n", 1)
    assert "eval: 0.25" in recipe
    file.write_text(recipe)
    export(folder, tmp_path / "out", to="vllm", four_bit=FourBitOptions())
    assert (
        "4 held-out rows" in checks(tmp_path / "out", adapter=folder)["16-bit base + adapter"].found
    )


def test_what_is_too_far_fails(run: Path, packed: Path, tmp_path: Path) -> None:
    found = checks(packed, adapter=run, most_kl=1e-6)["16-bit base + adapter"]
    assert found.status == "fail"
    assert "--calibrate" in found.remedy
    (packed / "certificate.json").unlink()


def test_a_changed_scale_shows(run: Path, packed: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(packed, tmp_path / "changed"))
    file = folder / "model-00001-of-00003.safetensors"
    tensors = load_file(file)
    tensors["model.layers.0.mlp.down_proj.weight_scale"] *= 30
    save_file(tensors, file, metadata={"format": "pt"})
    (folder / RECORD).unlink()
    found = checks(folder, adapter=run)["16-bit base + adapter"]
    assert (
        found.figures["kl_nats"]
        > checks(packed, adapter=run)["16-bit base + adapter"].figures["kl_nats"]
    )
    (packed / "certificate.json").unlink()


def test_another_adapter_than_the_one_merged_fails(
    base: Checkpoint, packed: Path, tmp_path: Path
) -> None:
    other = run_with(adapter_for(base, tmp_path / "a", seed=2), base, tmp_path / "other")
    found = checks(packed, adapter=other)["16-bit base + adapter"]
    assert found.status == "fail"
    assert "another adapter" in found.found
    (packed / "certificate.json").unlink()


def test_an_adapter_over_a_4_bit_base_is_told_from_one_merged(
    base: Checkpoint, run: Path, tmp_path: Path
) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", 8)
    options = FourBitOptions(calibrate=(str(rows),))
    export(str(base.folder), tmp_path / "base4", to="vllm", four_bit=options)
    assert how_made(tmp_path / "base4")["adapters"] == []
    found = checks(tmp_path / "base4", adapter=run, against=str(base.folder))
    assert 0 < found["adapter over it"].figures["kl_nats"] < 0.1
    assert found["without the adapter"].figures["kl_nats"] > 0
    assert "vllm#50059" in found["weakness"].found


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ({}, "no 16-bit weights to compare with"),
        ({"against": True}, "an adapter is merged into it"),
    ],
)
def test_what_cannot_be_compared_is_said(
    base: Checkpoint, packed: Path, words: dict, reason: str
) -> None:
    given = {"against": str(base.folder)} if words else {}
    (check,) = checks(packed, **given).values()
    assert check.status == "skip"
    assert reason in check.found
    (packed / "certificate.json").unlink()


def test_where_the_rows_of_the_run_are_gone_the_rest_is_certified(
    base: Checkpoint, run: Path, packed: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(run, tmp_path / "moved"))
    file = moved / "recipe.yaml"
    recipe = file.read_text().replace("rows.jsonl", "gone.jsonl")
    file.write_text(recipe.replace("eval:\n", "eval: 0.25\n", 1))
    certificate = verify(packed, adapter=moved, ask=same_calls)
    assert certificate.passed
    skipped = {check.name: check.found for check in certificate.checks if check.status == "skip"}
    assert "rows of its run cannot be read" in skipped["16-bit base + adapter"]
    assert "--data FILE" in skipped["16-bit base + adapter"]
    assert "gone.jsonl" in skipped["answers"]
    assert str(tmp_path) not in (packed / "certificate.json").read_text()
    rows = tiny.write_rows(tmp_path / "rows.jsonl", 4)
    found = checks(packed, adapter=moved, data=[str(rows)])["16-bit base + adapter"]
    assert found.figures["kl_nats"] > 0
    (packed / "certificate.json").unlink()


def test_rows_that_are_all_refused_are_not_called_missing(
    run: Path, packed: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"messages": [{"role": "nobody", "content": "?"}]}\n', encoding="utf-8")
    (check,) = checks(packed, adapter=run, data=[str(rows)]).values()
    assert check.status == "skip"
    assert check.found == "none of the rows can be used; axtune data check FILE says why"
    (packed / "certificate.json").unlink()


def test_a_4_bit_base_is_held_against_the_base_that_its_record_names(tmp_path: Path) -> None:
    rows = tiny.write_rows(tmp_path / "rows.jsonl", 4)
    options = FourBitOptions(calibrate=(str(rows),))
    export("tiny-ax-4.0", tmp_path / "out", to="vllm", four_bit=options)
    found = checks(tmp_path / "out", data=[str(rows)])
    assert found["16-bit base"].figures["kl_nats"] > 0
    assert checks(tmp_path / "out")["16-bit base"].found.endswith("give --data FILE")
    record = Record.read(tmp_path / "out")
    assert record is not None
    record.facts["four_bit"]["base"]["digests"]["tokenizer.json"] = "sha256:another"
    record.write(tmp_path / "out")
    assert recorded_base(tmp_path / "out") is None
    assert "no 16-bit weights" in checks(tmp_path / "out")["16-bit base"].found


def test_a_merged_export_is_not_asked_beside_its_bare_base(base: Checkpoint, packed: Path) -> None:
    certificate = verify(packed, against=str(base.folder), ask=same_calls)
    assert "answers" not in {check.name for check in certificate.checks}
    (packed / "certificate.json").unlink()


def test_a_bound_that_nothing_was_measured_against_fails(
    base: Checkpoint, run: Path, packed: Path
) -> None:
    bounds = {"most_kl": 5.0, "least_agreement": 0.0}
    found = checks(packed, ask=same_calls, **bounds)
    for option in ("--max-kl", "--min-agreement"):
        assert found[option].status == "fail"
        assert "give --adapter RUN" in found[option].found
        assert option in found[option].remedy
    (packed / "certificate.json").unlink()
    found = checks(packed, adapter=run, ask=same_calls, **bounds)  # trained on all of its rows
    assert found.keys() == {"16-bit base + adapter", "answers", "--min-agreement"}
    assert found["answers"].found in found["--min-agreement"].found
    (packed / "certificate.json").unlink()


def test_a_bound_for_what_is_not_in_4_bit_fails(base: Checkpoint, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base.folder, tmp_path / "plain"))
    assert checks(folder) == {}
    found = checks(folder, most_kl=0.1)["--max-kl"]
    assert (found.status, found.found.endswith("is not in 4 bit")) == ("fail", True)
    file = min(folder.glob("*.safetensors"))
    save_file({name: one * torch.nan for name, one in load_file(file).items()}, file,
              metadata={"format": "pt"})  # fmt: skip
    assert "what failed above" in checks(folder, most_kl=0.1)["--max-kl"].found


@pytest.mark.parametrize(
    ("made", "group", "ways"),
    [
        ({"method": "gptq"}, 128, ["--rows", "--calibrate", "--group 64"]),
        ({"method": "gptq"}, 64, ["--rows", "--calibrate", "--group 32"]),
        ({"method": "gptq"}, 32, ["--rows", "--calibrate"]),
        ({"method": "rtn"}, 32, ["without --fast"]),
        ({}, 128, ["--rows", "--calibrate", "--group 64"]),
    ],
)
def test_what_would_lose_less_is_not_what_was_done(
    made: dict[str, str], group: int, ways: list[str]
) -> None:
    said = how_to_lose_less(made, {"quantization_config": quantization_config(group)})
    assert re.findall(r"(?:without )?--\w+(?: \d+)?", said) == ways


@pytest.mark.parametrize(
    ("figures", "status"),
    [
        ((0.01, 0.99, 1.0), "pass"),
        ((0.06, 0.99, 1.0), "warn"),
        ((0.01, 0.96, 1.0), "warn"),
        ((0.01, 0.99, 1.04), "warn"),
        ((0.11, 0.99, 1.0), "fail"),
        ((float("nan"), 0.99, 1.0), "fail"),
    ],
)
def test_bounds(figures: tuple[float, float, float], status: str) -> None:
    kl, top1, perplexity = figures
    found = Agreement(kl, kl, top1, perplexity, positions=100, answers=10)
    assert _judged(found, "x", "rows", 0.1, "").status == status
