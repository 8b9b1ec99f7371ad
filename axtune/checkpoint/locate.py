"""Where a checkpoint's files lie on this machine; what they are, `family` says.

A checkpoint is always a local folder by the time anything reads it: an embedded model's folder in
the package, the user's own, or a snapshot in the Hugging Face cache.
"""

from __future__ import annotations

import json
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from axtune.checkpoint.families import Family, family_of, known_names
from axtune.checkpoint.schemas import GenerationConfig, ModelConfig, Record, ShardIndex, fault_of
from axtune.errors import CheckpointError

# What a tokenizer is made of; every run carries these files on byte for byte.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
CONFIG_FILES = ("config.json", "generation_config.json")
ADAPTER_CONFIG = "adapter_config.json"  # what makes a folder an adapter that PEFT saved
RECORD_FILE = "axtune.json"  # what a folder was quantised from (see `axtune.checkpoint.provenance`)
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json")

# tokenizer.json, the largest JSON file of a checkpoint, has about 10 MB.
_MOST_JSON_BYTES = 256 << 20

_EMBEDDED = Path(__file__).parents[1] / "embedded"


class _IncompleteError(CheckpointError):
    """A folder that lacks files: of the Hub's cache, it may be only begun."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine.

    Attributes:
        name: As the user gave it: Hub id, embedded name, or path.
        folder: Where its files are.
        config: Its ``config.json``.
        generation_config: Its ``generation_config.json``; empty when it has none.
        commit: The Hub commit of the snapshot, when it came from there.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    generation_config: dict[str, Any]
    commit: str | None = None

    @property
    def family(self) -> Family:
        """The model family that it belongs to."""
        file = self.folder / "tokenizer.json"
        return family_of(
            self.name,
            str(self.config.get("model_type")),
            file.read_bytes() if file.is_file() else b"",
            self.chat_template() or "",
        )

    def chat_template(self) -> str | None:
        """Its chat template, Jinja source; the template's own file goes before the config's key.

        Raises:
            CheckpointError: When it has several that differ, of which transformers takes another
                for requests with tools.
        """
        file = self.folder / "chat_template.jinja"
        config = self.folder / "tokenizer_config.json"
        if file.is_file():
            named = {"default": _read_text(file)}
        else:
            said = read_json(config).get("chat_template") if config.is_file() else None
            named = _named_templates(said)
        for other in sorted(self.folder.glob("additional_chat_templates/*.jinja")):
            named[other.stem] = _read_text(other)
        default, with_tools = named.get("default"), named.get("tool_use")
        if with_tools not in (None, default):
            raise CheckpointError(
                f"{self.name} has a chat template of its own for requests with tools (tool_use), "
                "which differs from the default one.",
                "Keep the one that the model was trained with, as chat_template.jinja alone.",
            )
        return default


def _named_templates(said: Any) -> dict[str, str]:
    """The templates of a ``tokenizer_config.json`` by name; one text is the default."""
    if isinstance(said, str):
        return {"default": said}
    named: dict[str, str] = {}
    for item in said if isinstance(said, list) else []:
        match item:
            case {"name": str(name), "template": str(template)}:
                named[name] = template
    return named


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} cannot be read: {error}.", "The file is damaged; copy it again."
        ) from None


def embedded() -> list[Path]:
    """The folders of the models that come with the package."""
    return sorted(folder for folder in _EMBEDDED.iterdir() if folder.is_dir())


def model_folder(model: str) -> Path:
    """The folder of a model, for libraries that know folders and Hub ids alone.

    Args:
        model: As `find` takes it.

    Raises:
        AxtuneError: When there is none.
    """
    return find(model).folder


def find(
    model: str, *, revision: str | None = None, weights: bool = True, local: bool = False
) -> Checkpoint:
    """Find a checkpoint by name, from the Hub if it must be.

    Args:
        model: Embedded name, local folder, or Hub id.
        revision: Branch or commit of a Hub model.
        weights: Whether the weights are needed as well as tokenizer and config.
        local: Whether what is not on this machine is left there.

    Returns:
        The checkpoint, with its files on this machine.

    Raises:
        CheckpointError: When it is nowhere to be found, with the way to go on offline.
    """
    if model in {folder.name for folder in embedded()}:
        return _open(model, _EMBEDDED / model, weights)
    with suppress(OSError, RuntimeError, ValueError):  # no such user, too long for a path
        folder = Path(model).expanduser()
        if folder.suffix == ".gguf" and folder.is_file():
            raise _for_llama_cpp(folder)
        if model and folder.is_dir():
            return _open(model, folder, weights)
    if model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise CheckpointError(
            f"There is no model {model}: no such folder, and not of the form of a Hub id.",
            f"Known by name: {', '.join(known_names())}; or give a folder that holds a checkpoint.",
        )
    return _from_hub(model, revision, weights, local)


def _from_hub(model: str, revision: str | None, weights: bool, local: bool) -> Checkpoint:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    patterns = [*TOKENIZER_FILES, *CONFIG_FILES, RECORD_FILE, *(WEIGHT_FILES if weights else ())]

    def snapshot(local: bool) -> Path:
        return Path(
            snapshot_download(
                model, revision=revision, allow_patterns=patterns, local_files_only=local
            )
        )

    try:
        return _open(model, snapshot(local=True), weights)  # no network when the cache has it all
    except HFValidationError:
        raise CheckpointError(
            f"{model} is not of the form of a Hub id, owner/name.",
            "Give such an id, or a folder that holds a checkpoint.",
        ) from None
    except (LocalEntryNotFoundError, _IncompleteError):
        if local:
            raise CheckpointError(
                f"{model} is not in the cache of this machine.", "Download it, or give its folder."
            ) from None
    offline = "To try axtune without a network, use model=tiny-ax-4.0, which runs offline."
    try:
        return _open(model, snapshot(local=False), weights)
    except GatedRepoError:
        reason = "the Hub gives it only to accounts that asked for access"
        raise CheckpointError(
            f"{model} cannot be downloaded: {reason}.",
            "Ask for access on its page, then run `hf auth login`.",
        ) from None
    except (RepositoryNotFoundError, RevisionNotFoundError):
        what = f"{model} at revision {revision}" if revision else model
        raise CheckpointError(f"The Hugging Face Hub has no {what}.", offline) from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{model} is neither in the cache of this machine nor reachable on the Hugging Face "
            "Hub.",
            f"{offline} Or copy the checkpoint here and give its folder: model=/path/to/folder.",
        ) from None


def _open(name: str, folder: Path, weights: bool) -> Checkpoint:
    missing = [file for file in ("tokenizer.json", "config.json") if not (folder / file).is_file()]
    if weights and not any(file.is_file() for file in folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    index = folder / INDEX
    if weights and index.is_file():
        shards = set(read_json(index, ShardIndex)["weight_map"].values())
        missing += sorted(shard for shard in shards if not (folder / shard).is_file())
        if SINGLE not in shards and (folder / SINGLE).is_file():
            # transformers reads the one, and whoever follows the index the others.
            raise CheckpointError(
                f"{name} holds two sets of weights: {SINGLE}, and those that {INDEX} names.",
                "Delete the set that does not belong there.",
            )
    if "config.json" in missing and (files := sorted(folder.glob("*.gguf"))):
        raise _for_llama_cpp(files[0])
    if missing:
        hint = "Give the folder that holds them, or copy the checkpoint again."
        if "config.json" in missing and (folder / ADAPTER_CONFIG).is_file():
            hint = "This is an adapter; axtune merge makes a checkpoint of it and its base."
        elif "tokenizer.json" in missing and (folder / "adapter").is_dir():
            hint = "This is a run folder; the model is what it was trained from."
        elif "*.safetensors" in missing and (pickled := _pickles(folder)):
            hint = (
                f"Weights in pickle files ({pickled[0]}) are not read; convert them to safetensors."
            )
        raise _IncompleteError(f"{name} lacks {', '.join(missing)}.", hint)
    refuse_remote_code(folder, name)
    if weights and (folder / ADAPTER_CONFIG).is_file():
        # transformers would load the base that the adapter names instead of the folder's weights.
        raise CheckpointError(
            f"{name} holds an adapter ({ADAPTER_CONFIG}) beside the weights of a model.",
            "Move the adapter's files to a folder of their own.",
        )
    generation = folder / "generation_config.json"
    commit = folder.name if folder.parent.name == "snapshots" else None
    return Checkpoint(
        name=name,
        folder=folder,
        config=read_json(folder / "config.json", ModelConfig),
        generation_config=read_json(generation, GenerationConfig) if generation.is_file() else {},
        commit=commit,
    )


def _for_llama_cpp(file: Path) -> CheckpointError:
    """A GGUF file in the place of a checkpoint."""
    return CheckpointError(
        f"{file} is a GGUF file, which llama.cpp and Ollama serve; axtune itself loads folders of "
        "safetensors.",
        f"Start its server (llama-server --jinja -m {shlex.quote(str(file))}) and ask that: axtune "
        "eval RUN --url http://localhost:8080. What is loaded and verified here is the run that it "
        "was made from, or an export of that for vLLM.",
    )


def read_json(path: Path, record: type[Record] | None = None) -> dict[str, Any]:
    """A checkpoint's JSON file.

    Args:
        path: The file.
        record: What it must hold, as far as axtune reads it; None takes any object.

    Raises:
        CheckpointError: When the file is not a JSON object, or a value is not what `record` wants.
    """
    damaged = "The file is damaged; copy it again."
    try:
        if (size := path.stat().st_size) > _MOST_JSON_BYTES:
            raise CheckpointError(
                f"{path} has {size:,} bytes; expected at most {_MOST_JSON_BYTES:,}.", damaged
            )
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        if "\\ud" in text.lower():  # half of a surrogate pair is no text: it cannot be written
            json.dumps(value, ensure_ascii=False).encode()
    except (OSError, ValueError) as error:  # of ValueError are the faults of JSON and of UTF-8
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.", damaged) from None
    except RecursionError:
        raise CheckpointError(f"{path} is nested too deeply.", damaged) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is not a JSON object.", damaged)
    if record and (fault := fault_of(value, record)):
        raise CheckpointError(
            f"{path} cannot be used: {fault}.",
            "The file is damaged or was edited; use the original one.",
        )
    return value


def _pickles(folder: Path) -> list[str]:
    """The files that only unpickling reads, which runs whatever code they hold."""
    return sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)


def refuse_remote_code(folder: Path, name: str) -> None:
    """Refuse a folder whose configuration names Python code to run.

    For ``auto_map`` transformers asks on the terminal whether to run it, and takes a "y" that lies
    in a pipe; kernels (``attn_implementation: owner/name``) it fetches from the Hub unasked.

    Args:
        folder: A checkpoint's or an adapter's.
        name: As the user gave it, for the message.

    Raises:
        CheckpointError: When one of its configuration files does so.
    """
    for file in sorted(folder.glob("*config.json")):
        if file.is_file() and (key := _key_of_code(read_json(file))):
            raise CheckpointError(
                f"{file.name} of {name} names code to run ({key}); axtune runs no code from "
                "checkpoints.",
                "Use a checkpoint that transformers loads without remote code. If its model_type "
                f"is llama or qwen2, the key {key} is not needed and can be removed.",
            )


def _key_of_code(value: Any) -> str | None:
    """The key by which a value of a JSON file names code, at any depth; None without."""
    found = [value]
    while found:
        inner = found.pop()
        if isinstance(inner, list):
            found.extend(inner)
        elif isinstance(inner, dict):
            for key, each in inner.items():
                kernel = key.endswith("_implementation") and "/" in json.dumps(each)
                if kernel or (key == "auto_map" and each):
                    return str(key)
            found.extend(inner.values())
    return None
