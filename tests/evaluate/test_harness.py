from __future__ import annotations

import importlib.resources
import importlib.util
import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from support.tiny import LIBRARY_WARNINGS, checkpoint

from axtune.checkpoint.tokenizer import PROBES, auto_tokenizer, load_tokenizer
from axtune.errors import AxtuneError, MissingPackageError
from axtune.evaluate import harness
from axtune.evaluate.harness import (
    load_tasks,
    loaded_model,
    run_tasks,
    served_model,
)
from axtune.evaluate.task_figures import measure_tasks
from axtune.model.adapter import add_adapter
from axtune.model.load import load_model

pytest.importorskip("lm_eval")

pytestmark = [
    LIBRARY_WARNINGS,
    pytest.mark.filterwarnings("ignore:::lm_eval", "ignore:::datasets", "ignore:::multiprocess"),
]

CHOICES = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/choices.jsonl, train: {folder}/choices.jsonl}}
  cache_dir: {folder}/cache
output_type: multiple_choice
test_split: test
fewshot_split: train
doc_to_text: "질문: {{{{question}}}}\\n정답:"
doc_to_target: "{{{{answer}}}}"
doc_to_choice: "{{{{options}}}}"
{more}
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: mcc, aggregation: matthews_corrcoef, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
ANSWERS = """
task: 사내_단답
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/answers.jsonl}}
  cache_dir: {folder}/cache
output_type: generate_until
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["\\n"], max_gen_toks: 6, do_sample: false}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
metadata: {{version: 1.0}}
"""
GROUP = """
group: 사내
task: [사내_선택, 사내_선택_둘]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: true}
metadata: {version: 1.0}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tasks of one's own, in Korean, with digits that AutoTokenizer would cut in another way."""
    place = tmp_path_factory.mktemp("tasks")
    options = ["57600원", "12월 25일", "2026년", "서울 본사"]
    with (place / "choices.jsonl").open("w", encoding="utf-8") as file:
        for number in range(12):
            row = {"question": f"{number}번 주문의 값 10{number}00은?", "options": options}
            file.write(json.dumps(row | {"answer": number % 4}, ensure_ascii=False) + "\n")
    with (place / "answers.jsonl").open("w", encoding="utf-8") as file:
        for number in range(5):
            row = {"question": f"비밀 {number}번은?" * (number + 1), "answer": f"{number}"}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    for name, more in (("사내_선택", ""), ("사내_선택_둘", "num_fewshot: 1")):
        text = CHOICES.format(folder=place, name=name, more=more)
        (place / f"{name}.yaml").write_text(text, encoding="utf-8")
    (place / "단답.yaml").write_text(ANSWERS.format(folder=place), encoding="utf-8")
    (place / "사내.yaml").write_text(GROUP, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def managed(folder):
    """Of the built-in tasks, whose index takes ten seconds, a part; figures with fewer draws."""
    from lm_eval.tasks import TaskManager

    built_in = importlib.resources.files("lm_eval.tasks") / "kmmlu"
    made = TaskManager(include_path=[str(built_in), str(folder)], include_defaults=False)
    patch = pytest.MonkeyPatch()
    patch.setattr("lm_eval.tasks.TaskManager", lambda **_: made)
    patch.setattr(harness, "_DRAWS", 10)
    yield made
    patch.undo()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("base") / "m")


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


@pytest.fixture(scope="module")
def model(base, tokenizer):
    return load_model(base, tokenizer, precision="fp32")


@pytest.fixture
def loaded(model, tokenizer):
    return loaded_model(model, tokenizer, batch_size=4, chat=False)


# --- The tokenizer --------------------------------------------------------------------------------


def test_the_library_encodes_as_the_checkpoint_declares(either_tiny, tokenizer, model):
    for ours in (either_tiny, tokenizer):
        lm = loaded_model(model, ours, batch_size=2, chat=False)
        for probe in PROBES:
            assert lm.tok_encode(probe) == ours.encode(probe)
        batch, mask = lm.tok_batch_encode(list(PROBES))
        rows = zip(PROBES, batch.tolist(), mask.tolist(), strict=True)
        for probe, ids, kept in rows:
            assert ids == [ours.pad_id] * (len(ids) - sum(kept)) + ours.encode(probe)
        assert lm.eot_token_id == ours.end_of_turn_id
        assert lm.prefix_token_id == ours.backend.token_to_id("<|endoftext|>")


