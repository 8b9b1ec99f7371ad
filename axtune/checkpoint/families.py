"""What a model family is: every fact that sets its checkpoints apart, in one record.

`axtune.checkpoint.locate` finds a checkpoint's folder; `Checkpoint.family` is its record. A new
family is one more `Family`, given to `register`. A checkpoint that no record knows, but whose
architecture one of `LAYOUTS` is and whose template writes the native format, is taken for a
relative of the A.X model of its layout.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Layout:
    """How tensors are arranged and named: what ``model_type`` of a ``config.json`` decides.

    Attributes:
        served_as: The layout in which a plain ``vllm serve`` loads the declared tokenizer.
        replaces_pre_tokenizer: Whether transformers 5 replaces the pre-tokenizer that
            ``tokenizer.json`` declares: digits are split one by one, text is normalised to NFC.
        biased: Linear layers that have a bias whatever the config says.
        gguf_architecture: llama.cpp's name for it.
        gguf_rotated: Projections whose heads llama.cpp rotates by neighbours; the others it rotates
            by halves, as transformers does.
    """

    served_as: str
    replaces_pre_tokenizer: bool
    biased: frozenset[str]
    gguf_architecture: str
    gguf_rotated: tuple[str, ...]


LAYOUTS: Mapping[str, Layout] = MappingProxyType(
    {
        "llama": Layout(
            served_as="llama",
            replaces_pre_tokenizer=False,
            biased=frozenset(),
            gguf_architecture="llama",
            gguf_rotated=(".q_proj", ".k_proj"),
        ),
        "qwen2": Layout(
            served_as="llama",
            replaces_pre_tokenizer=True,
            biased=frozenset({"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}),
            gguf_architecture="qwen2",
            gguf_rotated=(),
        ),
    }
)


@dataclass(frozen=True)
class Family:
    """A model family.

    Attributes:
        name: Such as ``A.X 4.0``.
        line: The line of models that it belongs to, such as ``A.X``.
        layout: The ``model_type`` of its checkpoints, a key of `LAYOUTS`.
        reference: The model whose tokenizer files repair a damaged checkpoint, as
            `axtune.checkpoint.locate.find` takes it.
        hub_ids: Its models on the Hugging Face Hub.
        embedded: Its models that come with the package.
        tokenizers: SHA-256 of every ``tokenizer.json`` that its models were published with.
        templates: SHA-256 of the text of every chat template that they were published with.
        pre_tokenizer: What its ``tokenizer.json`` says under that key; it has no normaliser.
        end_of_document: The token that closed a document in pre-training.
        personal_data_tokens: Added tokens that mask personal data: text to the model, so always
            allowed inside a message, where a control token is refused.
        context: Longest sequence in tokens, where a ``config.json`` does not say.
        gguf_pre_tokenizer: llama.cpp's name for `pre_tokenizer` (src/llama-vocab.cpp).
        tool_parser: vLLM's parser of its calls (``--tool-call-parser``).
    """

    name: str
    line: str
    layout: str
    reference: str
    context: int
    gguf_pre_tokenizer: str
    tool_parser: str
    end_of_document: str
    pre_tokenizer: Mapping[str, Any]
    hub_ids: tuple[str, ...] = ()
    embedded: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ()
    templates: tuple[str, ...] = ()
    personal_data_tokens: frozenset[str] = field(default=frozenset(), repr=False)

    def cuts_like(self, declared: Mapping[str, Any]) -> bool:
        """Whether a ``tokenizer.json`` cuts text as the family's models were trained.

        Args:
            declared: The file's content.
        """
        cut = {
            "use_regex": True,
            "add_prefix_space": False,
            **(declared.get("pre_tokenizer") or {}),
        }
        return declared.get("normalizer") is None and all(
            cut.get(key) == value for key, value in self.pre_tokenizer.items()
        )

    def how_it_cuts(self, declared: Mapping[str, Any]) -> str:
        """In words, how a ``tokenizer.json`` that does not `cuts_like` the family cuts text.

        Args:
            declared: The file's content.
        """
        text = json.dumps([declared.get("normalizer"), declared.get("pre_tokenizer")])
        ways = []
        if r"\\p{N}" in text and r"\\p{N}+" not in text and r"\\p{N}{1,3}" not in text:
            ways.append("splits every digit")
        if "NFC" in text:
            ways.append("normalises to NFC")
        if len(ways) == 2:
            return f"{' and '.join(ways)}; transformers 5 re-saves it like this"
        return ways[0] if ways else f"cuts text in another way than {self.line} models were trained"


FAMILIES: dict[str, Family] = {}


def register(family: Family) -> Family:
    """Make a family known by its name; a later record of the same name replaces an earlier one.

    Raises:
        ValueError: When its layout is none of `LAYOUTS`.
    """
    if family.layout not in LAYOUTS:
        raise ValueError(
            f"{family.name} has the layout {family.layout}; expected one of {', '.join(LAYOUTS)}."
        )
    FAMILIES[family.name] = family
    return family


A_X_4_0 = register(
    Family(
        name="A.X 4.0",
        line="A.X",
        layout="qwen2",
        reference="skt/A.X-4.0-Light",
        hub_ids=("skt/A.X-4.0-Light", "skt/A.X-4.0"),
        embedded=("tiny-ax-4.0",),
        tokenizers=("e3973eceeed921e72d54fbbf597e1bea0a219112a0809ad8eaf62a1754f8ea44",),
        templates=("15f2d4a602c42c90a1f03e13fe353510d745422a5c61b9abdefe47d5b77b5113",),
        pre_tokenizer={"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
        personal_data_tokens=frozenset(
            f"<|{name}|>"
            for name in (
                "resident_reg",
                "foreigner_reg",
                "business_reg",
                "credit_card",
                "passport",
                "driver_license",
                "telephone",
                "health_insurance",
                "bank_account",
            )
        ),
        context=16_384,
        gguf_pre_tokenizer="a.x-4.0",
        tool_parser="hermes",
        end_of_document="<|endoftext|>",
    )
)

# The same tokenizer and template, byte for byte, over Llama's tensors.
A_X_3_1 = register(
    dataclasses.replace(
        A_X_4_0,
        name="A.X 3.1",
        layout="llama",
        reference="skt/A.X-3.1-Light",
        hub_ids=("skt/A.X-3.1-Light",),
        embedded=("tiny-ax-3.1",),
        context=32_768,
    )
)


def known_names() -> list[str]:
    """The models known by name: those of the Hub first, then the embedded ones."""
    families = FAMILIES.values()
    return [
        *(name for family in families for name in family.hub_ids),
        *(name for family in families for name in family.embedded),
    ]


def family_of(name: str, layout: str, tokenizer: bytes, template: str) -> Family:
    """The family that a checkpoint belongs to (`axtune.checkpoint.locate.Checkpoint.family`).

    By its name, else by its tokenizer, else by its chat template, else by its layout alone. Of
    families that share a tokenizer the one with the checkpoint's layout is meant.

    Args:
        name: As the user gave it: Hub id, embedded name, or path.
        layout: Its ``model_type``.
        tokenizer: Its ``tokenizer.json``.
        template: Its chat template; empty when it has none.
    """
    for family in FAMILIES.values():
        if name in (*family.hub_ids, *family.embedded):
            return family
    tokenizer_digest = hashlib.sha256(tokenizer).hexdigest()
    template_digest = hashlib.sha256(template.encode()).hexdigest()
    for alike in (
        [family for family in FAMILIES.values() if tokenizer_digest in family.tokenizers],
        [family for family in FAMILIES.values() if template_digest in family.templates],
    ):
        if alike:
            return next((family for family in alike if family.layout == layout), alike[0])
    return relative_of_a_x(layout)


def relative_of_a_x(layout: str) -> Family:
    """What is taken for true of a checkpoint that no record knows: the facts of A.X.

    Args:
        layout: Its ``model_type``; of another than `LAYOUTS`, what asks for the layout refuses it.
    """
    like = A_X_3_1 if layout == A_X_3_1.layout else A_X_4_0
    return dataclasses.replace(
        like,
        name=f"an unknown {layout} family",
        layout=layout,
        hub_ids=(),
        embedded=(),
        tokenizers=(),
        templates=(),
    )
