"""Whether a checkpoint is what A.X models must be, and repairing a damaged tokenizer.

Tokenizer, template, end of turn and weights are held against the base's, or against what is known
of the family.

The damage that everybody meets: transformers 5 loads a Qwen2-type A.X checkpoint with another
pre-tokenizer, and writes that into the ``tokenizer.json`` of whatever it saves.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from axtune.checkpoint import locate
from axtune.checkpoint.atomic import refuse_existing
from axtune.checkpoint.families import FAMILIES, LAYOUTS
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint, read_json
from axtune.checkpoint.tokenizer import (
    PROBES,
    AxTokenizer,
    auto_tokenizer,
    load_tokenizer,
    readable,
)
from axtune.data.conversation import normalise_request
from axtune.data.render import pieces
from axtune.errors import AxtuneError, CheckpointError
from axtune.model.dtypes import dtype_name, stated_dtype
from axtune.model.int4 import is_int4, plain_shapes
from axtune.model.shapes import fit
from axtune.units import gigabytes
from axtune.verify.certificate import Check
from axtune.weights.folder import write_folder
from axtune.weights.merge import plan
from axtune.weights.safetensors_file import TensorInfo, nonfinite_in, read_checkpoint

_REPAIR = "axtune doctor CKPT --repair OUT writes it with the base's own tokenizer files."

# A call, its result and an answer: what the template has to write.
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "당신은 주문을 돕는 상담원입니다."},
    {"role": "user", "content": "주문 20240917번은 언제 와요?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"type": "function", "function": {"name": "track", "arguments": '{"id": "20240917"}'}}
        ],
    },
    {"role": "tool", "content": '{"eta": "2024-09-19", "fee": 57600}'},
    {"role": "assistant", "content": "9월 19일에 도착합니다. 요금은 57600원입니다."},
]
TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "function": {
            "name": "track",
            "description": "주문의 배송 상태를 찾는다.",
            "parameters": {"type": "object", "properties": {"id": {"type": "string"}}},
        },
    }
]


def examine(
    checkpoint: Checkpoint,
    base: Checkpoint | None = None,
    *,
    for_vllm: bool = False,
    texts: Sequence[str] = (),
) -> list[Check]:
    """Check a checkpoint's files.

    Args:
        checkpoint: Found with its weights.
        base: What it comes from, for comparing file by file; None holds it against what is known.
        for_vllm: Whether a plain ``vllm serve`` must serve it right.
        texts: What AutoTokenizer is tried on, beside the probes.

    Returns:
        The checks, none left out: what could not be looked at says so.
    """
    checks = [*_tokenizer_file(checkpoint, base)]
    try:
        tokenizer = load_tokenizer(checkpoint)
    except CheckpointError as error:
        checks.append(_fail("tokenizer", "loads", error.found, error.remedy))
    else:
        checks.append(_auto(tokenizer, for_vllm, texts))
        checks += _template(checkpoint, base, tokenizer)
        checks += _end_of_turn(checkpoint, tokenizer)
    return [*checks, *_weights(checkpoint)]


def repair(checkpoint: Checkpoint, out: str | Path, base: str | None = None) -> list[Check]:
    """Write a checkpoint whose tokenizer was damaged with the tokenizer files of its base.

    Args:
        checkpoint: The damaged one, found with its weights.
        out: The folder to produce; it appears whole or not at all.
        base: Whose tokenizer files to take, as `axtune.checkpoint.locate.find` takes it; None
            takes the one that the checkpoint's family refers to.

    Returns:
        The checks of the repaired folder; none fails.

    Raises:
        AxtuneError: When the base cannot be found, has other tokens, or the result is still not
            sound; nothing is left behind then.
    """
    target = Path(out)
    refuse_existing(target)
    try:
        sound = locate.find(base or _reference_of(checkpoint), weights=False)
    except CheckpointError as error:
        raise CheckpointError(
            f"A repair takes the base's tokenizer files, which cannot be found: {error.found}",
            "Give a folder that holds them with --base.",
        ) from None
    _require_same_tokens(checkpoint, sound)
    planned = plan([], str(checkpoint.folder))
    planned = dataclasses.replace(
        planned, base=checkpoint, tokenizer_folder=sound.folder, config=dict(checkpoint.config)
    )
    tokenizer = load_tokenizer(dataclasses.replace(sound, config=checkpoint.config), revision=None)
    checks: list[Check] = []

    def require_sound(folder: Path) -> None:
        checks.extend(examine(locate.find(str(folder)), sound))
        failed = [check for check in checks if check.status == "fail"]
        if failed:
            raise CheckpointError(
                f"{checkpoint.name} is not sound even with the tokenizer of {sound.name}: "
                f"{failed[0].part}, {failed[0].name}: {failed[0].found}.",
                failed[0].remedy or "Copy the checkpoint again; nothing was written.",
            )

    write_folder(planned, target, tokenizer=tokenizer, finish=require_sound)
    return checks


def _fail(part: str, name: str, found: str, remedy: str = "") -> Check:
    return Check(part, name, "fail", found.removesuffix("."), remedy)


# --- tokenizer --------------------------------------------------------------------------------


def _tokenizer_file(checkpoint: Checkpoint, base: Checkpoint | None) -> Iterator[Check]:
    """How ``tokenizer.json`` cuts text, and whether it is the base's."""
    file = checkpoint.folder / "tokenizer.json"
    raw = read_json(file)
    part, name = "tokenizer", "cuts text"
    family = (base or checkpoint).family
    if family.cuts_like(raw):
        found = (
            f"as {family.line} models were trained: {family.pre_tokenizer['type']}, no normaliser"
        )
        yield Check(part, name, "pass", found)
    else:
        yield _fail(part, name, family.how_it_cuts(raw), _REPAIR)
    yield _identity(file, base)
    config = checkpoint.folder / "tokenizer_config.json"
    listed = read_json(config).get("extra_special_tokens") if config.is_file() else None
    if isinstance(listed, list):
        found = (
            "tokenizer_config.json was re-saved by transformers 5; transformers 4 cannot read it"
        )
        yield Check(part, "config", "warn", found, _REPAIR)
    elif base is not None:
        yield _other_files(checkpoint.folder, base)


