"""The test of everything: what was trained comes back from the real vLLM, to the OpenAI client.

The embedded models learn conversations with calls by heart, are exported as a user would, served on
the CPU, and asked. Needs the environment that scripts/setup_vllm.sh makes; without it these tests
are skipped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import OpenAI
from support import memory, tiny, tool_pairs
from support.commands import ENVIRONMENT, forked
from support.rows import read_jsonl, write_jsonl
from transformers import AutoModelForCausalLM, AutoTokenizer

from axtune.checkpoint import locate
from axtune.checkpoint.tokenizer import AxTokenizer, load_tokenizer
from axtune.config.loader import data_options
from axtune.data.pipeline import render_row
from axtune.data.requests import Request, read_requests, same_answer
from axtune.data.samples import PairSample
from axtune.errors import AxtuneError
from axtune.evaluate.evaluate import Settings, evaluate
from axtune.evaluate.generate import Sampling
from axtune.model.load import load_model
from axtune.training.progress import Report
from axtune.verify.verify import verify
from axtune.verify.vllm import Reply, Served, find_vllm, serve

pytestmark = [pytest.mark.slow, tiny.LIBRARY_WARNINGS]

CONTEXT = 2048
serves_4_bit = pytest.mark.skipif(
    "avx512f" not in Path("/proc/cpuinfo").read_text(encoding="utf-8"),
    reason="vLLM's kernel for 4-bit weights on a CPU needs AVX-512",
)

# To train on, and to hold out.
TOOL_PAIRS = tool_pairs.rows(tool_pairs.CITIES[:9]), tool_pairs.rows(tool_pairs.CITIES[9:])


@pytest.fixture(scope="module", autouse=True)
def vllm() -> None:
    try:
        find_vllm()
    except AxtuneError:
        pytest.skip("there is no vLLM; bash scripts/setup_vllm.sh installs it")


@pytest.fixture(scope="module", params=["tiny-ax-4.0", "tiny-ax-3.1"])
def model(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "memory.jsonl", memory.rows())


@pytest.fixture(scope="module")
def requests(model: str, data: Path) -> list[Request]:
    found = list(read_requests(data_options([str(data)]), load_tokenizer(model)))
    assert len(found) == 28
    assert sum(bool(request.answer.get("tool_calls")) for request in found) == 12
    return found


@pytest.fixture(scope="module")
def learn(model: str, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Trains a recipe until the conversations are known, once; gives the run's folder."""
    made: dict[str, Path] = {}

    def train(recipe: str, *words: str) -> Path:
        if recipe not in made:
            run = tmp_path_factory.mktemp("runs") / f"{recipe}-{model}"
            axtune(
                "train", f"recipes/{recipe}.yaml", f"model={model}", f"output_dir={run}",
                f"data.train={data}", "data.eval=null", "lora.r=32", "lora.lora_alpha=128",
                "training.num_train_epochs=30", "training.per_device_train_batch_size=2",
                "training.gradient_accumulation_steps=1", "training.learning_rate=4e-3",
                "training.gradient_checkpointing=false", "training.logging_steps=80",
                *words,
            )  # fmt: skip
            made[recipe] = run
        return made[recipe]

    return train


def axtune(*words: str) -> None:
    """A command as a user types it, from the checkout; it has to end well."""
    done = forked("axtune.cli:main", words, environment=ENVIRONMENT)
    assert done.status == 0, done.said


def ask_all(served: Served, requests: list[Request]) -> None:
    """Every prompt and every answer is the one of the data; several are asked at a time."""
    with ThreadPoolExecutor(8) as threads:
        told = threads.map(partial(ask, served), requests)
    assert [said for said in told if said] == []


def ask(served: Served, request: Request) -> tuple[dict[str, Any], Reply] | None:
    """What was to be answered and what was; None where they are the same."""
    assert served.tokenize(request.messages, request.tools) == request.prompt
    reply = served.ask(request.messages, request.tools, max_tokens=128)
    reason = "tool_calls" if request.answer.get("tool_calls") else "stop"
    same = same_answer(request.answer, reply.content, reply.calls)
    return None if same and reply.finish_reason == reason else (request.answer, reply)


