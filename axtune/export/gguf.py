"""A checkpoint as one GGUF file, for llama.cpp and what is built on it.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Keys, names of tensors and
the packing of Q8_0 are the `gguf` package's; what is said of a model follows llama.cpp's converter
(conversion/base.py, llama.py, qwen.py) but for the tokenizer. The converter asks AutoTokenizer,
which gets A.X 4.0's wrong; here it is the one that ``tokenizer.json`` declares.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from axtune.checkpoint.families import LAYOUTS
from axtune.checkpoint.leftovers import filling, scratch
from axtune.checkpoint.locate import read_json
from axtune.checkpoint.tokenizer import AxTokenizer
from axtune.errors import AxtuneError, CheckpointError, MissingPackageError
from axtune.model.dtypes import dtype_name
from axtune.units import typed
from axtune.weights.folder import CheckpointPlan
from axtune.weights.output_tensor import BlockFormat, OutputTensor
from axtune.weights.stream_writer import File

if TYPE_CHECKING:
    from gguf import GGUFWriter, TensorNameMap

# What matrices become; vectors are always float32, which llama.cpp wants of norms and biases.
Numbers = Literal["bfloat16", "float16", "float32", "q8_0"]

# What a card says of q8_0.
EIGHT_BIT = (
    "The matrices of the GGUF file are in 8 bit (q8_0), rounded to nearest in blocks of 32; "
    "vectors are in float32."
)

_FILE_TYPES = {
    "bfloat16": "MOSTLY_BF16",
    "float16": "MOSTLY_F16",
    "float32": "ALL_F32",
    "q8_0": "MOSTLY_Q8_0",
}
_TENSOR_TYPES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}

# Of a tokenizer.json's BPE model; set, each would cut text in a way that llama.cpp does not.
_BPE_SWITCHES = (
    "dropout",
    "unk_token",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "fuse_unk",
    "byte_fallback",
    "ignore_merges",
)


def gguf_file(
    planned: CheckpointPlan, tokenizer: AxTokenizer, name: str, numbers: Numbers | None
) -> File:
    """Everything about a GGUF file but its numbers.

    Args:
        planned: The checkpoint that it is to hold.
        tokenizer: The checkpoint's.
        name: Of the model; the file's path is ``name.gguf``.
        numbers: What its matrices become; None keeps the checkpoint's dtype.

    Raises:
        MissingPackageError: When the package gguf is not installed.
        AxtuneError: When llama.cpp lacks what the model or its tokenizer uses.
    """
    try:
        import gguf
    except ImportError:
        raise MissingPackageError(
            "Writing a GGUF file needs the package gguf, which is not installed.",
            "Run `pip install 'axtune[gguf]'`, or `pip install gguf`.",
        ) from None
    config = complete_config(planned)
    _refuse_other_tokenizers(tokenizer)
    kind = numbers or _dtype(planned)
    pieces = _pieces(planned, config, kind)
    with scratch() as place, filling(place, "the header of a GGUF file"):
        path = place / "header"
        architecture = LAYOUTS[config["model_type"]].gguf_architecture
        with closing(gguf.GGUFWriter(path, architecture)) as writer:
            for piece in pieces:
                tensor_type = "Q8_0" if piece.packed else _TENSOR_TYPES[piece.dtype]
                writer.add_tensor_info(
                    piece.name,
                    piece.shape,
                    np.dtype(np.float32),  # not asked where raw_dtype is given
                    piece.nbytes,
                    raw_dtype=gguf.GGMLQuantizationType[tensor_type],
                )
            _add_model(writer, planned, config, name)
            writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[kind]])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_vocabulary(writer, tokenizer, int(config["vocab_size"]))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        header = path.read_bytes()
    placed = []
    position = len(header)
    for piece in pieces:
        position += -position % gguf.GGUF_DEFAULT_ALIGNMENT
        placed.append((position, piece))
        position += piece.nbytes
    position += -position % gguf.GGUF_DEFAULT_ALIGNMENT
    return File(Path(f"{name}.gguf"), header, placed, position)


def llama_server(file: Path, context: int) -> str:
    """The line that serves a file with llama.cpp."""
    name, path = shlex.quote(file.stem), typed(file)
    return f"llama-server --jinja -m {path} --alias {name} -c {context}"


def serving_gguf(name: str, context: int, room: str | None) -> str:
    """SERVING.md: the lines that serve a file, and what becomes of a request.

    Args:
        name: Of the model.
        context: The longest conversation, in tokens.
        room: Which cards serve it, with how long a context; None where that is not known.
    """
    request = {
        "model": name,
        "messages": [{"role": "user", "content": "안녕하세요?"}],
        "temperature": 0,
    }
    model = shlex.quote(name)
    fits = f"\nGraphics cards that hold it, with how long a context: {room}.\n" if room else ""
    return f"""# Serving {name}