def test_what_it_would_load_by_itself_does_not(tokenizer):
    auto = auto_tokenizer(tokenizer.folder)
    assert any(auto.encode(probe) != tokenizer.encode(probe) for probe in PROBES)


def test_chats_are_rendered_as_they_are_served(either_tiny, model):
    lm = loaded_model(model, either_tiny, batch_size=2, chat=True)
    messages = [
        {"role": "system", "content": "짧게 답하세요."},
        {"role": "user", "content": "57600은?"},
        {"role": "assistant", "content": "수입니다."},
        {"role": "user", "content": "12월은?"},
    ]
    served = either_tiny.render(messages, None, add_generation_prompt=True)
    assert lm.apply_chat_template(messages) == served
    assert lm.tok_encode(served) == either_tiny.encode(served)


# --- Running --------------------------------------------------------------------------------------


def by_hand(model, tokenizer, context, continuation):
    ids = tokenizer.encode(context + continuation)
    begin = len(tokenizer.encode(context))
    with torch.no_grad():
        log_probabilities = model(torch.tensor([ids])).logits[0].double().log_softmax(dim=-1)
    return sum(log_probabilities[i - 1, ids[i]].item() for i in range(begin, len(ids)))


def test_a_likelihood_is_what_the_logits_say(folder, managed, model, tokenizer, loaded):
    tasks = load_tasks(["사내_선택"])
    (score, *_) = run_tasks(loaded, tasks, chat=False).scores
    assert (score.metric, score.n) == ("사내_선택/acc", 12)
    (task,) = tasks["tasks"].values()
    best = {}
    for request in task.instances:
        context, continuation = request.args
        expected = by_hand(model, tokenizer, context, continuation)
        assert request.resps[0][0] == pytest.approx(expected, rel=1e-4)
        best.setdefault(request.doc_id, []).append(expected)
    assert context.endswith("값 101100은?\n정답:")
    right = [max(range(4), key=sums.__getitem__) == number % 4 for number, sums in best.items()]
    assert score.values == tuple(map(float, right))
    assert score.value == pytest.approx(sum(right) / 12)


def test_an_adapter_is_part_of_the_model(folder, managed, base, tokenizer, loaded):
    whole = load_model(base, tokenizer, precision="fp32")
    adapted = add_adapter(whole, {"r": 4}, seed=0).model
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    tasks = load_tasks(["사내_선택"])
    likelihoods = []
    for lm in (loaded, loaded_model(adapted, tokenizer, batch_size=4, chat=False)):
        run_tasks(lm, tasks, chat=False, limit=1)
        (task,) = tasks["tasks"].values()
        likelihoods.append([request.resps[0][0] for request in task.instances])
    context, continuation = task.instances[0].args
    assert likelihoods[1][0] == pytest.approx(
        by_hand(adapted, tokenizer, context, continuation), rel=1e-4
    )
    assert likelihoods[0][0] != pytest.approx(likelihoods[1][0], rel=2e-3)


def test_what_is_found_is_what_the_librarys_own_front_door_finds(
    folder, managed, loaded, monkeypatch
):
    from lm_eval.evaluator import simple_evaluate

    monkeypatch.setattr("lm_eval.evaluator.add_env_info", lambda results: None)
    names = ["사내", "사내_단답"]
    ours = run_tasks(loaded, load_tasks(names), chat=False)
    theirs = simple_evaluate(loaded, tasks=names, task_manager=managed, bootstrap_iters=10)
    figures = {score.metric: score for score in ours.scores}
    assert list(figures) == [
        "사내_선택/acc", "사내_선택/mcc", "사내_선택_둘/acc", "사내_선택_둘/mcc",
        "사내_단답/exact_match", "사내/acc",
    ]  # fmt: skip
    for task, found in theirs["results"].items():
        for key, value in found.items():
            metric, comma, _ = key.partition(",")
            if comma and not metric.endswith("_stderr"):
                score = figures.pop(f"{task}/{metric}")
                assert score.value == value
                stderr = found[f"{metric}_stderr,none"]
                assert score.stderr == pytest.approx(stderr)
    assert not figures
    assert (ours.scores[-1].n, len(ours.scores[-1].values)) == (24, 24)
    assert ours.scores[1].values is None  # a correlation is no mean over questions
    assert ours.truncated == 0