def test_merged_lora(
    learn: Callable[..., Path], requests: list[Request], data: Path, tmp_path: Path
) -> None:
    run, folder = learn("sft_lora"), tmp_path / "served"
    axtune("export", str(run), "--to", "vllm", "--out", str(folder))
    with serve(folder, CONTEXT) as served:
        ask_all(served, requests)
        certificate = verify(folder, adapter=run, vllm=served.url)
        asked = Settings(
            [str(data)], against=str(folder), url=served.url, stream=True,
            sampling=Sampling(0.0, 128), out=tmp_path / "evaluation",
        )  # fmt: skip
        result, _ = evaluate(str(folder), asked, Report(enabled=False))
    # The server and the model in this process say the same, and it is what was learned.
    assert result.ties is not None
    assert (result.ties["compared"], result.ties["differ"]) == (len(requests), 0)
    figures = {(one.category, one.metric): one for one in result.measured}
    for category, metric in (("call", "accuracy"), ("all", "exact")):
        one = figures[category, metric]
        assert one.before is not None
        assert (one.before.value, one.value.value) == (1.0, 1.0)
    checks = {(check.part, check.name): check for check in certificate.checks}
    assert certificate.passed
    assert checks["vllm", "streaming"].status == "pass"
    assert checks["vllm", "answers"].figures == {"asked": 12.0, "as_recorded": 12.0}
    written = json.loads((folder / "certificate.json").read_text(encoding="utf-8"))
    assert written["passed"] is True


@pytest.mark.parametrize("model", ["tiny-ax-4.0"], indirect=True)
def test_merged_qlora(
    model: str, learn: Callable[..., Path], requests: list[Request], tmp_path: Path
) -> None:
    run, folder = learn("sft_qlora", tiny.IN_FLOAT32), tmp_path / "served"
    axtune("export", str(run), "--to", "vllm", "--into", "nf4", "--out", str(folder))
    with serve(folder, CONTEXT) as served:
        ask_all(served, requests)


@serves_4_bit
@pytest.mark.parametrize("model", ["tiny-ax-4.0"], indirect=True)
def test_merged_in_4_bit(
    model: str, learn: Callable[..., Path], requests: list[Request], data: Path, tmp_path: Path
) -> None:
    run, folder = learn("sft_lora"), tmp_path / "served"
    axtune("export", str(run), "--to", "vllm", "--bits", "4", "--out", str(folder))
    with serve(folder, CONTEXT) as served:
        ask_all(served, requests)
        certificate = verify(folder, adapter=run, vllm=served.url)
        said = [
            (request.prompt, served.ask(request.messages, request.tools, max_tokens=128).ids)
            for request in requests[:16]
        ]
        of_vllm = [logprob(served, prompt, answer) for prompt, answer in said]
    here = in_process(folder, said)
    assert abs(sum(of_vllm) - sum(here)) / len(said) < 0.01
    checks = {(check.part, check.name): check for check in certificate.checks}
    assert certificate.passed
    assert checks["4 bit", "16-bit base + adapter"].figures["top1_answers"] > 0.97
    assert checks["vllm", "streaming"].status == "pass"
    assert checks["vllm", "answers"].figures == {"asked": 12.0, "as_recorded": 12.0}


def in_process(folder: Path, told: list[tuple[list[int], list[int]]]) -> list[float]:
    """The mean log-probability that the model, loaded here, gives answers to prompts."""
    model = load_model(
        locate.find(str(folder)), load_tokenizer(str(folder)), precision="fp32"
    ).eval()
    found = []
    for prompt, answer in told:
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
        each = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(answer).unsqueeze(1))
        found.append(float(each.mean()))
    return found


def logprob(served: Served, prompt: list[int], answer: list[int]) -> float:
    """The mean log-probability that vLLM gives the tokens of an answer."""
    with OpenAI(base_url=f"{served.url}/v1", api_key="none") as client:
        reply: Any = client.completions.create(
            model=served.model, prompt=[*prompt, *answer], max_tokens=1,
            extra_body={"prompt_logprobs": 0},
        )  # fmt: skip
    told = reply.choices[0].prompt_logprobs[len(prompt) :]
    at = zip(told, answer, strict=True)
    return sum(found[str(token)]["logprob"] for found, token in at) / len(answer)


