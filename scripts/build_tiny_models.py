#!/usr/bin/env python3
"""Build the two embedded models: tiny stand-ins for A.X 4.0 Light and A.X 3.1 Light.

They share the real checkpoints' layout and traps (file names, configuration keys, the 41 added
tokens at their real ids, the native chat format, `eos_token_id` 0 in config.json against 27 in
generation_config.json) at about three million parameters, and are trained from scratch on the
synthetic text of `tiny_corpus.py`. The same seeds on the same machine give the same files.

    python scripts/build_tiny_models.py --out axtune/embedded
    python scripts/build_tiny_models.py --out axtune/embedded --only tiny-ax-3.1 --steps 300

Formats: the Hugging Face folder as transformers 4 writes it (the real checkpoints were saved by
4.51.3), because transformers 5 would rewrite its tokenizer and configuration on saving. So every
JSON file is written here by hand.
"""

import argparse
import itertools
import json
import math
import random
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_corpus import TRAINING_MIX, Conversation, corpus
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

TEMPLATE = Path(__file__).with_name("tiny_chat_template.jinja")
VOCAB_SIZE = 3072
# Longer documents are left out: of the first part of training, which teaches a model to copy and
# learns that soonest from short documents, and of the rest.
SHORT, LONG = 320, 1024
TOKENIZER_DOCUMENTS = 20_000
# TRAIN_SEED is the first of a row: every --seed takes two, one for each part of training.
TOKENIZER_SEED, HELD_OUT_SEED, TRAIN_SEED = 1, 2, 3

# Ids 0 to 40 of both real checkpoints, in order.
ADDED_TOKENS = (
    *("<|endoftext|>", "<|pad|>", "<|unk|>", "<|sep|>", "<|mask|>", "<|cls|>"),
    *("<|image|>", "<|audio|>", "<|user|>", "<|system|>", "<|assistant|>"),
    *(f"<|extra_id_{number}|>" for number in range(11)),
    *("</think>", "<think>", "<|extra_id_13|>", "<|im_start|>", "<|im_sep|>", "<|im_end|>"),
    *("<|resident_reg|>", "<|foreigner_reg|>", "<|business_reg|>", "<|credit_card|>"),
    *("<|passport|>", "<|driver_license|>", "<|telephone|>", "<|health_insurance|>"),
    *("<|bank_account|>", "</tool_output>", "<tool_output>", "</tool_call>", "<tool_call>"),
)
# Text to a reader of the output, so not special: skip_special_tokens keeps them.
VISIBLE = {"</think>", "<think>", "</tool_output>", "<tool_output>", "</tool_call>", "<tool_call>"}
NAMED = {
    "bos_token": "<|endoftext|>",
    "cls_token": "<|cls|>",
    "eos_token": "<|im_end|>",
    "mask_token": "<|mask|>",
    "pad_token": "<|pad|>",
    "sep_token": "<|sep|>",
    "unk_token": "<|unk|>",
}
PLAIN = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
END_OF_TEXT, ASSISTANT, END_OF_TURN = 0, 10, 27

# eos_token_id 0 is the real checkpoints' own mistake, kept: generation_config.json corrects it.
SHARED_CONFIG = {
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 192,
    "initializer_range": 0.02,
    "intermediate_size": 512,
    "num_attention_heads": 3,
    "num_hidden_layers": 4,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.51.3",
    "use_cache": False,
    "vocab_size": VOCAB_SIZE,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "tiny-ax-4.0": SHARED_CONFIG
    | {
        "architectures": ["Qwen2ForCausalLM"],
        "max_position_embeddings": 16384,
        "max_window_layers": 4,
        "model_type": "qwen2",
        "num_key_value_heads": 1,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
    },
    "tiny-ax-3.1": SHARED_CONFIG
    | {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "max_position_embeddings": 32768,
        "mlp_bias": False,
        "model_type": "llama",
        "num_key_value_heads": 3,
        "rope_theta": 500000,
    },
}
# The real 4.0 Light allows 16,384 new tokens; a model this small that misses its end of turn
# should not run for that long.
GENERATION_CONFIG = {
    "bos_token_id": 0,
    "eos_token_id": 27,
    "max_new_tokens": 1024,
    "pad_token_id": 1,
    "transformers_version": "4.51.3",
}


def chat_template() -> str:
    """The template's source, as tokenizer_config.json carries it."""
    return TEMPLATE.read_text(encoding="utf-8").removesuffix("\n")


def render(templater: PreTrainedTokenizerFast, conversation: Conversation) -> str:
    """A conversation as training text: the native format, whole."""
    if "text" in conversation:
        return conversation["text"] + ADDED_TOKENS[END_OF_TEXT]
    return templater.apply_chat_template(
        conversation["messages"], tools=conversation.get("tools"), tokenize=False
    )


