"""Damaged and random data files: every row is read or is a fault; nothing else is raised."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.strategies import json_values

from axtune.data.readers import read_rows

CASES = int(os.environ.get("AXTUNE_FUZZ_CASES", "100"))
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".jsonl.gz", ".json.zst")


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(json_values, max_size=4),
    st.sampled_from(SUFFIXES),
    st.sampled_from(["lines", "list", "packed", "bytes"]),
    st.binary(max_size=12),
    st.integers(0, 200),
)
def test_any_file_is_rows_or_faults(
    tmp_path_factory: pytest.TempPathFactory,
    values: list[object],
    suffix: str,
    form: str,
    junk: bytes,
    at: int,
) -> None:
    lines = "\n".join(json.dumps(value) for value in values)
    text = (json.dumps(values) if form == "list" else lines).encode()
    data = junk if form == "bytes" else gzip.compress(text) if form == "packed" else text
    path: Path = tmp_path_factory.getbasetemp() / f"fuzzed{suffix}"
    path.write_bytes(data[:at] + junk + data[at:])
    for row in read_rows(path, max_line_bytes=10_000):
        assert row.fault is None or row.fault.message
