"""A Modelfile: what Ollama needs to serve a GGUF file in the checkpoint's native format.

Ollama 0.30 and later run llama-server and render with the template in the GGUF file, the
checkpoint's own. Older ones know only a TEMPLATE in Go's language; they are told so by REQUIRES
(https://docs.ollama.com/modelfile).
"""

from __future__ import annotations

import json

from axtune.checkpoint.tokenizer import AxTokenizer


def modelfile(tokenizer: AxTokenizer, file: str) -> str:
    """The text of a Modelfile.

    Args:
        tokenizer: The checkpoint's.
        file: Name of the GGUF file, beside the Modelfile.
    """
    stop = json.dumps(tokenizer.end_of_turn)
    return f"""FROM ./{file}
REQUIRES 0.30.0
PARAMETER stop {stop}
PARAMETER num_ctx {tokenizer.context}
PARAMETER repeat_penalty 1
"""