def build_tokenizer() -> dict[str, Any]:
    """Train the byte-level BPE and return its tokenizer.json.

    The vocabulary starts like the real one: the 41 added tokens, then the 256 byte letters.
    """
    templater = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), chat_template=chat_template()
    )
    added = re.compile("|".join(map(re.escape, ADDED_TOKENS)))
    documents = itertools.islice(corpus(TOKENIZER_SEED), TOKENIZER_DOCUMENTS)
    # The trainer knows nothing of added tokens: cut them out, or it would learn their letters.
    pieces = (added.split(render(templater, document)) for document in documents)

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(ADDED_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(itertools.chain.from_iterable(pieces), trainer)
    model = json.loads(tokenizer.to_str())["model"]
    model |= {"continuing_subword_prefix": "", "end_of_word_suffix": ""}
    if len(model["vocab"]) != VOCAB_SIZE:
        raise ValueError(f"the corpus gives {len(model['vocab'])} tokens, not {VOCAB_SIZE}")
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": content, **PLAIN, "special": content not in VISIBLE}
            for index, content in enumerate(ADDED_TOKENS)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level | {"add_prefix_space": False, "trim_offsets": True},
        "post_processor": byte_level | {"trim_offsets": False},
        "decoder": byte_level | {"trim_offsets": True},
        "model": model,
    }


def tokenizer_config(model_max_length: int) -> dict[str, Any]:
    """tokenizer_config.json with the keys of the real one."""
    specials = [token for token in ADDED_TOKENS if token not in VISIBLE]
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(index): {"content": content, **PLAIN, "special": content not in VISIBLE}
            for index, content in enumerate(ADDED_TOKENS)
        },
        "additional_special_tokens": specials,
        "chat_template": chat_template(),
        "clean_up_tokenization_spaces": True,
        "eod_token": NAMED["bos_token"],
        "errors": "replace",
        "model_max_length": model_max_length,
        "tokenizer_class": "GPT2Tokenizer",
        "vocab_size": VOCAB_SIZE,
    }
    return dict(sorted((config | NAMED).items()))


def special_tokens_map() -> dict[str, Any]:
    """special_tokens_map.json with the keys of the real one."""
    specials = [token for token in ADDED_TOKENS if token not in VISIBLE]
    named = {role: {"content": content, **PLAIN} for role, content in NAMED.items()}
    return {"additional_special_tokens": specials, **named}


def assistant_weights(ids: list[int], context: float) -> list[float]:
    """Loss weights: 1 for what an assistant writes, its end of turn included, else `context`.

    Users' turns are drawn at random, so most of their loss cannot be learned away.
    """
    weights, inside = [], ASSISTANT not in ids  # prose has no turns: all of it counts
    for token in ids:
        weights.append(1.0 if inside else context)
        inside = (inside and token != END_OF_TURN) or token == ASSISTANT
    return weights


Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Batches:
    """Token batches without end, from conversations grouped by length.

    No document is cut or joined to another: a model meets each from position 0, as it is served.

    Attributes:
        tokenizer: encodes the rendered text and holds the template.
        tokens: padded tokens in a batch, at most.
        context: the loss weight of tokens that no assistant wrote.
        longest: the most tokens of a document; longer ones are left out.
    """

    tokenizer: PreTrainedTokenizerFast
    tokens: int
    context: float
    longest: int = LONG

    def draw(self, seed: int) -> Iterator[Batch]:
        """Yield ids and loss weights, each of shape (documents, longest document)."""
        rng = random.Random(seed)
        documents = corpus(seed, TRAINING_MIX)
        while True:
            texts = [render(self.tokenizer, one) for one in itertools.islice(documents, 1024)]
            encoded = self.tokenizer.backend_tokenizer.encode_batch_fast(texts)
            rows = sorted((one.ids for one in encoded if len(one.ids) <= self.longest), key=len)
            groups: list[list[list[int]]] = [[]]
            for row in rows:
                if (len(groups[-1]) + 1) * len(row) > self.tokens:
                    groups.append([])
                groups[-1].append(row)
            rng.shuffle(groups)
            yield from map(self.pad, groups)

    def pad(self, rows: list[list[int]]) -> Batch:
        """Pad on the right, with weight 0: causal attention never looks there."""
        width = max(map(len, rows))
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        weights = torch.zeros(len(rows), width)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            weights[index, : len(row)] = torch.tensor(assistant_weights(row, self.context))
        return ids, weights