In this folder. A machine with too little memory for the whole context takes a smaller `-c`, or
`num_ctx` in the Modelfile; Ollama drops the oldest messages of what is longer.
{fits}
## llama.cpp

```sh
{llama_server(Path(f"{name}.gguf"), context)}
```

```sh
curl http://localhost:8080/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{json.dumps(request, ensure_ascii=False)}'
```

The prompts are those of training, tools and calls included. Two details of tools differ from vLLM:
an absent description is `""`, not `null`, and `strict` is left out.

## Ollama

```sh
ollama create {model} -f Modelfile
ollama run {model}
```

It takes Ollama 0.30 or later, which renders with the template in the file: chats get the prompts of
training. Tools it first reads into types of its own, with the keys in its order and without those
that it does not know, so prompts with tools may differ. Serve tools with llama.cpp or vLLM.
"""


def complete_config(planned: CheckpointPlan) -> dict[str, Any]:
    """The checkpoint's config, with the defaults that its class in transformers fills in.

    Raises:
        CheckpointError: When llama.cpp lacks what it says.
    """
    from transformers import AutoConfig

    name, kind = planned.base.name, planned.config.get("model_type")
    if kind not in LAYOUTS:
        raise CheckpointError(
            f"{name} is a {kind} model; GGUF files are written of {' and '.join(LAYOUTS)} models.",
            "Convert it with llama.cpp's convert_hf_to_gguf.py, which knows many others.",
        )
    try:
        config: dict[str, Any] = AutoConfig.for_model(**planned.config).to_dict()
    except Exception as error:  # config.json can be wrong in many ways
        raise CheckpointError(
            f"transformers cannot read the config.json of {name} ({type(error).__name__}).",
            "Use the base's config.json.",
        ) from error
    lacks = []
    if config["hidden_act"] != "silu":
        lacks.append(f"hidden_act {config['hidden_act']}")
    if config.get("use_sliding_window"):
        lacks.append("use_sliding_window")
    rope = config["rope_parameters"]
    known = {"rope_type", "type", "rope_theta", "factor", "original_max_position_embeddings"}
    if rope["rope_type"] not in ("default", "yarn"):
        lacks.append(f"rope_type {rope['rope_type']}")
    else:
        lacks += sorted(key for key in rope.keys() - known if rope[key] is not None)
    heads = config["num_attention_heads"] * _head_rows(config)
    if kind == "qwen2" and heads != config["hidden_size"]:
        lacks.append(f"heads of {heads} in all with a hidden_size of {config['hidden_size']}")
    if lacks:
        raise CheckpointError(
            f"{name} uses what llama.cpp or this export lacks: {', '.join(lacks)}.",
            "Serve it with vLLM: --to vllm.",
        )
    return config


def _head_rows(config: dict[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _refuse_other_tokenizers(tokenizer: AxTokenizer) -> None:
    family = tokenizer.family
    declared = read_json(tokenizer.folder / "tokenizer.json")
    model, cut = declared.get("model") or {}, declared.get("pre_tokenizer") or {}
    differs = []
    if declared.get("normalizer"):
        differs.append("a normalizer")
    if not family.cuts_like({"pre_tokenizer": cut}):
        differs.append(f"the pre_tokenizer {cut.get('type')}")
    if model.get("type") != "BPE":
        differs.append(f"a model of type {model.get('type')}")
    differs += [key for key in _BPE_SWITCHES if model.get(key)]
    differs += [
        f"{switch} of {token.content}"
        for token in tokenizer.backend.get_added_tokens_decoder().values()
        for switch in ("lstrip", "rstrip", "single_word")
        if getattr(token, switch)
    ]
    if differs:
        raise CheckpointError(
            f"tokenizer.json of {tokenizer.name} splits text differently from "
            f"{family.gguf_pre_tokenizer}, the pre-tokenizer that llama.cpp has for "
            f"{family.line}: {', '.join(differs)}.",
            "If a re-save with transformers 5 damaged it, restore the original file: "
            "axtune doctor detects it, and --repair fixes it.",
        )


def matrix_dtypes(planned: CheckpointPlan) -> set[str]:
    """The dtypes of a checkpoint's matrices, by their names."""
    return {
        dtype_name(piece.dtype)
        for pieces in planned.shards.values()
        for piece in pieces
        if len(piece.shape) > 1
    }


def _dtype(planned: CheckpointPlan) -> Numbers:
    """The one dtype of the checkpoint's matrices."""
    found = matrix_dtypes(planned)
    match sorted(found):
        case ["bfloat16" | "float16" | "float32" as only]:
            return only
    raise AxtuneError(
        f"The matrices of {planned.base.name} are {' and '.join(sorted(found))}, and a GGUF file "
        "needs one dtype.",
        f"Choose it: --dtype {', '.join(_FILE_TYPES)}.",
    )