@serves_4_bit
@pytest.mark.parametrize("model", ["tiny-ax-4.0"], indirect=True)
def test_an_adapter_over_a_base_in_4_bit(
    model: str, learn: Callable[..., Path], requests: list[Request], data: Path, tmp_path: Path
) -> None:
    base, adapter = tmp_path / "base", tmp_path / "memory"
    axtune(
        "export", model, "--to", "vllm", "--bits", "4", "--calibrate", str(data),
        "--out", str(base),
    )  # fmt: skip
    axtune("export", str(learn("sft_lora")), "--to", "adapter", "--out", str(adapter))
    words = ("--enable-lora", "--max-lora-rank", "32", "--lora-modules", f"memory={adapter}")
    with serve(base, CONTEXT, words) as served:
        ask_all(Served(served.url, "memory"), requests)


@pytest.fixture(scope="module")
def preferring(model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The adapters of an SFT run and of a DPO run from it, of the one model that has them."""
    if model != "tiny-ax-4.0":
        return {}
    folder = tmp_path_factory.mktemp("preferring")
    train_rows, held_out = TOOL_PAIRS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        runs = {"sft": tool_pairs.train_sft(folder, train_rows)}
        runs["dpo"] = tool_pairs.train_dpo(folder, runs["sft"], train_rows, held_out)
    for name, run in runs.items():
        axtune("export", str(run.path), "--to", "adapter", "--out", str(folder / f"{name}-adapter"))
    return {name: folder / f"{name}-adapter" for name in runs}


@pytest.fixture(scope="module")
def exported(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's bare base, in float32: what vLLM answers is held against transformers."""
    folder = tmp_path_factory.mktemp("exported") / model
    axtune("export", model, "--to", "vllm", "--dtype", "float32", "--out", str(folder))
    return folder


@pytest.fixture(scope="module")
def with_adapters(
    exported: Path,
    learn: Callable[..., Path],
    preferring: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Served]:
    """One server of a model's bare base, beside it the adapters of all runs that tests ask."""
    memory_adapter = tmp_path_factory.mktemp("hot") / "memory"
    axtune("export", str(learn("sft_lora")), "--to", "adapter", "--out", str(memory_adapter))
    adapters = {"memory": memory_adapter, **preferring}
    modules = [f"{name}={adapter}" for name, adapter in adapters.items()]
    words = ("--enable-lora", "--max-lora-rank", "32", "--lora-modules", *modules)
    with serve(exported, CONTEXT, ("--dtype", "float32", *words)) as served:
        yield served


def test_hot_loaded_adapter(with_adapters: Served, requests: list[Request]) -> None:
    ask_all(Served(with_adapters.url, "memory"), requests)
    reply = with_adapters.ask(requests[0].messages, requests[0].tools, max_tokens=128)
    assert not same_answer(requests[0].answer, reply.content, reply.calls)  # the bare base


@pytest.mark.parametrize("model", ["tiny-ax-4.0"], indirect=True)
def test_what_dpo_taught_is_preferred(model: str, with_adapters: Served) -> None:
    """Of pairs that no run has seen, vLLM finds the right call the more probable one."""
    tokenizer, (_, held_out) = load_tokenizer(model), TOOL_PAIRS
    share = {
        name: preferred(Served(with_adapters.url, name), tokenizer, held_out)
        for name in ("sft", "dpo")
    }
    assert share["sft"] <= 0.7
    assert share["dpo"] >= 0.9


def preferred(served: Served, tokenizer: AxTokenizer, pairs: list[dict[str, Any]]) -> float:
    """The share of pairs whose chosen answer vLLM gives the higher log-probability."""
    right = 0
    for pair in pairs:
        (sample,) = render_row(pair, tokenizer)
        assert isinstance(sample, PairSample)
        assert served.tokenize(pair["prompt"], pair["tools"]) == sample.prompt_ids
        chosen, rejected = (
            len(answer) * logprob(served, sample.prompt_ids, answer)
            for answer in (sample.chosen_ids, sample.rejected_ids)
        )
        right += chosen > rejected
    return right / len(pairs)


def test_served_ids_of_every_golden_conversation(
    shared: Path, real_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    """A 4.0 base with random weights and the real tokenizer, exported for vLLM, and in 4 bit.

    Prompts are made of the tokenizer and its template, which both folders have byte for byte.
    """
    base = tiny.with_weights(
        real_checkpoint("4.0"), tmp_path / "base", max_position_embeddings=16_384
    )
    in_16_bit, folder = tmp_path / "in_16_bit", tmp_path / "served"
    axtune("export", str(base.folder), "--to", "vllm", "--out", str(in_16_bit))
    axtune(
        "export", str(base.folder), "--to", "vllm", "--bits", "4", "--fast", "--out", str(folder)
    )
    of_prompts = [file.name for file in base.folder.iterdir() if "token" in file.name]
    assert "tokenizer.json" in of_prompts
    for name in of_prompts:
        assert (folder / name).read_bytes() == (in_16_bit / name).read_bytes()
    count = 0
    with serve(folder, 16_384) as served:
        for row in read_jsonl(shared / "goldens" / "serve_prompts.jsonl"):
            tools = row.get("tools")
            for recorded in row["serve"]:
                messages = row["messages"][: recorded["turn"]]
                assert served.tokenize(messages, tools) == recorded["prompt_ids"]
                count += 1
    assert count == 738
    tokenizer = AutoTokenizer.from_pretrained(folder)
    declared = load_tokenizer(base)
    text = "57600원 2024년 12월"
    assert tokenizer.encode(text, add_special_tokens=False) == declared.encode(text)
    model = AutoModelForCausalLM.from_pretrained(in_16_bit)
    assert type(model).__name__ == "LlamaForCausalLM"


# --- the examples of the models' own cards ----------------------------------------------------


def card(shared: Path, model: str) -> list[str]:
    """The Python blocks of a model's card: transformers, a chat, tools."""
    name = {"tiny-ax-4.0": "A.X-4.0-Light", "tiny-ax-3.1": "A.X-3.1-Light"}[model]
    text = (shared / "model-cards" / f"{name}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 3
    return blocks


def test_card_quickstart_with_transformers(
    shared: Path, model: str, exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The 4.0 card's code as it stands; 3.1's has lost its indentation on the way into the file.

    Since transformers 5 apply_chat_template answers a dictionary unless told not to, so the card
    needs that one word whatever the checkpoint.
    """
    code = card(shared, "tiny-ax-4.0")[0].replace("skt/A.X-4.0-Light", str(exported))
    code = code.replace("torch.bfloat16", "torch.float32")
    found: dict[str, Any] = {}
    exec(code.replace('return_tensors="pt"', 'return_tensors="pt", return_dict=False'), found)
    tokenizer = load_tokenizer(str(exported))
    prompt = tokenizer.encode(tokenizer.render(found["messages"], None, add_generation_prompt=True))
    assert found["input_ids"][0].tolist() == prompt
    assert capsys.readouterr().out.strip() == found["response"].strip() != ""


def test_card_examples_with_the_openai_client(
    shared: Path, model: str, exported: Path, with_adapters: Served
) -> None:
    """Chat, slot filling, function calling, completion: vLLM answers what transformers does."""
    tokenizer = load_tokenizer(str(exported))
    plain = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    asked = list(card_requests(card(shared, model)[1:], with_adapters))
    assert len(asked) == 5
    for messages, tools, printed in asked:
        assert printed.role == "assistant"
        ids = with_adapters.tokenize(messages, tools)
        reply = with_adapters.ask(messages, tools, max_tokens=48)
        with torch.inference_mode():
            out = plain.generate(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=48,
                do_sample=False,
            )
        assert reply.ids == out[0, len(ids) :].tolist()
        assert tokenizer.decode(ids).endswith("<|im_start|><|assistant|>")


def card_requests(
    blocks: list[str], served: Served
) -> Iterator[tuple[list[dict[str, Any]], list[dict[str, Any]] | None, Any]]:
    """Run a card's client code against a server; what it asks and what its client prints."""
    for block in blocks:
        # The definition of `call` is the part of 3.1's code that needs its lost indentation.
        body = block[block.index("client = OpenAI(") :]
        body = body.replace("http://localhost:8000/v1", f"{served.url}/v1")
        body = re.sub(r'model = "skt/[^"]+"', f"model = {served.model!r}", body)
        made: list[tuple[list[dict[str, Any]], list[dict[str, Any]] | None, Any]] = []
        found: dict[str, Any] = {"OpenAI": OpenAI}

        def call(
            messages: list[dict[str, Any]],
            model: str,
            found: dict[str, Any] = found,
            made: list[Any] = made,
        ) -> None:
            keys = {"tools": found["tools"]} if "tools" in found else {}
            completion = found["client"].chat.completions.create(
                model=model, messages=messages, max_tokens=48, **keys
            )
            made.append((messages, found.get("tools"), completion.choices[0].message))

        found["call"] = call
        exec(body, found)
        found["client"].close()
        yield from made
