from __future__ import annotations

import io

import pptx
import pytest
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches
from support.documents import package

from axtune.documents.document import Refused
from axtune.documents.pptx import read_pptx


def test_slides_in_reading_order_with_groups_tables_charts_and_notes() -> None:
    show = pptx.Presentation()
    show.core_properties.title = "정보보호"
    slide = show.slides.add_slide(show.slide_layouts[5])
    low = slide.shapes.add_textbox(Inches(1), Inches(5), Inches(3), Inches(1))
    low.text_frame.text = "아래 글"
    right = slide.shapes.add_textbox(Inches(5), Inches(2.05), Inches(3), Inches(1))
    right.text_frame.text = "오른쪽 글"
    left = slide.shapes.add_textbox(Inches(1), Inches(2.1), Inches(3), Inches(1))
    left.text_frame.text = "왼쪽 글"
    group = slide.shapes.add_group_shape()
    for index, text in enumerate(("묶음 하나", "묶음 둘")):
        box = group.shapes.add_textbox(Inches(1), Inches(3 + index / 2), Inches(3), Inches(0.4))
        box.text_frame.text = text
    slide.shapes.title.text = "1. 목적"
    slide.notes_slide.notes_text_frame.text = "발표자 메모"
    second = show.slides.add_slide(show.slide_layouts[6])
    table = second.shapes.add_table(3, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for row, cells in zip(table.rows, [("등급", ""), ("극비", "금지"), ("", "승인")], strict=True):
        for cell, text in zip(row.cells, cells, strict=True):
            cell.text = text
    table.cell(0, 0).merge(table.cell(0, 1))
    table.cell(1, 0).merge(table.cell(2, 0))
    figures = CategoryChartData()
    figures.categories = ["1월", "2월"]
    figures.add_series("매출", (10, 12.5))
    place = (Inches(1), Inches(4), Inches(4), Inches(3))
    second.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *place, figures)
    file = io.BytesIO()
    show.save(file)
    content = read_pptx(file.getvalue())
    assert (content.title, content.pages) == ("정보보호", 2)
    assert [line for line in content.lines if line] == [
        "1. 목적",
        "왼쪽 글",
        "오른쪽 글",
        "묶음 하나",
        "묶음 둘",
        "아래 글",
        "발표자 메모",
        "등급",
        "극비 | 금지",
        "극비 | 승인",
        " | 매출",
        "1월 | 10",
        "2월 | 12.5",
    ]


def test_a_damaged_presentation_is_refused() -> None:
    with pytest.raises(Refused) as refused:
        read_pptx(package({"ppt/presentation.xml": "<p"}))
    assert refused.value.code == "broken"
