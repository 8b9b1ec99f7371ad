"""Well-known cards: how much memory a run finds on them, and how fast they are on paper.

Memory and bandwidth are the vendor's data sheets'. Speed is the dense bf16 tensor rate with float32
accumulation (fp16 on the T4, which has no bf16): of GeForce and RTX A-series cards from NVIDIA's
architecture papers (GA102, AD102, GB202), of data-centre cards from their data sheets, where the
rate with sparsity is halved.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, replace

from axtune.errors import AxtuneError

GIB = 1 << 30

# What a run does not get of a card's nominal memory. ECC and the driver keep up to 4% (an L4 shows
# 23,034 of 24,576 MiB, a T4 15,109 of 16,384, a GeForce a percent or two).
_SHOWN = 0.96
# The CUDA context with cuBLAS, its workspaces, and the kernels of torch and bitsandbytes: 0.4 to
# 0.7 GB on cards since Turing.
_CONTEXT = 600_000_000
# Blocks that the caching allocator holds and cannot use: assumed.
_FRAGMENTS = 0.03
# What Windows keeps of a card for itself and its screen, and a run under WSL2 cannot have: of 8 GB
# a run gets 6.9.
_WINDOWS = 520_000_000


@dataclass(frozen=True)
class Card:
    """A graphics card.

    Attributes:
        name: Such as RTX 3060, or its memory where that is all that is known.
        gigabytes: Its memory, nominal, in units of 2^30 bytes.
        teraflops: Dense tensor rate in 16 bit, in 10^12 operations a second; 0 when not known.
        bandwidth: Of its memory, in 10^9 bytes a second; 0 when not known.
        bf16: Whether it computes in bf16.
        wsl: Whether Windows has it and lends it to WSL2.
    """

    name: str
    gigabytes: float
    teraflops: float = 0.0
    bandwidth: float = 0.0
    bf16: bool = True
    wsl: bool = False

    @property
    def usable(self) -> float:
        """Bytes that a run can fill: an assumption, which the constants above spell out."""
        return usable(self.gigabytes * GIB * _SHOWN) - (_WINDOWS if self.wsl else 0)


def usable(total: float) -> float:
    """Bytes that a run can fill of those that a card reports as its own.

    Args:
        total: As ``torch.cuda.mem_get_info`` gives it.
    """
    return max(0.0, (total - _CONTEXT) * (1 - _FRAGMENTS))


CARDS = (
    Card("RTX 3060 12GB", 12, 25.5, 360),
    Card("RTX 3060 Ti", 8, 32.4, 448),
    Card("RTX 3070", 8, 40.6, 448),
    Card("RTX 3080", 10, 59.5, 760),
    Card("RTX 3080 12GB", 12, 61.3, 912),
    Card("RTX 3090", 24, 71, 936),
    Card("RTX 4060", 8, 30.2, 272),
    Card("RTX 4060 Ti 8GB", 8, 44.1, 288),
    Card("RTX 4060 Ti 16GB", 16, 44.1, 288),
    Card("RTX 4070", 12, 58.3, 504),
    Card("RTX 4070 Ti", 12, 80.2, 504),
    Card("RTX 4070 Ti SUPER", 16, 88.2, 672),
    Card("RTX 4080", 16, 97.5, 717),
    Card("RTX 4090", 24, 165.2, 1008),
    Card("RTX 5060 Ti 16GB", 16, 47.4, 448),
    Card("RTX 5070", 12, 61.7, 672),
    Card("RTX 5070 Ti", 16, 87.9, 896),
    Card("RTX 5080", 16, 112.6, 960),
    Card("RTX 5090", 32, 209.5, 1792),
    Card("RTX A4000", 16, 76.7, 448),
    Card("RTX A5000", 24, 111.1, 768),
    Card("RTX A6000", 48, 154.8, 768),
    Card("T4", 16, 65, 320, bf16=False),
    Card("A10", 24, 125, 600),
    Card("L4", 24, 121, 300),
    Card("L40S", 48, 362, 864),
    Card("A100 40GB", 40, 312, 1555),
    Card("A100 80GB", 80, 312, 2039),
    Card("H100", 80, 989, 3350),
)

# The sizes that a plan always speaks of, in GB.
SIZES = (8, 12, 16, 24, 48, 80)


def find_card(text: str) -> Card:
    """The card that a person means.

    Args:
        text: A name, with or without maker, series and size (``RTX 3060 12GB``, ``geforce 4090``,
            ``a100-80gb``), or a size alone (``12GB``); with ``WSL2`` behind it, what Windows lends.

    Raises:
        AxtuneError: When there is no such card, with the nearest one.
    """
    if wsl := re.fullmatch(r"(.*\S)[\s,]*WSL2?\s*", text, re.IGNORECASE):
        card = find_card(wsl[1].rstrip(","))
        return replace(card, name=f"{card.name} WSL2", wsl=True)
    if size := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:gb?|gib)\s*", text, re.IGNORECASE):
        if not 1 <= float(size[1]) <= 1024:
            raise AxtuneError(
                f"--gpu {text}: expected 1 to 1024 GB.", "Give a size such as --gpu 12GB."
            )
        return Card(f"{size[1]}GB", float(size[1]))
    wanted = _key(text)
    by_key: dict[str, Card] = {}
    for card in CARDS:
        bare = re.sub(r" \d+GB$", "", card.name)
        for name in (card.name, bare, f"{bare} {card.gigabytes:g}GB"):
            by_key.setdefault(_key(name), card)
    if wanted in by_key:
        return by_key[wanted]
    close = difflib.get_close_matches(wanted, by_key, n=1, cutoff=0.4)
    hint = f"; did you mean {by_key[close[0]].name}?" if close else "."
    names = ", ".join(card.name for card in CARDS)
    raise AxtuneError(
        f"--gpu {text}: there is no known card of this name{hint}",
        f"Known: {names}. Or give a size: --gpu 12GB.",
    )


def _key(name: str) -> str:
    """A name without what people leave out or write differently."""
    short = re.sub(r"nvidia|geforce|quadro|rtx|gtx|tesla|sxm\d*|pcie", "", name.lower())
    return re.sub(r"[^a-z0-9]", "", short)