def tensor_names(config: Mapping[str, Any]) -> TensorNameMap:
    """What llama.cpp calls the tensors of a model.

    Args:
        config: Of `complete_config`.
    """
    import gguf

    architectures = {name: key for key, name in gguf.MODEL_ARCH_NAMES.items()}
    architecture = architectures[LAYOUTS[config["model_type"]].gguf_architecture]
    return gguf.get_tensor_name_map(architecture, config["num_hidden_layers"])


def _pieces(planned: CheckpointPlan, config: dict[str, Any], kind: Numbers) -> list[OutputTensor]:
    """The checkpoint's tensors as the file has them, by its names."""
    layout = LAYOUTS[config["model_type"]]
    names = tensor_names(config)
    packed = _q8_0() if kind == "q8_0" else None
    dtype = torch.float32 if packed else getattr(torch, kind)
    found = []
    for piece in (piece for pieces in planned.shards.values() for piece in pieces):
        module = piece.name.rpartition(".")[0]
        if piece.name.endswith(".rotary_emb.inv_freq"):
            continue  # of old checkpoints; computed from rope_theta
        name = names.get_name(piece.name, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise CheckpointError(
                f"{planned.base.name} has {piece.name}, which llama.cpp has no place for.",
                "Serve it with vLLM: --to vllm.",
            )
        if len(piece.shape) < 2:
            new = dataclasses.replace(piece, name=name, dtype=torch.float32)
        elif packed and piece.shape[-1] % packed.count:
            raise CheckpointError(
                f"{piece.name} has rows of {piece.shape[-1]}, which q8_0 cannot pack: it takes "
                f"{packed.count} at a time.",
                "Use another --dtype.",
            )
        else:
            new = dataclasses.replace(piece, name=name, dtype=dtype, packed=packed)
        if module.endswith(layout.gguf_rotated):
            new = dataclasses.replace(new, head_rows=_head_rows(config))
        found.append(new)
    return found


def _q8_0() -> BlockFormat:
    import gguf

    kind = gguf.GGMLQuantizationType.Q8_0
    count, nbytes = gguf.GGML_QUANT_SIZES[kind]

    def pack(rows: torch.Tensor) -> torch.Tensor:
        # A block of numbers below 1e-36 has an infinite reciprocal, and a scale that rounds to 0.
        with np.errstate(all="ignore"):
            return torch.from_numpy(gguf.quants.quantize(rows.numpy(), kind))

    # A block's scale is a float16, its numbers are within 127 of that.
    return BlockFormat("q8_0", count, nbytes, 127 * torch.finfo(torch.float16).max, pack)


def _add_model(
    writer: GGUFWriter, planned: CheckpointPlan, config: dict[str, Any], name: str
) -> None:
    import gguf

    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(name)
    writer.add_size_label(gguf.size_label(*writer.get_total_parameter_count()))
    if licence := _licence(planned.base.folder):
        writer.add_license(licence)
    if planned.base.commit:  # a path of this machine is nobody else's business
        owner, _, model = planned.base.name.partition("/")
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, model)
        writer.add_base_model_organization(0, owner)
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{planned.base.name}")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(_head_rows(config))
    writer.add_value_length(_head_rows(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    rope = config["rope_parameters"]
    writer.add_rope_dimension_count(_head_rows(config))
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "yarn":
        before = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope["factor"])
        writer.add_rope_scaling_orig_ctx_len(before)


def _licence(folder: Path) -> str | None:
    """What the model's card says; None when it says nothing, or nobody can read it."""
    import gguf

    try:
        found = gguf.Metadata.load_model_card(folder).get("license")
    except Exception:  # gguf leaves what its YAML reader raises as it is
        return None
    return found if isinstance(found, str) else None


def _add_vocabulary(writer: GGUFWriter, tokenizer: AxTokenizer, size: int) -> None:
    """Tokens, merges, special tokens and template.

    Args:
        writer: Where to.
        tokenizer: The checkpoint's.
        size: Rows of the embeddings; those without a token are padding.
    """
    import gguf

    tokens = [f"[PAD{index}]" for index in range(size)]
    types = [gguf.TokenType.UNUSED] * size
    for text, index in tokenizer.backend.get_vocab(with_added_tokens=False).items():
        tokens[index], types[index] = text, gguf.TokenType.NORMAL
    for index, token in tokenizer.backend.get_added_tokens_decoder().items():
        tokens[index] = token.content
        # Both are cut out of a prompt whole; only the latter are shown in an answer.
        control, shown = gguf.TokenType.CONTROL, gguf.TokenType.USER_DEFINED
        types[index] = control if token.special else shown
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer.family.gguf_pre_tokenizer)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    special = gguf.SpecialVocab(tokenizer.folder, True, ("bos", "unk", "sep", "mask"), size)
    end = tokenizer.end_of_turn_id
    special.special_token_ids |= {"eos": end, "eot": end, "pad": tokenizer.pad_id}
    special.add_special_token = {"bos": False, "eos": False}  # prompts are the template's alone
    special.chat_template = tokenizer.chat_template
    special.add_to_gguf(writer, quiet=True)
