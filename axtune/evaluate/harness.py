"""Tasks of lm-evaluation-harness, over a loaded model or a server, through its own library.

What it is given differs from its own defaults where these would measure another model:

- **The tokenizer** is the one that the checkpoint declares (`axtune.checkpoint.tokenizer`);
  ``AutoTokenizer`` cuts the texts of A.X 4.0 in another way. A server is sent token ids.
- **The longest answer** is the task's; ``max_new_tokens`` of a ``generation_config.json`` would
  overrule it.
- **Likelihoods** are summed in float32, also of a 16-bit model, where many answers would tie.

Data sets come from the Hub's cache on this machine, and from the Hub itself unless
``HF_HUB_OFFLINE`` or ``HF_DATASETS_OFFLINE`` is set. Tasks of one's own are YAML files in a folder;
such a folder may hold Python code, which runs.
"""

from __future__ import annotations

import contextlib
import difflib
import glob
import io
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.config.faults import first_line
from axtune.errors import AxtuneError, MissingPackageError
from axtune.evaluate.task_answers import KeptModel, TaskAnswers
from axtune.evaluate.task_figures import TaskScore, scores_of
from axtune.quiet import quiet_libraries

if TYPE_CHECKING:
    from lm_eval.api.model import LM
    from lm_eval.tasks.manager import TaskDict

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_FILE = "axtune_file"  # beside the keys of a task's YAML: where it stands
_FORMS = ("arrow", "csv", "json", "parquet", "text", "xml")  # data sets that are local files
_FEWSHOT_SEED = 1234  # of lm-evaluation-harness
_CONCURRENT = 16
_DRAWS = 1000  # for the standard error of a figure that is no mean


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What a model did on tasks.

    Attributes:
        scores: In the order of the tasks; groups stand behind the tasks that they are made of.
        truncated: How often a prompt lost its beginning, because it was too long for the model.
    """

    scores: tuple[TaskScore, ...]
    truncated: int


def require_harness() -> None:
    """Stop where lm-evaluation-harness is not installed.

    Raises:
        MissingPackageError: When it is not.
    """
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        raise MissingPackageError(
            "Tasks need the package lm-eval (lm-evaluation-harness), which is not installed.",
            "Run `pip install 'axtune[harness]'`, or `pip install 'lm-eval[api]'`.",
        ) from None


# --- Models ---------------------------------------------------------------------------------------


def loaded_model(model: Any, tokenizer: AxTokenizer, *, batch_size: int, chat: bool) -> LM:
    """A model in this process, as lm-evaluation-harness takes it.

    Args:
        model: A causal language model of transformers, with adapters or without.
        tokenizer: Of its checkpoint.
        batch_size: Prompts in a batch.
        chat: Whether prompts will be chats, which hold all of their control tokens already.

    Raises:
        MissingPackageError: When the package is not installed.
    """
    require_harness()
    with _quiet():
        from lm_eval.models.huggingface import HFLM

        class LoadedModel(HFLM):  # type: ignore[misc]
            def _model_generate(self, context: Any, max_length: int, **kwargs: Any) -> Any:
                # Or the longest answer would be that of generation_config.json.
                new = max_length - context.shape[1]
                return super()._model_generate(context, max_length, max_new_tokens=new, **kwargs)

        made: LM = LoadedModel(
            pretrained=model,
            tokenizer=tokenizer.to_transformers(),
            batch_size=batch_size,
            prefix_token_id=tokenizer.bos_id,
            softmax_dtype="float32",
            add_bos_token=False if chat else None,
        )
    return made


def served_model(
    url: str, name: str, tokenizer: AxTokenizer, *, chat_only: bool = False, timeout: int = 600
) -> LM:
    """A model behind an OpenAI-compatible server, as lm-evaluation-harness takes it.

    Args:
        url: Of the server, with ``/v1`` or without. ``OPENAI_API_KEY`` is sent if it is set.
        name: Of the model there.
        tokenizer: Of its checkpoint: ``/v1/completions`` gets token ids, as vLLM takes them.
        chat_only: Ask ``/v1/chat/completions``, where a server has nothing else. It renders and
            cuts prompts itself, and only answers tasks that generate.
        timeout: Seconds that a request may take.

    Raises:
        MissingPackageError: When a package is not installed.
    """
    require_harness()
    base = url.rstrip("/").removesuffix("/v1")
    options = {
        "model": name,
        "tokenizer_backend": None,  # it would load one with AutoTokenizer
        "num_concurrent": _CONCURRENT,
        "max_length": tokenizer.context,
        "eos_string": tokenizer.end_of_turn,
        "custom_prefix_token_id": tokenizer.bos_id,
        "timeout": timeout,
    }
    try:
        with _quiet():
            from lm_eval.models.openai_completions import LocalChatCompletion, LocalCompletionsAPI

            made: Any
            if chat_only:
                made = LocalChatCompletion(base_url=f"{base}/v1/chat/completions", **options)
            else:
                made = LocalCompletionsAPI(base_url=f"{base}/v1/completions", **options)
                made.tokenizer_backend = "huggingface"
                made.tokenizer = tokenizer.to_transformers()
                made.tokenized_requests = True
    except ImportError:
        raise MissingPackageError(
            "Tasks over a server need packages of lm-eval[api], which are not installed.",
            "Run `pip install 'lm-eval[api]'`.",
        ) from None
    server: LM = made
    return server


# --- Tasks ----------------------------------------------------------------------------------------


def load_tasks(names: Sequence[str], folders: Sequence[Path] = ()) -> TaskDict:
    """Tasks, groups and tags by their names, with their data.

    Args:
        names: As lm-evaluation-harness has them, with ``*`` for any text; or YAML files.
        folders: With tasks of one's own, which stand before those of the same name.

    Raises:
        MissingPackageError: When lm-evaluation-harness, or a package of a task, is not installed.
        AxtuneError: When there is no such task or folder, a task cannot be read, its data is not on
            this machine, or it would run code that a model wrote.
    """
    require_harness()
    for folder in folders:
        _require_readable(folder)
    with _quiet():
        manager = _manager(names, folders)
        known = [name for asked in names for name in _matches(manager, asked)]
        loaded: TaskDict = {"tasks": {}, "groups": {}, "group_map": {}}
        for name in dict.fromkeys(known):
            found = _load(manager, name)
            loaded["tasks"] |= found["tasks"]
            loaded["groups"] |= found["groups"]
            loaded["group_map"] |= found["group_map"]
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise AxtuneError(
                f"Task {name} runs code that the model wrote.",
                "axtune runs no such code; use lm-evaluation-harness itself, in a sandbox.",
            )
    return loaded


def _manager(names: Sequence[str], folders: Sequence[Path]) -> Any:
    """What knows the tasks: those of the folders alone, where all are there.

    The package's own fill thousands of files, which take many seconds to read.
    """
    from lm_eval.tasks import TaskManager

    places = [str(folder) for folder in folders]
    own = TaskManager(include_path=places, include_defaults=False)
    entries = [own.task_index.get(name) for name in names]
    if all(entry is not None and entry.kind.name in ("TASK", "PY_TASK") for entry in entries):
        return own
    return TaskManager(include_path=places)


def _require_readable(folder: Path) -> None:
    """Stop at a folder whose files lm-evaluation-harness would pass over without a word."""
    if not folder.is_dir():
        raise AxtuneError(f"{folder} is no folder.", "Name a folder with tasks as YAML files.")
    for file in sorted(folder.rglob("*.yaml")):
        try:
            for _ in YAML().parse(file.read_text(encoding="utf-8")):
                pass
        except (YAMLError, UnicodeDecodeError) as error:
            mark = getattr(error, "problem_mark", None)
            place = f"{file}:{mark.line + 1}" if mark else str(file)
            reason = getattr(error, "problem", None) or first_line(error)
            raise AxtuneError(f"{place}: broken YAML: {reason}", "Correct the file.") from None


def _matches(manager: Any, asked: str) -> list[str]:
    if asked in manager.task_index or Path(asked).is_file():
        return [asked]
    if "*" in asked and (found := manager.match_tasks([asked])):
        return list(found)
    close = difflib.get_close_matches(asked, manager.all_tasks, n=3, cutoff=0.6)
    raise AxtuneError(
        f"lm-evaluation-harness has no task {asked}.",
        f"Did you mean {' or '.join(close)}?"
        if close
        else "`lm-eval ls tasks` lists its tasks; those of your own are YAML files in a folder.",
    )


def _load(manager: Any, name: str) -> TaskDict:
    try:
        found: TaskDict = manager.load([name])
    except ImportError as error:
        raise MissingPackageError(
            f"Task {name} needs a package that is not installed: {first_line(error)}",
            "Install it with pip.",
        ) from error
    except OSError as error:  # of datasets and of the Hub: all of them are
        _require_files(name, configs := list(_configs(manager.task_index, name)))
        named = {str(config["dataset_path"]) for config in configs if "dataset_path" in config}
        sets = ", ".join(sorted(named)) or "a data set"
        offline = " and ".join(switch for switch in _OFFLINE if os.environ.get(switch))
        raise AxtuneError(
            f"Task {name} needs {sets}, which is not on this machine: {first_line(error)}",
            f"{offline} is set, so that nothing is loaded: unset it, "
            "or copy the Hub's cache (HF_HOME) from a machine that has the data."
            if offline
            else "Load it where the Hub can be reached, and copy the Hub's cache (HF_HOME) here.",
        ) from error
    except Exception as error:  # a task is configured, and its data prepared, by code of its own
        _require_files(name, _configs(manager.task_index, name))
        raise AxtuneError(
            f"Task {name} cannot be made: {first_line(error)}",
            "Correct its YAML file, or report it to lm-evaluation-harness.",
        ) from error
    return {"groups": {}, "group_map": {}, **found}


def _configs(index: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    """The YAML of a task, or of all tasks of a group or a tag, as far as it can be read."""
    entry = index.get(name)
    config = (entry.cfg if entry else None) or {}
    if file := entry.yaml_path if entry else Path(name):
        with contextlib.suppress(Exception):  # what is wrong with it was said by its loader
            from lm_eval.tasks._yaml_loader import load_yaml

            config = {**config, **load_yaml(file, resolve_func=False), _FILE: Path(file)}
    members = entry.tags if entry and entry.kind.name == "TAG" else config.get("task")
    if "dataset_path" in config or not isinstance(members, (list, set)):
        yield config
        return
    for member in members:
        yield from _configs(index, member["task"] if isinstance(member, dict) else member)


def _require_files(name: str, configs: Iterable[Mapping[str, Any]]) -> None:
    """Stop where a task names files of this machine that are not there."""
    for config in configs:
        for given in _named_files(config):
            if glob.glob(str(Path(given).expanduser()), recursive=True):
                continue
            beside = config[_FILE].resolve().parent if _FILE in config else None
            start = f"start axtune in {beside}, or " if beside and (beside / given).exists() else ""
            raise AxtuneError(
                f"Task {name} reads {given}, which cannot be found: there is no "
                f"{Path(given).expanduser().absolute()}.",
                "Paths in a task's YAML file are relative to the folder that axtune is started in; "
                f"{start}write the whole path there.",
            )


def _named_files(config: Mapping[str, Any]) -> Iterator[str]:
    """The files and folders of this machine that a task's data is of, as its YAML names them."""
    source, options = str(config.get("dataset_path")), config.get("dataset_kwargs")
    if source.startswith((".", "/", "~")):
        yield source
    if source not in _FORMS or not isinstance(options, Mapping):
        return
    folder, files = options.get("data_dir"), options.get("data_files")
    if folder is not None:
        yield str(folder)
    for part in files.values() if isinstance(files, Mapping) else [files]:
        for file in part if isinstance(part, list) else [part]:
            if isinstance(file, str) and "://" not in file:
                yield str(Path(str(folder), file)) if folder is not None else file


