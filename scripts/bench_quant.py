#!/usr/bin/env python
"""Exports in 4 bit: how far their answers are from 16 bit, and what making them costs.

``--model``: the 135M model of bench_learning.py, trained on a part of BFCL, merged, and dithered by
one step of the 4-bit file that its weights come from (13 values in 32 would flatter every method).
Each contender makes its folder in a process of its own; all are measured on BFCL rows that nobody
trained on, and on plain text: KL in nats a token against 16 bit, the likeliest token of answers,
and the questions that each answers right. Contenders: rounding to nearest (``--fast``), axtune's
GPTQ, llama.cpp's Q4_K_M without and with the importance matrix, and with ``--peers PYTHON`` (an
environment of its own with llmcompressor) llm-compressor's GPTQ and AWQ, on the same rows.

``--served``: the folder that ``--model`` left in DIR, in the real vLLM: its prompts' ids, streaming
and calls by ``axtune verify --vllm``, and how far the log-probabilities it gives to the answers of
held-out rows are from those in process. ``--adapter``: what an adapter over the 4-bit base loses,
and what the same adapter loses that is merged before the weights are rounded.

``--width``: layers of A.X 4.0 Light's true width, random; seconds, peak memory, and what 28 layers
would take.

    python scripts/bench_quant.py --model --work DIR
    python scripts/bench_quant.py --model --work DIR --peers .venv-llmcompressor/bin/python
    python scripts/bench_quant.py --served --work DIR
    python scripts/bench_quant.py --adapter --work DIR
    python scripts/bench_quant.py --width --layers 2
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_learning import SMALL, axtune, bfcl_files, convert, small_model, train
from measuring import CHECKPOINT, CONVERSATIONS, machine

SEED = 13
LAYERS = 28
PLAIN = Path(__file__).resolve().parents[1] / "docs/figures.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="store_true", help="the 135M model")
    parser.add_argument("--served", action="store_true", help="the 135M model in the real vLLM")
    parser.add_argument("--adapter", action="store_true", help="over its base in 4 bit")
    parser.add_argument("--width", action="store_true", help="layers of true width")
    parser.add_argument("--work", type=Path, default=None, help="a folder that is kept")
    parser.add_argument("--peers", default=None, help="Python of an environment with llmcompressor")
    parser.add_argument("--group", type=int, default=64, help="of --model")
    parser.add_argument("--layers", type=int, default=2, help="of --width")
    parser.add_argument("--questions", type=int, default=60, help="asked of each, of --model")
    parser.add_argument("--measure", nargs="+", default=None, help=argparse.SUPPRESS)
    parser.add_argument("--logprobs", nargs=2, default=None, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, default=None, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(*map(Path, options.measure))
        return
    if options.logprobs:
        logprobs(*map(Path, options.logprobs))
        return
    if options.make:
        MAKERS[options.make[0]](Path(options.make[1]))
        return
    with tempfile.TemporaryDirectory(prefix="axtune-bench-") as name:
        work = (options.work or Path(name)).absolute()
        work.mkdir(parents=True, exist_ok=True)
        print(machine(("torch", "transformers")), flush=True)
        if options.model:
            compare(work, options)
        if options.served:
            serve(work)
        if options.adapter:
            beside(work, options.group)
        if options.width:
            widths(work, options.layers)


@dataclass(frozen=True)
class Cost:
    """What a command took.

    Attributes:
        seconds: Of wall clock.
        nbytes: The most memory that it had, resident.
    """

    seconds: float
    nbytes: int


def timed(command: list[str]) -> Cost:
    """Run a command and take its time and memory; stop where it fails."""
    print(f"\n$ {' '.join(command)}", flush=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{Path(command[0]).name} ended with {process.returncode}")
    return Cost(time.monotonic() - began, used.ru_maxrss * 1024)


# --- the 135M model ----------------------------------------------------------------------------


def compare(work: Path, options: argparse.Namespace) -> None:
    """Make each contender's folder, measure it, print the table."""
    rows, test = prepare(work)
    program = str(Path(sys.executable).parent / "axtune")
    export = [program, "export", str(work / "dithered"), "--out"]
    calibrated = ["--calibrate", str(rows), "--seed", str(SEED)]
    bits = ["--to", "vllm", "--bits", "4", "--group", str(options.group)]
    gguf = ["--to", "gguf", "--dtype", "q4_k_m"]
    commands = {
        "round to nearest": [*export, str(work / "rtn"), *bits, "--fast"],
        "axtune": [*export, str(work / "gptq"), *bits, *calibrated],
        "Q4_K_M": [*export, str(work / "q4"), *gguf, "--fast"],
        "Q4_K_M, matrix": [*export, str(work / "q4m"), *gguf, *calibrated],
    }
    if options.peers:
        write_ids(work, rows)
        for kind in ("gptq", "awq"):
            words = [str(work), kind, str(options.group)]
            commands[f"llm-compressor {kind.upper()}"] = [options.peers, "-c", PEER, *words]
    lines = [
        "| | KL, tool rows | in answers | likeliest token of answers | KL, plain text "
        "| right answers | seconds | memory, GB |",
        "| --- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for name, command in commands.items():
        out = Path(command[command.index("--out") + 1] if "--out" in command
                   else work / f"peer-{command[-2]}")  # fmt: skip
        shutil.rmtree(out, ignore_errors=True)
        try:
            cost = timed(command)
        except SystemExit as failed:
            if not name.startswith("llm-compressor"):
                raise
            lines.append(f"| {name} | does not run here: {failed} | | | | | | |")
            print(lines[-1], flush=True)
            continue
        found = json.loads(measured(work, out, test))
        right = asked(work, out, options.questions) if not name.startswith("Q4") else ""
        lines.append(
            f"| {name} | {found['tools']['kl']:.3f} | {found['tools']['answers_kl']:.3f} "
            f"| {found['tools']['top1']:.1%} | {found['plain']['kl']:.3f} | {right} "
            f"| {cost.seconds:.0f} | {cost.nbytes / 1e9:.2f} |"
        )
        print(lines[-1], flush=True)
    print(f"\nGroup {options.group}; {options.questions} questions, in 16 bit "
          f"{asked(work, work / 'dithered', options.questions)}\n")  # fmt: skip
    print("\n".join(lines))


def prepare(work: Path) -> tuple[Path, Path]:
    """The trained, merged and dithered model; rows to calibrate on and to measure on."""
    name = f"small-{SEED}"
    base, data, run = small_model(work), work / f"{name}-data", work / f"{name}-axtune"
    convert(data, bfcl_files(work), SMALL, SEED)
    if not (run / "adapter/adapter_model.safetensors").is_file():
        shutil.rmtree(run, ignore_errors=True)
        train(str(base), data, run, SMALL, SMALL.steps, SEED)
    if not (work / "merged").is_dir():
        axtune("merge", run, "--out", work / "merged")
    if not (work / "dithered").is_dir():
        made("dither", work)
    if not (work / "dithered-base").is_dir():
        made("dither-base", work)
    test = work / "held-out-rows"
    if not test.is_dir():  # the questions that were kept from training, as rows
        axtune("eval", "--convert", test, "--data", data / "test", "--held-out", "0.02")
    return data / "train.jsonl", test / "train.jsonl"


def made(kind: str, work: Path) -> None:
    timed([sys.executable, "-W", "ignore", __file__, "--make", kind, str(work)])


def dither(work: Path) -> None:
    dithered(work / "merged", work / "dithered")


def dither_base(work: Path) -> None:
    dithered(small_model(work), work / "dithered-base")


def dithered(model: Path, folder: Path) -> None:
    """Add uniform noise of one Q4_1 step: of each 32 weights, their range over 15."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(model, folder)
    (folder / "axtune-files.json").unlink(missing_ok=True)
    generator = torch.Generator().manual_seed(0)
    for file in folder.glob("*.safetensors"):
        tensors = load_file(file)
        for name, tensor in tensors.items():
            if tensor.dim() == 2 and tensor.shape[1] % 32 == 0:
                blocks = tensor.float().view(-1, 32)
                step = (blocks.amax(1) - blocks.amin(1)) / 15
                noise = torch.rand(blocks.shape, generator=generator) - 0.5
                moved = blocks + noise * step.unsqueeze(1)
                tensors[name] = moved.view(tensor.shape).to(tensor.dtype)
        save_file(tensors, file, metadata={"format": "pt"})


def measured(work: Path, out: Path, test: Path) -> str:
    """The figures of a folder, as JSON, from a process of its own."""
    return of_process("--measure", work / "dithered", out, test)


def of_process(*words: str | Path) -> str:
    """The last line that this program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, *map(str, words)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return done.stdout.splitlines()[-1]


def measure(reference: Path, out: Path, test: Path, adapter: Path | None = None) -> None:
    """Hold a folder, or a GGUF file in it, against the reference, and print the figures.

    An adapter is put over the reference, and over the folder unless it is merged into that.
    """
    from axtune.checkpoint import locate
    from axtune.data.samples import Sample
    from axtune.quiet import quiet_libraries
    from axtune.verify.agreement import agreement, how_made
    from axtune.verify.layerwise import Layerwise

    with quiet_libraries():
        base = locate.find(str(reference))
        tokenizer, samples = rows_of(base, test)
        plain = tokenizer.encode(PLAIN.read_text(encoding="utf-8"))[:512]
        files = list(out.glob("*.gguf"))
        over = None if not adapter or how_made(out).get("adapters") else adapter
        served: Any = LlamaCpp(files[0]) if files else Layerwise(locate.find(str(out)), over)
        sets = {"tools": samples[:24], "plain": [Sample(plain, plain)]}
        found = {
            name: vars_of(agreement(Layerwise(base, adapter), served, chosen))
            for name, chosen in sets.items()
        }
    print(json.dumps(found))


def rows_of(checkpoint: Any, test: Path) -> tuple[Any, list[Any]]:
    """The tokenizer of a checkpoint, and held-out rows in its tokens."""
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.config.loader import data_options
    from axtune.data.pipeline import check_rows
    from axtune.data.samples import Sample

    tokenizer = load_tokenizer(checkpoint)
    options = data_options([str(test)], max_length=1024)
    rows = check_rows([test], tokenizer, options)
    return tokenizer, [one for row in rows for one in row.samples if isinstance(one, Sample)]


def vars_of(found: Any) -> dict[str, float]:
    from dataclasses import asdict

    return asdict(found)


class LlamaCpp:
    """A GGUF file in llama.cpp, with what `agreement` asks of a model."""

    def __init__(self, file: Path) -> None:
        import llama_cpp

        self._llama = llama_cpp.Llama(str(file), n_ctx=2048, logits_all=True, verbose=False)

    def states(self, sequences: list[list[int]]) -> Any:
        import numpy as np
        import torch

        found = []
        for ids in sequences:
            self._llama.reset()
            self._llama.eval(ids)
            found.append(np.array(self._llama.scores[: len(ids)]))
        return torch.from_numpy(np.concatenate(found)).float()

    def logits(self, states: Any) -> Any:
        return states


def asked(work: Path, out: Path, questions: int) -> str:
    """How many questions a folder answers right, as axtune eval counts."""
    folder = work / f"answers-{out.name}"
    axtune("eval", out, "--data", work / f"small-{SEED}-data/test", "--limit", questions,
           "--max-new-tokens", SMALL.max_new_tokens, "--seed", SEED, "--out", folder)  # fmt: skip
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    one = next(one for one in result["measured"]
               if (one["category"], one["metric"]) == ("all", "accuracy"))  # fmt: skip
    value = one["value"]
    return f"{value['value']:.1%} [{value['low']:.1%}, {value['high']:.1%}]"


# --- in the real vLLM, and an adapter over it ----------------------------------------------------


def serve(work: Path) -> None:
    """The 4-bit folder in vLLM: what its certificate says, and its log-probabilities."""
    from axtune.quiet import quiet_libraries
    from axtune.verify import vllm

    _, test = prepare(work)
    folder = work / "gptq"
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there: --model --work {work} makes it first")
    axtune("verify", folder, "--against", work / "dithered", "--data", test,
           "--max-kl", "1", "--vllm")  # fmt: skip
    here = json.loads(of_process("--logprobs", folder, test))
    with quiet_libraries(), vllm.serve(folder, 2048) as served:
        there = [logprob(served, *each) for each in here["rows"]]
    apart = [one - two for one, two in zip(there, here["logprobs"], strict=True)]
    mean, most = sum(apart) / len(apart), max(map(abs, apart))
    print(f"\n{len(apart)} answers: mean log-probability of a token in vLLM less that in process "
          f"{mean:+.4f}, of one answer at most {most:.4f}")  # fmt: skip


def logprobs(folder: Path, test: Path) -> None:
    """Print rows as prompt and answer, and the mean log-probability of each answer in process."""
    import torch

    from axtune.checkpoint import locate
    from axtune.data.samples import IGNORED
    from axtune.model.load import load_model
    from axtune.quiet import quiet_libraries

    with quiet_libraries():
        checkpoint = locate.find(str(folder))
        tokenizer, samples = rows_of(checkpoint, test)
        model = load_model(checkpoint, tokenizer, precision="fp32").eval()
        found = []
        rows = []
        for sample in samples[:40]:
            start = next(n for n, label in enumerate(sample.labels) if label != IGNORED)
            with torch.inference_mode():
                logits = model(torch.tensor([sample.input_ids])).logits[0, start - 1 : -1]
            answer = torch.tensor(sample.input_ids[start:]).unsqueeze(1)
            each = torch.log_softmax(logits, dim=-1).gather(1, answer)
            found.append(float(each.mean()))
            rows.append((sample.input_ids[:start], sample.input_ids[start:]))
    print(json.dumps({"rows": rows, "logprobs": found}))


def logprob(served: Any, prompt: list[int], answer: list[int]) -> float:
    """The mean log-probability that vLLM gives the tokens of an answer."""
    from openai import OpenAI

    with OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        reply: Any = client.completions.create(
            model=served.model, prompt=[*prompt, *answer], max_tokens=1,
            extra_body={"prompt_logprobs": 0},
        )  # fmt: skip
    told = reply.choices[0].prompt_logprobs[len(prompt) :]
    at = zip(told, answer, strict=True)
    return sum(float(each[str(token)]["logprob"]) for each, token in at) / len(answer)


def beside(work: Path, group: int) -> None:
    """One adapter, over the base in 4 bit and merged before rounding."""
    rows, test = prepare(work)
    # Alone, since its run says that it was trained on the base without the noise.
    adapter, base = work / "adapter", work / "dithered-base"
    shutil.copytree(work / f"small-{SEED}-axtune/adapter", adapter, dirs_exist_ok=True)
    program = str(Path(sys.executable).parent / "axtune")
    words = ["--to", "vllm", "--bits", "4", "--group", str(group), "--calibrate", str(rows),
             "--seed", str(SEED)]  # fmt: skip
    sources = {
        "adapter over the base in 4 bit": [str(base)],
        "merged, then in 4 bit": [str(adapter), "--base", str(base)],
    }
    lines = ["| | KL, tool rows | in answers | likeliest token of answers | KL, plain text |",
             "| --- | --: | --: | --: | --: |"]  # fmt: skip
    for name, source in sources.items():
        out = work / f"beside-{len(source)}"
        shutil.rmtree(out, ignore_errors=True)
        timed([program, "export", *source, "--out", str(out), *words])
        found = json.loads(of_process("--measure", base, out, test, adapter))
        lines.append(
            f"| {name} | {found['tools']['kl']:.3f} | {found['tools']['answers_kl']:.3f} "
            f"| {found['tools']['top1']:.1%} | {found['plain']['kl']:.3f} |"
        )
    print(f"\nGroup {group}; against the dithered base with the adapter, in 16 bit\n")
    print("\n".join(lines))


# --- llm-compressor ------------------------------------------------------------------------------


def write_ids(work: Path, rows: Path) -> None:
    """The rows that axtune calibrates on, in token ids, for a program that knows no A.X."""
    if not (work / "calibration.json").is_file():
        (work / "rows-path").write_text(str(rows))
        made("ids", work)


def ids(work: Path) -> None:
    from axtune.checkpoint.tokenizer import load_tokenizer
    from axtune.export.calibration import draw

    rows = (work / "rows-path").read_text()
    drawn = draw(load_tokenizer(str(work / "dithered")), None, [rows], seed=SEED)
    (work / "calibration.json").write_text(json.dumps(drawn.sequences))


MAKERS = {"dither": dither, "dither-base": dither_base, "ids": ids}

# As its examples do it (examples/quantization_w4a16), with a group and rows of ours.
PEER = """
import json, sys
from pathlib import Path
import torch
from datasets import Dataset
from llmcompressor import oneshot
from transformers import AutoModelForCausalLM
work, kind, group = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(work / "dithered", dtype=torch.bfloat16)
rows = json.loads((work / "calibration.json").read_text())
data = Dataset.from_list([{"input_ids": r, "attention_mask": [1] * len(r)} for r in rows])
weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group",
           "group_size": group}
groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
if kind == "gptq":
    from llmcompressor.modifiers.gptq import GPTQModifier as Modifier
else:
    from llmcompressor.modifiers.awq import AWQModifier as Modifier
oneshot(model=model, dataset=data, recipe=Modifier(config_groups=groups, ignore=["lm_head"]),
        max_seq_length=2048, num_calibration_samples=len(rows))
out = work / f"peer-{kind}"
model.save_pretrained(out, save_compressed=True)
import shutil
for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
    if (work / "dithered" / name).is_file():
        shutil.copyfile(work / "dithered" / name, out / name)
"""


# --- true width --------------------------------------------------------------------------------


def widths(work: Path, layers: int) -> None:
    """Time and memory of both ways at A.X 4.0 Light's width."""
    base = work / f"wide-{layers}"
    if not base.is_dir():
        code = (
            "import sys; from pathlib import Path; from measuring import *; "
            "build_base(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))"
        )
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
        words = [sys.executable, "-W", "ignore", "-c", code, str(base), str(CHECKPOINT)]
        subprocess.run([*words, str(layers)], env=environment, check=True)
    program = str(Path(sys.executable).parent / "axtune")
    export = [program, "export", str(base), "--to", "vllm", "--bits", "4", "--out"]
    lines = ["| | seconds | memory, GB | of 28 layers, minutes |", "| --- | --: | --: | --: |"]
    rows = work / "rows.jsonl"
    write_rows(rows)
    for name, words in (("--fast", ["--fast"]), ("GPTQ", ["--calibrate", str(rows)])):
        out = work / "wide-out"
        shutil.rmtree(out, ignore_errors=True)
        cost = timed([*export, str(out), *words])
        shutil.rmtree(out)
        # Embeddings, head and the program's start are once; so this says a little too much.
        whole = cost.seconds / layers * LAYERS / 60
        lines.append(f"| {name} | {cost.seconds:.0f} | {cost.nbytes / 1e9:.2f} | {whole:.0f} |")
        print(lines[-1], flush=True)
    print(f"\n{layers} layers of 3,584 × 18,944\n")
    print("\n".join(lines))


def write_rows(file: Path) -> None:
    """Conversations with tools of the recorded ones, as rows."""
    with file.open("w", encoding="utf-8") as out:
        for line in CONVERSATIONS.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["messages"][-1]["role"] == "assistant":
                kept = {key: row[key] for key in ("messages", "tools") if row.get(key)}
                out.write(json.dumps(kept, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
