"""The tokenizer that `tokenizer.json` declares, whatever transformers makes of it.

transformers 5 replaces the pre-tokenizer of every checkpoint with ``model_type: qwen2``, A.X 4.0
Light among them: digits are split one by one and text is normalised to NFC, so the model sees
tokens that it never met in pre-training. `load_tokenizer` builds from ``tokenizer.json`` alone.

Templates are rendered as transformers and vLLM render them (same sandbox, same ``tojson``), without
importing transformers, so that data can be checked on a machine without torch.
"""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import jinja2
import jinja2.ext
from tokenizers import Tokenizer

from axtune.checkpoint import sandbox
from axtune.checkpoint.families import Family
from axtune.checkpoint.locate import TOKENIZER_FILES, Checkpoint, find, read_json
from axtune.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

# Where tokenizers are known to part: digit runs, Hangul, decomposed Hangul (NFD), code, spaces.
PROBES = (
    "57600원 2024년 12월",
    "안녕하세요, 저는 한국어를 합니다.",
    "한국어 각",
    "def f(x):\n    return x['a'] + 10_000  # 주석\n",
    '{"date": "2026-03-14", "price": 1234567.89}',
    "  앞뒤 공백  \n\n\t탭  끝 ",
    "café naïve 漢字 ひらがな 😀 ①②③ ㎡",
)
# What every tokenizer of bytes gives back, in the form to which some bring text.
_PROBE = unicodedata.normalize("NFC", "\n".join(PROBES))


class Tool(dict[str, Any]):
    """A tool in vLLM's key order, with its JSON text.

    Tools are most of a prompt, and a template asks for their JSON at every render: once is enough.

    Attributes:
        json: As transformers' ``tojson`` filter writes it.
    """

    __slots__ = ("json",)

    def __init__(self, function: dict[str, Any]) -> None:
        super().__init__(type="function", function=function)
        self.json = json.dumps(self, ensure_ascii=False)


@dataclass(frozen=True)
class AxTokenizer:
    """A checkpoint's tokenizer and chat template.

    Attributes:
        name: The model, as the user gave it.
        folder: Where the checkpoint's files are.
        backend: The tokenizer that ``tokenizer.json`` declares.
        chat_template: The checkpoint's own template, Jinja source.
        config: Its ``tokenizer_config.json``.
        end_of_turn_id: The id that closes a turn (27, ``<|im_end|>``).
        pad_id: The padding id (1, ``<|pad|>``); never the end of turn.
        context: The longest sequence of the model, in tokens.
        family: What the checkpoint is.
    """

    name: str
    folder: Path
    backend: Tokenizer
    chat_template: str
    config: dict[str, Any] = field(repr=False)
    end_of_turn_id: int
    pad_id: int
    context: int
    family: Family = field(repr=False)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text; control tokens written in a text become their ids."""
        encodings = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""
        return self.encode_batch([text])[0]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, control tokens included."""
        return self.backend.decode(list(ids), skip_special_tokens=False)

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        tools: Sequence[Tool] | None,
        *,
        add_generation_prompt: bool,
    ) -> str:
        """Render normalised messages through the checkpoint's own template.

        Raises:
            CheckpointError: When the template itself refuses the messages.
        """
        try:
            with sandbox.time_limit():
                return self._template.render(
                    messages=messages,
                    tools=tools or None,
                    documents=None,  # as transformers does: defined, and none
                    add_generation_prompt=add_generation_prompt,
                    **self._special_tokens,
                )
        except UnicodeEncodeError:
            raise
        # A template is a program of a checkpoint: whatever it does wrong is the template's fault.
        except (jinja2.TemplateError, ArithmeticError, LookupError, TypeError, ValueError,
                AttributeError, MemoryError) as error:  # fmt: skip
            line = _line_of(error)
            raise CheckpointError(
                f"The chat template of {self.name} cannot render a conversation"
                f"{f' (line {line})' if line else ''}: {error}",
                "Use the checkpoint's original chat template.",
            ) from None

    def require_template(self) -> None:
        """Parse the template, which otherwise happens when it first renders.

        Raises:
            CheckpointError: When it is broken, with the line.
        """
        self._template  # noqa: B018 - parsed here, and kept

    @cached_property
    def _template(self) -> jinja2.Template:
        try:
            return _environment().from_string(self.chat_template)
        except (
            jinja2.TemplateError,
            RecursionError,
            SyntaxError,
            ValueError,
            MemoryError,
        ) as error:
            line = getattr(error, "lineno", None)
            reason = str(getattr(error, "message", None) or "it is nested too deeply")
            raise CheckpointError(
                f"The chat template of {self.name} is broken"
                f"{f' at line {line}' if line else ''}: {reason.removesuffix('.')}.",
                "Use the checkpoint's original chat template.",
            ) from None

    @cached_property
    def _special_tokens(self) -> dict[str, str]:
        """bos_token, eos_token and so on, which transformers hands to every template."""
        tokens = {}
        for key in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
            if text := _token_text(self.config.get(f"{key}_token")):
                tokens[f"{key}_token"] = text
        return tokens

    @cached_property
    def end_of_turn(self) -> str:
        """The text that closes a turn."""
        token = self.backend.id_to_token(self.end_of_turn_id)
        assert token is not None  # load_tokenizer found the id by its text
        return token

    @cached_property
    def bos_id(self) -> int | None:
        """The id that a text began with in pre-training; None without one. Nothing adds it."""
        text = self._special_tokens.get("bos_token")
        return self.backend.token_to_id(text) if text else None

    @cached_property
    def end_of_document_id(self) -> int:
        """The id that closed a document in pre-training (0, ``<|endoftext|>``).

        Raises:
            CheckpointError: When the tokenizer lacks the token that its family's record names.
        """
        found = self.backend.token_to_id(self.family.end_of_document)
        if found is None:
            raise CheckpointError(
                f"The tokenizer of {self.name} has no {self.family.end_of_document}, which ends a "
                f"document of {self.family.line} models.",
                "Restore the original tokenizer.json, or train on conversations: task: sft.",
            )
        return found

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """What an answer may end with: the end of a turn, and of a document where it is known."""
        document = self.backend.token_to_id(self.family.end_of_document)
        return (self.end_of_turn_id, *([] if document is None else [document]))

    @cached_property
    def control_tokens(self) -> frozenset[str]:
        """Added tokens that steer the model and must not stand inside text: all but the masks."""
        added = self.backend.get_added_tokens_decoder().values()
        masks = self.family.personal_data_tokens
        return frozenset(token.content for token in added) - masks

    def to_transformers(self) -> PreTrainedTokenizerFast:
        """The same tokenizer as a transformers object, for the trainers; imports transformers."""
        from transformers import PreTrainedTokenizerFast

        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(self.folder / "tokenizer.json"),
            chat_template=self.chat_template,
            eos_token=self.end_of_turn,
            pad_token=self.backend.id_to_token(self.pad_id),
            model_max_length=int(self.config.get("model_max_length", 1_000_000_000)),
            clean_up_tokenization_spaces=False,
        )
        return tokenizer

    def copy_files(self, target: Path) -> list[Path]:
        """Copy the checkpoint's tokenizer files into a folder, byte for byte.

        Returns:
            The files written.
        """
        present = [name for name in TOKENIZER_FILES if (self.folder / name).is_file()]
        return [Path(shutil.copyfile(self.folder / name, target / name)) for name in present]


