"""Files of rows as tests write them, and what is read of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from axtune.data.readers import read_rows

ROW = '{"messages": [{"role": "user", "content": "안녕"}]}'
LIMIT = 16_000_000


def read(folder: Path, name: str, data: bytes | str, limit: int = LIMIT) -> list[tuple[int, Any]]:
    """Each row's line with its value, or with the code of its fault after an exclamation mark."""
    path = folder / name
    path.write_bytes(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
    out = []
    for row in read_rows(path, max_line_bytes=limit):
        assert row.file == str(path)
        if row.fault:
            assert (row.fault.file, row.fault.severity) == (str(path), "error")
            assert "안녕" not in row.fault.message
        out.append((row.line, f"!{row.fault.code}" if row.fault else row.value))
    return out


GOOD = json.loads(ROW)