# --- Running --------------------------------------------------------------------------------------


def run_tasks(
    model: LM,
    tasks: TaskDict,
    *,
    chat: bool,
    limit: int | None = None,
    num_fewshot: int | None = None,
    on_answer: Callable[[int, int], None] | None = None,
    kept: TaskAnswers | None = None,
) -> TaskRun:
    """Put the questions of tasks to a model.

    Args:
        model: Of `loaded_model` or `served_model`.
        tasks: Of `load_tasks`.
        chat: Whether prompts are put through the chat template, examples as turns.
        limit: Questions of each task; None for all.
        num_fewshot: Examples in a prompt; None for what each task says. Tasks that say 0 keep it.
        on_answer: Called after each answer with how many there are, and of how many.
        kept: Answers of the model, which it is not asked again; new ones are added as they come.

    Raises:
        AxtuneError: When the model cannot be asked: prompts do not fit, the server does not answer
            or gives no likelihoods.
    """
    from lm_eval.evaluator import evaluate

    _require_fit(model, tasks, chat=chat)
    for task in tasks["tasks"].values():
        own = task.get_config("num_fewshot")
        if own is None or (num_fewshot is not None and own != 0):
            task.set_config("num_fewshot", num_fewshot or 0)
        task.set_fewshot_seed(_FEWSHOT_SEED)
    # Standard errors of figures that are no means are drawn: here, not in forked processes.
    os.environ.setdefault("DISABLE_MULTIPROC", "1")
    with _quiet() as heard, contextlib.ExitStack() as stack:
        told = _Answers(tasks, on_answer, stack, kept)
        model.set_cache_hook(told)
        try:
            found = evaluate(
                KeptModel(model, kept, told.count) if kept else model,
                tasks,
                limit=limit,
                log_samples=True,
                apply_chat_template=chat,
                fewshot_as_multiturn=chat,
                bootstrap_iters=_DRAWS,
            )
        except (OSError, KeyError, TypeError, AssertionError, ValueError) as error:
            raise _not_asked(model, error) from error
    return TaskRun(tuple(scores_of(found)), heard.truncated)


