"""llama.cpp's quantiser, run as a program: it may abort, and then only this process ends.

It stands alone: `axtune.export.k_quants` starts it by its path and reads what llama.cpp logs from
its standard error. It ends with whoever holds the other end of its standard input.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading

import llama_cpp
from safetensors.numpy import load_file

# Of a tensor at once, in float32: by itself llama.cpp takes the largest tensor whole.
_BUFFER_BYTES = 1 << 28


def main(source: str, target: str, kind: str, threads: str, matrix: str) -> int:
    """Quantise a GGUF file.

    Args:
        source: In 16 or 32 bit.
        target: The file to write.
        kind: The name of llama.cpp's file type, such as ``Q4_K_M``.
        threads: How many compute.
        matrix: A safetensors file, importance of each input of each tensor by its name; empty for
            none.

    Returns:
        What llama.cpp returns: 0 where all went well.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = llama_cpp.llama_log_callback(_log)
    llama_cpp.llama_log_set(log, ctypes.c_void_p())
    how = llama_cpp.llama_model_quantize_default_params()
    how.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    how.nthread = int(threads)
    how.max_buf_size = _BUFFER_BYTES
    importance = load_file(matrix) if matrix else {}
    if importance:
        # Ends with an entry without a name.
        entries = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()
        for entry, (name, values) in zip(entries, importance.items(), strict=False):
            entry.name = name.encode()
            entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            entry.size = values.size
        how.imatrix = entries
    failed: int = llama_cpp.llama_model_quantize(
        os.fsencode(source), os.fsencode(target), ctypes.byref(how)
    )
    return failed


def _log(level: int, text: bytes, data: object) -> None:
    sys.stderr.buffer.write(text)
    sys.stderr.buffer.flush()


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever sent
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