def losses(model: torch.nn.Module, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted sum of next-token losses and the sum of the weights, shape (2,)."""
    logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    each = functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none")
    weight = weights[:, 1:].flatten()
    return torch.stack(((each * weight).sum(), weight.sum()))


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, batches: Batches, count: int = 24) -> float:
    """Mean next-token loss, in nats, over unseen batches."""
    model.eval()
    sums = [losses(model, *batch) for batch in itertools.islice(batches.draw(HELD_OUT_SEED), count)]
    model.train()
    total = torch.stack(sums).sum(0)
    return float(total[0] / total[1])


def split_optimizers(model: torch.nn.Module, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices; AdamW for embeddings, output and norms, which Muon is not for.

    With AdamW alone, 200 steps on short documents end at a held-out loss of 2.5, with this at 1.1.
    """
    inner = {
        name for name, weight in model.named_parameters() if ".layers." in name and weight.ndim == 2
    }
    matrices = [weight for name, weight in model.named_parameters() if name in inner]
    others = [weight for name, weight in model.named_parameters() if name not in inner]
    return [
        torch.optim.Muon(matrices, lr=lr, momentum=0.95, weight_decay=0.05, ns_steps=4),
        torch.optim.AdamW(others, lr=lr / 5, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]


def train(name: str, tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace) -> Any:
    """Train one model from scratch in float32 and return it."""
    torch.manual_seed(args.seed)
    config = AutoConfig.for_model(**CONFIGS[name])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    optimizers = split_optimizers(model, args.lr)
    warmup = min(50, args.steps // 5)

    def rate(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (args.steps - warmup)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(each, rate) for each in optimizers]
    first = Batches(tokenizer, args.batch_tokens, context=0.1, longest=SHORT)
    rest = Batches(tokenizer, args.batch_tokens, context=0.1)
    seed = TRAIN_SEED + 2 * args.seed
    batches = itertools.chain(
        itertools.islice(first.draw(seed), args.steps * 2 // 5), rest.draw(seed + 1)
    )
    compute = torch.compile(losses, dynamic=True) if args.compile else losses
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{name}: {parameters:,} parameters, {args.steps} steps", flush=True)
    start, seen = time.monotonic(), 0
    for step, (ids, weights) in enumerate(itertools.islice(batches, args.steps), 1):
        total, weight = compute(model, ids, weights)
        loss = total / weight
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        seen += ids.numel()
        if step % 50 == 0 or step == args.steps:
            seconds = time.monotonic() - start
            print(
                f"  step {step:5d}  loss {loss:.4f}  {seen:,} tokens  {seconds:.0f} s", flush=True
            )
    every = held_out_loss(model, Batches(tokenizer, args.batch_tokens, context=1.0))
    answers = held_out_loss(model, Batches(tokenizer, args.batch_tokens, context=0.0))
    print(
        f"  held out: {every:.4f} over all tokens, {answers:.4f} over assistants' tokens",
        flush=True,
    )
    return model


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON as transformers does: two spaces, Korean as it is."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_tokenizer(folder: Path, name: str, tokenizer: dict[str, Any]) -> None:
    """Write the three tokenizer files."""
    length = CONFIGS[name]["max_position_embeddings"]
    write_json(folder / "tokenizer.json", tokenizer)
    write_json(folder / "tokenizer_config.json", tokenizer_config(length))
    write_json(folder / "special_tokens_map.json", special_tokens_map())


def build(name: str, tokenizer: dict[str, Any], args: argparse.Namespace) -> None:
    """Train one model and put its folder in place, whole or not at all."""
    staging = args.out / f".{name}.part"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    write_tokenizer(staging, name, tokenizer)
    write_json(staging / "config.json", dict(sorted(CONFIGS[name].items())))
    write_json(staging / "generation_config.json", GENERATION_CONFIG)
    # Straight from tokenizer.json: AutoTokenizer would replace the pre-tokenizer of qwen2 models.
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(staging / "tokenizer.json"), chat_template=chat_template()
    )
    model = train(name, fast, args)
    weights = {key: value.to(torch.bfloat16) for key, value in model.state_dict().items()}
    save_file(weights, staging / "model.safetensors", metadata={"format": "pt"})
    (staging / "model.safetensors").chmod(0o644)  # safetensors keeps it to its owner

    final, old = args.out / name, args.out / f".{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    staging.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    print(f"  wrote {final}", flush=True)


def main() -> None:
    """Read the command line and build what it names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to hold the model folders")
    parser.add_argument("--only", choices=CONFIGS, help="build one of the two")
    parser.add_argument("--steps", type=int, default=1200, help="optimizer steps for each model")
    parser.add_argument("--batch-tokens", type=int, default=3072, help="tokens in a batch")
    parser.add_argument("--lr", type=float, default=0.02, help="Muon's peak learning rate")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and the batches")
    parser.add_argument(
        "--compile", action="store_true", help="torch.compile: needs a C++ compiler"
    )
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    tokenizer = build_tokenizer()
    for name in [args.only] if args.only else CONFIGS:
        build(name, tokenizer, args)


if __name__ == "__main__":
    main()