def _require_fit(model: LM, tasks: TaskDict, *, chat: bool) -> None:
    if not str(getattr(model, "base_url", "")).endswith("/chat/completions"):
        return
    if not chat:
        raise AxtuneError("A chat server takes chats only.", "Put the prompts as chats.")
    rated = [name for name, task in tasks["tasks"].items() if task.OUTPUT_TYPE != "generate_until"]
    if rated:
        raise AxtuneError(
            f"{_some(rated)} compares likelihoods, which /v1/chat/completions does not tell.",
            "Use a server with /v1/completions, such as vLLM, or the model itself.",
        )


def _not_asked(model: LM, error: Exception) -> AxtuneError:
    url = getattr(model, "base_url", None)
    if url is None:
        return AxtuneError(
            f"lm-evaluation-harness could not run the tasks: {first_line(error)}",
            "Usual reasons: prompts too long for the model (use fewer examples), or a task that "
            "does not fit its data.",
        )
    if isinstance(error, OSError):  # of requests; those of aiohttp are as well
        return AxtuneError(f"{url} does not answer: {first_line(error)}", "Look at its log.")
    return AxtuneError(
        f"The answers of {url} are not those of an OpenAI-compatible server: {first_line(error)}",
        "Likelihoods need a server that gives logprobs of the prompt (echo), such as vLLM.",
    )