def test_every_answer_is_told_and_nothing_else_is_said(folder, managed, loaded, capfd):
    told = []
    run_tasks(
        loaded, load_tasks(["사내_선택", "사내_단답"]), chat=False, limit=3,
        on_answer=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(number, 15) for number in range(1, 16)]  # 3 × 4 options, 3 answers
    assert capfd.readouterr() == ("", "")
    assert not logging.getLogger("lm_eval").handlers


def test_the_longest_answer_is_the_tasks(folder, managed, loaded, model, tokenizer, monkeypatch):
    """A.X 4.0 Light's generation_config.json has max_new_tokens: 16384."""
    monkeypatch.setattr(model.generation_config, "max_new_tokens", 100)
    monkeypatch.setattr(model.generation_config, "eos_token_id", None)
    lengths = []
    generate = model.generate

    def counted(**kwargs):
        output = generate(**kwargs)
        lengths.append(output.shape[1] - kwargs["input_ids"].shape[1])
        return output

    monkeypatch.setattr(model, "generate", counted)
    run_tasks(loaded, load_tasks(["사내_단답"]), chat=False)
    assert max(lengths) <= 6


def test_examples_and_chats_change_the_prompt(folder, managed, model, tokenizer):
    chats = loaded_model(model, tokenizer, batch_size=4, chat=True)
    tasks = load_tasks(["사내_선택"])
    run_tasks(chats, tasks, chat=True, num_fewshot=2, limit=2)
    (task,) = tasks["tasks"].values()
    context = task.instances[0].args[0]
    assert context.count("<|im_start|><|user|>") == 3
    assert context.endswith("<|im_start|><|assistant|>")
    again = load_tasks(["사내_선택"])
    run_tasks(chats, again, chat=True, num_fewshot=2, limit=2)  # the examples have a seed
    assert next(iter(again["tasks"].values())).instances[0].args[0] == context


def test_a_prompt_that_loses_its_beginning_is_counted(folder, managed, model, tokenizer):
    lm = loaded_model(model, tokenizer, batch_size=4, chat=False)
    lm._max_length = 12
    assert run_tasks(lm, load_tasks(["사내_선택"]), chat=False, limit=2).truncated == 8


def test_a_model_that_is_too_short_for_a_task_is_said(folder, managed, model, tokenizer):
    lm = loaded_model(model, tokenizer, batch_size=4, chat=False)
    lm._max_length = 4
    with pytest.raises(AxtuneError, match="could not run the tasks"):
        run_tasks(lm, load_tasks(["사내_단답"]), chat=False)


def test_without_another_model_there_is_no_difference(folder, managed, loaded):
    run = run_tasks(loaded, load_tasks(["사내_선택"]), chat=False)
    for found in measure_tasks(run.scores):
        assert (found.before, found.difference, found.verdict) == (None, None, None)
        assert found.value.low <= found.value.value <= found.value.high
    for found in measure_tasks(run.scores, run.scores):
        assert found.verdict == "cannot be told"
    (accuracy, *_) = measure_tasks(run.scores, ())
    assert accuracy.difference is None


# --- What a user gets wrong -----------------------------------------------------------------------


def test_an_unknown_task_is_said_with_its_neighbours(managed):
    with pytest.raises(AxtuneError, match=r"no task kmlu\.\nDid you mean .*kmmlu"):
        load_tasks(["kmlu"])
    with pytest.raises(AxtuneError, match=r"no task zzzzqqqq\.\n`lm-eval ls tasks`"):
        load_tasks(["zzzzqqqq"])


def test_names_may_be_patterns_and_files(folder, managed):
    assert sorted(load_tasks(["사내_선*"])["tasks"]) == ["사내_선택", "사내_선택_둘"]
    assert list(load_tasks([str(folder / "단답.yaml")])["tasks"]) == ["사내_단답"]
    assert list(load_tasks(["사내", "사내_선택"])["tasks"]) == ["사내_선택", "사내_선택_둘"]