def _identity(file: Path, base: Checkpoint | None) -> Check:
    part, name = "tokenizer", "tokenizer.json"
    own = hashlib.sha256(file.read_bytes()).hexdigest()
    if base is not None:
        other = base.folder / "tokenizer.json"
        if own == hashlib.sha256(other.read_bytes()).hexdigest():
            return Check(part, name, "pass", f"byte for byte that of {base.name}")
        return _compared(file, other, base.name)
    if alike := [each.reference for each in FAMILIES.values() if own in each.tokenizers]:
        return Check(part, name, "pass", f"byte for byte that of {' and '.join(alike)}")
    text = file.read_bytes()
    if any(text == (known / "tokenizer.json").read_bytes() for known in locate.embedded()):
        return Check(part, name, "pass", "byte for byte that of the embedded models")
    found = f"not the one of a model known by name (sha256 {own[:12]}…)"
    return Check(part, name, "warn", found, "Compare it with the base's: --base BASE.")


def _other_files(folder: Path, base: Checkpoint) -> Check:
    """The rest of the tokenizer's files; a class that names no layout is an export's own."""
    part, name = "tokenizer", "other files"
    files = [file for file in TOKENIZER_FILES if file != "tokenizer.json"]
    files = [file for file in files if (folder / file).is_file() or (base.folder / file).is_file()]
    differing = [file for file in files if _content(folder / file) != _content(base.folder / file)]
    if not differing:
        found = f"{', '.join(files) or 'none'}: byte for byte those of {base.name}"
        return Check(part, name, "pass", found)
    if differing == ["tokenizer_config.json"]:
        ours, theirs = (_but_for_class(each / differing[0]) for each in (folder, base.folder))
        if ours == theirs:
            found = f"those of {base.name}, but for the tokenizer_class that is the layout's"
            return Check(part, name, "pass", found)
    found = f"{', '.join(differing)}: not as those of {base.name}"
    return Check(part, name, "warn", found, _REPAIR)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def _but_for_class(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    return {**read_json(file), "tokenizer_class": None}


def _compared(file: Path, other: Path, name: str) -> Check:
    """Two tokenizers that are not the same bytes, by what they do."""
    try:
        ours, theirs = _open(file), _open(other)
    except CheckpointError as error:
        return _fail("tokenizer", "tokenizer.json", error.found, "Use the base's own file.")
    mine, base = (each.get_vocab(with_added_tokens=True) for each in (ours, theirs))
    if moved := [token for token, number in base.items() if mine.get(token) != number]:
        found = f"{len(moved)} tokens of {name} are absent or have other ids"
        return _fail("tokenizer", "tokenizer.json", found, "Use the base's own file.")
    for probe in PROBES:
        if ours.encode(probe).ids != theirs.encode(probe).ids:
            found = f"gives other ids than that of {name} ({probe.strip()[:12]!r})"
            return _fail("tokenizer", "tokenizer.json", found, _REPAIR)
    if added := len(mine) - len(base):
        found = f"that of {name} and {added} tokens more"
        return Check("tokenizer", "tokenizer.json", "pass", found)
    found = f"other bytes than that of {name}, and the same ids on every probe"
    return Check("tokenizer", "tokenizer.json", "warn", found, _REPAIR)


def _auto(tokenizer: AxTokenizer, for_vllm: bool, texts: Sequence[str]) -> Check:
    """Whether a program that calls AutoTokenizer sees the declared tokens."""
    import transformers

    part, name = "tokenizer", "AutoTokenizer"
    version = f"transformers {transformers.__version__}"
    problem = None
    try:
        auto = auto_tokenizer(tokenizer.folder)
    except Exception as error:  # whatever it raises, nobody can use it
        problem = f"{version} cannot load this folder ({type(error).__name__})"
    else:
        probes = (*PROBES, *texts)
        expected = tokenizer.encode_batch(probes)
        for probe, ids in zip(probes, expected, strict=True):
            if (got := auto.encode(probe, add_special_tokens=False)) != ids:
                shown = f" ({probe.strip()[:12]!r})" if probe in PROBES else ""
                problem = f"{version} gives {len(got)} tokens instead of {len(ids)}{shown}"
                break
    if problem is None:
        count = f"{len(PROBES)} probes" + (f" and {len(texts)} prompts" if texts else "")
        return Check(part, name, "pass", f"{version} gives the declared ids on {count}")
    if for_vllm:
        remedy = "Serve the folder that axtune export CKPT --to vllm makes."
        return _fail(part, name, problem, remedy)
    remedy = (
        "In Python load PreTrainedTokenizerFast.from_pretrained(FOLDER); for vLLM, "
        "axtune export CKPT --to vllm."
    )
    return Check(part, name, "warn", problem, remedy)


def _open(file: Path) -> Tokenizer:
    with readable(file, "Copy the base's own file."):
        return Tokenizer.from_file(str(file))


def _reference_of(checkpoint: Checkpoint) -> str:
    kind = str(checkpoint.config.get("model_type"))
    if kind not in LAYOUTS:
        raise AxtuneError(f"A {kind} model is not an A.X model.", "Give its base with --base.")
    return checkpoint.family.reference


def _require_same_tokens(checkpoint: Checkpoint, base: Checkpoint) -> None:
    mine, theirs = (
        _open(each.folder / "tokenizer.json").get_vocab(with_added_tokens=True)
        for each in (checkpoint, base)
    )
    if mine != theirs:
        differing = len(set(mine.items()) ^ set(theirs.items()))
        raise CheckpointError(
            f"{checkpoint.name} and {base.name} differ in {differing} tokens; the tokenizer of the "
            "one does not fit the weights of the other.",
            "Give the model that the checkpoint was trained from with --base.",
        )


# --- template and end of turn -----------------------------------------------------------------


def _template(
    checkpoint: Checkpoint, base: Checkpoint | None, tokenizer: AxTokenizer
) -> Iterator[Check]:
    own = tokenizer.chat_template
    digest = hashlib.sha256(own.encode()).hexdigest()
    alike = [each.reference for each in FAMILIES.values() if digest in each.templates]
    part, name = "template", "text"
    if base is not None and base.chat_template() == own:
        yield Check(part, name, "pass", f"byte for byte that of {base.name}")
    elif base is not None:
        yield _fail(part, name, f"differs from that of {base.name}", _REPAIR)
    elif alike:
        yield Check(part, name, "pass", f"byte for byte that of {' and '.join(alike)}")
    elif any(locate.find(each.name).chat_template() == own for each in locate.embedded()):
        yield Check(part, name, "pass", "byte for byte that of the embedded models")
    else:
        found = "not the one of a model known by name"
        yield Check(part, name, "warn", found, "Compare it with the base's: --base BASE.")
    raw = [(f"messages[{n}]", message) for n, message in enumerate(CONVERSATION)]
    try:
        pieces(tokenizer, normalise_request(raw, TOOLS, []))
    except CheckpointError as error:
        yield _fail(part, "calls", error.found, error.remedy)
    else:
        yield Check(part, "calls", "pass", "tools, a call, its result and an answer are native")


def _in_words(ids: list[int]) -> str:
    return " and ".join(map(str, ids))


def _end_of_turn(checkpoint: Checkpoint, tokenizer: AxTokenizer) -> Iterator[Check]:
    """Engines stop where ``generation_config.json`` says, and else where ``config.json`` does."""
    part, end = "end of turn", tokenizer.end_of_turn_id
    said = {
        "generation_config.json": checkpoint.generation_config.get("eos_token_id"),
        "config.json": checkpoint.config.get("eos_token_id"),
    }
    stops = {
        name: value if isinstance(value, list) else [value]
        for name, value in said.items()
        if value is not None
    }
    yield Check(part, "tokenizer", "pass", f"{tokenizer.end_of_turn} is {end}")
    remedy = f"Set eos_token_id to {end} in generation_config.json, or export the checkpoint anew."
    if end in stops.get("generation_config.json", ()):
        found = f"generation_config.json stops at {_in_words(stops['generation_config.json'])}"
        if end not in stops.get("config.json", ()):
            found += f"; config.json says {said['config.json']}, which engines do not follow then"
        yield Check(part, "generation", "pass", found)
    elif "generation_config.json" in stops:
        found = f"generation_config.json stops at {said['generation_config.json']}, not at {end}"
        yield _fail(part, "generation", found, remedy)
    elif end in stops.get("config.json", ()):
        yield Check(part, "generation", "pass", f"config.json stops at {end}")
    else:
        found = f"nothing stops at {end}: config.json says {said['config.json']}"
        yield _fail(part, "generation", found, remedy)


# --- weights ----------------------------------------------------------------------------------


def _weights(checkpoint: Checkpoint) -> Iterator[Check]:
    """The index, the architecture's tensors, their dtype, and that every number is finite."""
    part = "weights"
    try:
        shards = read_checkpoint(checkpoint.folder)
    except CheckpointError as error:
        yield _fail(part, "files", error.found, error.remedy)
        return
    tensors = {tensor.name: tensor for shard in shards.values() for tensor in shard}
    size = sum(tensor.nbytes for tensor in tensors.values())
    files = f"{len(shards)} file" + ("s" if len(shards) > 1 else "")
    found = f"{len(tensors)} tensors in {files}, {gigabytes(size)}; index and headers agree"
    yield Check(part, "files", "pass", found)
    yield _architecture(checkpoint, tensors)
    yield _dtype(checkpoint, tensors)
    if checkpoint.config.get("quantization_config") and not is_int4(checkpoint.config):
        yield Check(part, "numbers", "skip", "the checkpoint is quantised")
        return
    if odd := {name: bad for name, each in tensors.items() if (bad := nonfinite_in(each))}:
        first = next(iter(odd))
        found = (
            f"{len(odd)} tensors hold numbers that are not finite, {first} first ({odd[first]:,})"
        )
        yield _fail(part, "numbers", found, "The training diverged, or the files are damaged.")
    else:
        yield Check(part, "numbers", "pass", "all finite")


def _architecture(checkpoint: Checkpoint, tensors: dict[str, TensorInfo]) -> Check:
    part, name = "weights", "architecture"
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if is_int4(checkpoint.config):
        shapes = plain_shapes(shapes)
    elif checkpoint.config.get("quantization_config"):
        return Check(part, name, "skip", "the checkpoint is quantised")
    try:
        found = fit(checkpoint, shapes)
    except CheckpointError as error:
        return _fail(part, name, error.found, error.remedy)
    if found.fault:
        return _fail(part, name, found.fault)
    if found.unused:
        unused = f"{found.model} does not use {len(found.unused)} tensors, {found.unused[0]} first"
        return Check(part, name, "warn", unused, "config.json is perhaps of another checkpoint.")
    return Check(part, name, "pass", f"{found.model}, every tensor of its shape")


def _dtype(checkpoint: Checkpoint, tensors: dict[str, TensorInfo]) -> Check:
    config = checkpoint.config
    declared = stated_dtype(config)
    counts = Counter(dtype_name(tensor.dtype) for tensor in tensors.values())
    held = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    if set(counts) == {declared}:
        return Check("weights", "dtype", "pass", f"all {declared}, as config.json says")
    if config.get("quantization_config"):
        return Check("weights", "dtype", "skip", f"the checkpoint is quantised ({held})")
    found = f"config.json says {declared}, and the tensors are {held}"
    return _fail("weights", "dtype", found, "axtune export CKPT --dtype bfloat16 --out NEW.")