def _some(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"


class _Answers:
    """Told of every answer, since lm-evaluation-harness takes it for a cache.

    Args:
        tasks: That are being run.
        on_answer: As of `run_tasks`.
        stack: Closed when they are done. Until then, what the library prints behind the last answer
            goes nowhere.
        kept: Where answers are kept; None for nowhere.
    """

    def __init__(
        self,
        tasks: TaskDict,
        on_answer: Callable[[int, int], None] | None,
        stack: contextlib.ExitStack,
        kept: TaskAnswers | None,
    ) -> None:
        self._tasks, self._on_answer, self._stack = tasks["tasks"].values(), on_answer, stack
        self._kept = kept
        self._done = 0

    @cached_property
    def _total(self) -> int:
        """Of all questions, which are there when the first answer comes."""
        return sum(request.repeats for task in self._tasks for request in task.instances)

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        if self._kept:
            self._kept.add(kind, request, answer)
        self.count()

    def count(self) -> None:
        """An answer is there."""
        self._done += 1
        if self._on_answer:
            self._on_answer(self._done, self._total)
        if self._done == self._total:
            self._stack.enter_context(contextlib.redirect_stdout(io.StringIO()))


# --- Quiet ----------------------------------------------------------------------------------------


class _Heard(logging.Handler):
    """What lm-evaluation-harness says, of which only lost beginnings matter."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.truncated = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.truncated += "truncat" in record.getMessage().lower()


@contextlib.contextmanager
def _quiet() -> Iterator[_Heard]:
    """Without the library's log, its progress bars and its warnings."""
    logger, heard = logging.getLogger("lm_eval"), _Heard()
    propagate, level = logger.propagate, logger.level
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    logger.addHandler(heard)
    try:
        with (
            quiet_libraries(),
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),  # progress bars
        ):
            warnings.simplefilter("ignore")
            yield heard
    finally:
        logger.removeHandler(heard)
        logger.setLevel(level)
        logger.propagate = propagate
