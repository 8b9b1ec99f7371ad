from __future__ import annotations

import pytest
from support.documents import xlsx

from axtune.documents.document import Refused
from axtune.documents.xlsx import read_xlsx


def text(value: str) -> str:
    return f't="inlineStr"><is><t>{value}</t></is></c>'


def test_sheets_values_dates_and_merged_cells() -> None:
    two = "여러\n줄"
    rates = (
        f'<sheetData><row r="1"><c r="B1" {text("요금제")}<c r="C1" {text("값")}'
        f'<c r="D1" {text("비고")}</row>'
        f'<row r="2"><c r="B2" {text("라이트")}<c r="C2"><v>33000</v></c>'
        f'<c r="D2" {text(two)}</row>'
        '<row r="3"><c r="C3"><f>C2*0.1</f><v>3300.5</v></c><c r="D3" s="1"><v>46204</v></c></row>'
        '<row r="4"><c r="C4" t="b"><v>1</v></c><c r="D4" s="2"><v>46204.5</v></c></row>'
        '</sheetData><mergeCells><mergeCell ref="B2:B4"/></mergeCells>'
    )
    data = xlsx({"요금표": rates, "빈 표": "<sheetData/>", "숨김": rates}, hidden=["숨김"])
    content = read_xlsx(data)
    assert content.lines == [
        "",
        "요금표",
        "요금제 | 값 | 비고",
        "라이트 | 33000 | 여러 줄",
        "라이트 | 3300.5 | 2026-07-01",
        "라이트 | TRUE | 2026-07-01 12:00",
    ]
    assert (content.pages, content.lost) == (2, {"hidden-sheets": 1})


def test_a_damaged_workbook_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        read_xlsx(xlsx({"a": "<sheetData/>"})[:200])
    assert refused.value.code == "broken"