@pytest.mark.parametrize("name", ["kmmlu_law", "kmmlu", "kmmlu_humss_tasks"])
def test_data_that_is_not_here_is_said(managed, monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_DATASETS_OFFLINE", raising=False)
    with pytest.raises(AxtuneError) as caught:
        load_tasks([name])
    assert f"Task {name} needs HAERAE-HUB/KMMLU, which is not on this machine" in str(caught.value)
    assert "HF_HUB_OFFLINE is set" in str(caught.value)


def test_a_file_of_data_that_is_not_there_is_said(folder, managed, tmp_path):
    text = ANSWERS.format(folder=tmp_path).replace("사내_단답", "다른_단답")
    (tmp_path / "단답.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(
        AxtuneError, match=r"reads .*answers.jsonl, which cannot be found"
    ) as caught:
        load_tasks([str(tmp_path / "단답.yaml")])
    assert "Hub" not in str(caught.value)


@pytest.mark.parametrize(
    ("named", "missing"),
    [
        ("dataset_path: json\ndataset_kwargs: {data_files: rows.jsonl}", "rows.jsonl"),
        ("dataset_path: csv\ndataset_kwargs: {data_files: {test: [rows.csv]}}", "rows.csv"),
        (
            "dataset_path: json\ndataset_kwargs: {data_files: {test: 'rows/*.jsonl'}}",
            "rows/*.jsonl",
        ),
        ("dataset_path: json\ndataset_kwargs: {data_dir: rows, data_files: a.jsonl}", "rows"),
        ("dataset_path: ./rows", "./rows"),
    ],
)
def test_a_relative_file_says_where_it_was_looked_for(
    folder, managed, tmp_path, monkeypatch, named, missing
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    _, _, rest = ANSWERS.format(folder=".").replace("사내_단답", "곁_단답").partition("task:")
    lines = [line for line in f"task:{rest}".splitlines() if not line.startswith((" ", "dataset_"))]
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    (tasks / "곁.yaml").write_text("\n".join([*lines, named]), encoding="utf-8")
    (tasks / "rows.jsonl").touch()
    with pytest.raises(AxtuneError, match="which cannot be found") as caught:
        load_tasks(["../tasks/곁.yaml"])
    assert f"reads {missing}, which" in str(caught.value)
    assert f"there is no {tmp_path / 'here' / missing}." in str(caught.value)
    assert (f"start axtune in {tasks}" in str(caught.value)) == (missing == "rows.jsonl")


def test_a_broken_task_is_said(folder, managed, tmp_path):
    text = (folder / "단답.yaml").read_text(encoding="utf-8")
    (tmp_path / "단답.yaml").write_text(text + "nonsense: 3\n", encoding="utf-8")
    with pytest.raises(AxtuneError, match=r"Task .* cannot be made: .*nonsense"):
        load_tasks([str(tmp_path / "단답.yaml")])


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(AxtuneError, match="is no folder"):
        load_tasks(["사내"], [tmp_path / "none"])


def test_code_that_a_model_wrote_does_not_run(folder, managed, tmp_path):
    text = (folder / "단답.yaml").read_text(encoding="utf-8")
    (tmp_path / "단답.yaml").write_text(text + "unsafe_code: true\n", encoding="utf-8")
    with pytest.raises(AxtuneError, match="runs code that the model wrote"):
        load_tasks([str(tmp_path / "단답.yaml")])


def test_without_the_package_the_command_that_installs_it_is_said(monkeypatch, tokenizer):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for call in (
        lambda: load_tasks(["kmmlu"]),
        lambda: loaded_model(None, tokenizer, batch_size=1, chat=False),
        lambda: served_model("http://localhost:1", "m", tokenizer),
    ):
        with pytest.raises(MissingPackageError, match=r"pip install 'axtune\[harness\]'"):
            call()


def test_broken_yaml_in_a_folder_is_said(tmp_path):
    """lm-evaluation-harness passes over such a file without a word."""
    (tmp_path / "x.yaml").write_text("task: x\ndoc_to_text: [unclosed\n", encoding="utf-8")
    with pytest.raises(AxtuneError, match=r"x.yaml:3: broken YAML: "):
        load_tasks(["x"], [tmp_path])
    (tmp_path / "x.yaml").write_bytes(b"task: \xb0\xa1\n")
    with pytest.raises(AxtuneError, match=r"x.yaml: broken YAML: "):
        load_tasks(["x"], [tmp_path])


@pytest.mark.slow
def test_tasks_of_a_folder_stand_beside_the_packages_own(folder, tmp_path, monkeypatch):
    from lm_eval.tasks.manager import TaskManager

    monkeypatch.setattr("lm_eval.tasks.TaskManager", TaskManager)
    (tmp_path / "함수.yaml").write_text(
        ANSWERS.format(folder=folder).replace("사내_단답", "사내_함수")
        + "process_docs: !function 함수.only_one\n",
        encoding="utf-8",
    )
    (tmp_path / "함수.py").write_text("def only_one(docs):\n    return docs.select([0])\n")
    found = load_tasks(["사내_단답", "사내_함수"], [folder, tmp_path])["tasks"]
    assert [len(task.eval_docs) for task in found.values()] == [5, 1]
    with pytest.raises(AxtuneError, match=r"no task haerae_gk\.\nDid you mean haerae"):
        load_tasks(["haerae_gk"])


# --- A server -------------------------------------------------------------------------------------

over_a_server = pytest.mark.skipif(
    importlib.util.find_spec("tenacity") is None, reason="needs the packages of lm-eval[api]"
)


@pytest.fixture
def server(model, tokenizer):
    """What of /v1/completions a task needs, as vLLM answers it."""

    class Handler(BaseHTTPRequestHandler):
        seen: list[dict] = []  # noqa: RUF012 - of one test

        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.seen.append(request | {"path": self.path})
            (ids,) = request["prompt"]
            with torch.no_grad():
                if request.get("echo"):
                    choice = {"text": "", "logprobs": self.logprobs(ids)}
                else:
                    output = model.generate(
                        torch.tensor([ids]), max_new_tokens=request["max_tokens"], do_sample=False
                    )[0, len(ids) :].tolist()
                    text = tokenizer.backend.decode(output)
                    stops = [text.find(stop) for stop in request["stop"] if stop in text]
                    choice = {"text": text[: min(stops, default=len(text))]}
            body = json.dumps({"choices": [{"index": 0, **choice}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @staticmethod
        def logprobs(ids):
            table = model(torch.tensor([ids])).logits[0].log_softmax(dim=-1)
            told = [None] + [table[i - 1, ids[i]].item() for i in range(1, len(ids))] + [-1.0]
            best = [None] + [{"x": table[i - 1].max().item()} for i in range(1, len(ids))] + [{}]
            return {"token_logprobs": told, "top_logprobs": best}

        def log_message(self, *args):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}", Handler.seen
    running.shutdown()
    running.server_close()


@over_a_server
def test_a_server_and_the_model_itself_agree(folder, managed, loaded, server, tokenizer):
    url, seen = server
    served = served_model(f"{url}/v1/", "m", tokenizer)
    tasks = load_tasks(["사내_선택", "사내_단답"])
    ours = run_tasks(loaded, tasks, chat=False, limit=4)
    told = []
    theirs = run_tasks(served, tasks, chat=False, limit=4, on_answer=lambda *n: told.append(n))
    assert [one.values for one in theirs.scores] == [one.values for one in ours.scores]
    assert told[-1] == (20, 20)
    assert {request["path"] for request in seen} == {"/v1/completions"}
    prompt = tokenizer.decode(next(r["prompt"][0] for r in seen if r.get("echo")))
    assert "값 10" in prompt
    (ids,) = seen[0]["prompt"]
    assert ids == tokenizer.encode(tokenizer.decode(ids))


@over_a_server
def test_a_server_that_is_not_there_is_said(folder, managed, tokenizer, monkeypatch):
    monkeypatch.setattr(harness, "_CONCURRENT", 2)
    gone = served_model("http://127.0.0.1:9", "m", tokenizer)
    gone.max_retries = 1
    with pytest.raises(AxtuneError, match=r"127.0.0.1:9/v1/completions does not answer"):
        run_tasks(gone, load_tasks(["사내_단답"]), chat=False, limit=1)


@over_a_server
def test_a_chat_server_tells_no_likelihoods(folder, managed, tokenizer):
    chats = served_model("http://127.0.0.1:9/v1", "m", tokenizer, chat_only=True)
    with pytest.raises(AxtuneError, match="사내_선택 compares likelihoods"):
        run_tasks(chats, load_tasks(["사내_선택"]), chat=True)
    with pytest.raises(AxtuneError, match="takes chats only"):
        run_tasks(chats, load_tasks(["사내_단답"]), chat=False)


def test_without_its_packages_a_server_cannot_be_asked(monkeypatch, tokenizer):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("lm_eval.models.api_models.find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"lm-eval\[api\]"):
        served_model("http://localhost:1", "m", tokenizer)