def load_tokenizer(
    model: str | Checkpoint, *, revision: str | None = None, learning: bool = False
) -> AxTokenizer:
    """Load the tokenizer that a checkpoint declares.

    Args:
        model: A name as `axtune.checkpoint.locate.find` takes it, or a checkpoint already found.
        revision: Branch or commit of a Hub model.
        learning: Whether a model is to learn from its tokens, which then have to be cut as its
            family was trained with.

    Returns:
        The tokenizer, built from ``tokenizer.json`` alone.

    Raises:
        CheckpointError: When files are missing or disagree: no template, no end of turn, a pad
            token that is the end of turn (its labels would be masked and never learned), a
            tokenizer with more ids than the model has embeddings, or one to learn with that cuts
            text in another way than its family.
    """
    found = (
        model if isinstance(model, Checkpoint) else find(model, revision=revision, weights=False)
    )
    folder = found.folder
    backend = _backend(folder / "tokenizer.json")
    config_file = folder / "tokenizer_config.json"
    config = read_json(config_file) if config_file.is_file() else {}
    longest = config.get("model_max_length", 1)
    if isinstance(longest, bool) or not isinstance(longest, (int, float)) or not 1 <= longest < inf:
        raise CheckpointError(
            f"{config_file}: model_max_length is {longest!r}; expected a number of tokens.",
            "Restore the original file.",
        )
    template = found.chat_template()
    if template is None:
        raise CheckpointError(
            f"{found.name} has no chat template.",
            "Use an unedited copy; A.X checkpoints contain one.",
        )
    end = _token_id(backend, config, "eos_token", found.name)
    pad = _token_id(backend, config, "pad_token", found.name)
    if pad == end:
        raise CheckpointError(
            f"{found.name} pads with its end of turn, so no model trained with it learns where "
            "to stop.",
            "Restore the original tokenizer_config.json (pad_token <|pad|>).",
        )
    closing = backend.get_added_tokens_decoder().get(end)
    if closing is None or closing.lstrip or closing.rstrip or closing.normalized:
        raise CheckpointError(
            f"{found.name} ends its turns with a token that text can merge into.",
            "Restore the original tokenizer.json, where it is an added token of its own.",
        )
    vocabulary = found.config.get("vocab_size")
    if isinstance(vocabulary, int) and backend.get_vocab_size() > vocabulary:
        raise CheckpointError(
            f"{found.name} has a tokenizer of {backend.get_vocab_size()} ids over {vocabulary} "
            "embeddings.",
            "Tokenizer and weights are of different checkpoints; copy it again.",
        )
    family = found.family
    if learning:
        _require_cut(backend, family, found.name)
    context = int(found.config.get("max_position_embeddings", family.context))
    loaded = AxTokenizer(found.name, folder, backend, template, config, end, pad, context, family)
    if learning:
        loaded.require_template()
    return loaded


