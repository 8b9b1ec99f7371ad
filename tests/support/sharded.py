"""`accelerate launch … -m support.sharded RECIPE`: axtune as it is, with FSDP on a CPU too."""

from __future__ import annotations

import sys

from axtune.cli import main
from support.processes import fsdp_on_cpu

if __name__ == "__main__":
    fsdp_on_cpu()
    main(["train", *sys.argv[1:]])