@contextmanager
def readable(file: Path, remedy: str = "The file is damaged; copy it again.") -> Iterator[None]:
    """Name a ``tokenizer.json`` that the library tokenizers fails at.

    Raises:
        CheckpointError: Instead of what it raises, which is a bare Exception, or not even that
            where its Rust code panics.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(f"{file} cannot be read as a tokenizer: {error}.", remedy) from None


def _backend(file: Path) -> Tokenizer:
    """The tokenizer of a file, which gives text back as it was.

    Raises:
        CheckpointError: When it cannot be read, draws its tokens by chance, or changes text.
    """
    with readable(file):
        backend = Tokenizer.from_file(str(file))
        backend.no_padding()
        backend.no_truncation()
        ids = backend.encode_batch_fast([_PROBE], add_special_tokens=False)[0].ids
        text = backend.decode(ids, skip_special_tokens=False)
    if dropout := getattr(backend.model, "dropout", None):
        raise CheckpointError(
            f"{file} draws tokens by chance: model.dropout is {dropout:g}; expected null.",
            "Restore the original file.",
        )
    if text.removeprefix(" ") != _PROBE:  # a space before it is how some cut words
        raise CheckpointError(
            f"{file} does not give text back as it was: {_PROBE[:24]!r} becomes {text[:24]!r}.",
            "Restore the original file.",
        )
    return backend


def _require_cut(backend: Tokenizer, family: Family, name: str) -> None:
    parts = {
        key: json.loads(part.__getstate__()) if part else None
        for key, part in (
            ("normalizer", backend.normalizer),
            ("pre_tokenizer", backend.pre_tokenizer),
        )
    }
    if not family.cuts_like(parts):
        raise CheckpointError(
            f"The tokenizer.json of {name} {family.how_it_cuts(parts)}; the model would learn "
            f"tokens that {family.line} models never met.",
            "Use an unedited copy, or write one: axtune doctor CKPT --repair OUT.",
        )


def auto_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """What ``AutoTokenizer`` of the installed transformers loads; raises whatever that raises."""
    from transformers import AutoTokenizer

    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    return loaded


def disagreement_with_auto(tokenizer: AxTokenizer) -> str | None:
    """Compare with what ``AutoTokenizer`` of the installed transformers loads.

    Returns:
        One line that says where the two part, or None when they agree on every probe.
    """
    import transformers

    auto_name = f"AutoTokenizer of transformers {transformers.__version__}"
    try:
        auto = auto_tokenizer(tokenizer.folder)
    except Exception as error:  # whatever it raises, AutoTokenizer cannot be used with this folder
        return (
            f"{auto_name} cannot load {tokenizer.name} ({type(error).__name__}); axtune reads "
            "tokenizer.json as it is."
        )
    for probe in PROBES:
        ours = tokenizer.encode(probe)
        theirs = auto.encode(probe, add_special_tokens=False)
        if ours != theirs:
            return (
                f"{auto_name} would get {tokenizer.name} wrong ({probe.strip()[:12]!r}: "
                f"{len(theirs)} tokens instead of {len(ours)}); axtune uses the tokenizer that "
                "tokenizer.json declares."
            )
    return None


def _token_text(value: Any) -> str | None:
    """A special token's text; configs hold a string or an AddedToken as an object."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _token_id(backend: Tokenizer, config: dict[str, Any], key: str, name: str) -> int:
    text = _token_text(config.get(key))
    token = backend.token_to_id(text) if text else None
    if token is None:
        raise CheckpointError(
            f"{name} names {text!r} as its {key}, which its tokenizer lacks.",
            "Restore the original tokenizer_config.json.",
        )
    return token


def _line_of(error: BaseException) -> int | None:
    """The line of a template at which an error was raised: the innermost frame of its code."""
    line = None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


class _GenerationBlock(jinja2.ext.Extension):
    """``{% generation %}…{% endgeneration %}``, which transformers knows; the text is unchanged."""

    tags = {"generation"}  # noqa: RUF012 - the base class declares a set

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> sandbox.BoundedSandbox:
    """As transformers' ``apply_chat_template`` sets it up (utils/chat_template_utils.py)."""

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        if isinstance(value, Tool) and not (ensure_ascii or indent or separators or sort_keys):
            return value.json
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                          sort_keys=sort_keys)  # fmt: skip

    environment = sandbox.BoundedSandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlock, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment
