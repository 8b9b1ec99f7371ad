from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axtune.documents.document import Refused
from axtune.documents.html import read_html

FRAME = """<html lang="ko"><head><meta charset="utf-8"><title>공지 | 가상물산</title>
<style>p {{}}</style><script>track("비밀")</script></head><body>
<div id="gnb"><ul><li><a href="/1">홈</a></li><li><a href="/2">게시판</a></li></ul></div>
{}
<div class="related-posts"><h3>함께 본 글</h3><a href="/3">로밍 할인</a></div>
<div id="footer">주소 | Copyright 2026</div></body></html>"""
FRAMING = ("홈", "게시판", "함께 본 글", "로밍 할인", "Copyright", "track")


def lines(html: str, encoding: str = "utf-8") -> list[str]:
    return read_html(html.encode(encoding)).lines


@pytest.mark.parametrize("holder", ["<main>{}</main>", '<div id="wrap"><div>{}</div></div>'])
def test_the_article_without_what_frames_it(holder: str) -> None:
    article = (
        "<h1>장애 안내</h1>"
        "<p>7월 12일 새벽에 <b>접속</b>이\n 원활하지 않았습니다. 사과드립니다.</p>"
        "<ul><li>배포를 나눕니다.</li><li>둘이 점검합니다.</li></ul><p>10월까지 바꾸겠습니다.</p>"
    )
    found = lines(FRAME.format(holder.format(article)))
    assert found == [
        "장애 안내",
        "7월 12일 새벽에 접속이 원활하지 않았습니다. 사과드립니다.",
        "- 배포를 나눕니다.",
        "- 둘이 점검합니다.",
        "10월까지 바꾸겠습니다.",
    ]
    assert not [word for word in FRAMING if word in "\n".join(found)]


def test_tables_with_merged_cells_keep_their_rows() -> None:
    table = (
        "<table><caption>비용</caption><tr><th rowspan=2>구분</th><th colspan=2>비용</th></tr>"
        "<tr><th>본인</th><th>배우자</th></tr><tbody>"
        "<tr><td rowspan=2>선택</td><td>위<br>내시경</td>"
        "<td>8만원</td></tr><tr><td>대장</td><td>12만원</td></tr></tbody></table>"
    )
    assert lines(f"<html><body><p>건강검진 안내입니다.</p>{table}</body></html>") == [
        "건강검진 안내입니다.",
        "비용",
        "구분 | 비용",
        "구분 | 본인 | 배우자",
        "선택 | 위 내시경 | 8만원",
        "선택 | 대장 | 12만원",
    ]


def test_numbers_of_lists_line_breaks_and_code_stay() -> None:
    html = (
        "<html><body><p>첫 줄<br>둘째 줄</p><ol start=3><li>정규직<ul><li>사무직</li></ul></li>"
        "<li>계약직</li></ol><pre>if a &lt; b:\n    go()</pre><p hidden>숨김</p>"
        "<div style='display: none'>숨김</div></body></html>"
    )
    assert lines(html) == [
        "첫 줄",
        "둘째 줄",
        "3. 정규직",
        "- 사무직",
        "4. 계약직",
        "if a < b:\n    go()",
    ]


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [
        ('<meta charset="euc-kr">', "cp949"),
        ('<meta http-equiv=Content-Type content="text/html; charset=ks_c_5601-1987">', "cp949"),
        ("", "cp949"),
        ('<meta charset="euc-kr">', "utf-8"),  # it says so and is not
        ('<?xml version="1.0" encoding="utf-8"?>', "utf-8"),
        ("", "utf-8-sig"),
        ("", "utf-16"),
    ],
)
def test_encodings_declared_rightly_wrongly_and_not_at_all(declared: str, encoding: str) -> None:
    body = "<html><head>{}</head><body><p>뷁쀍 똠방각하 공지입니다.</p></body></html>"
    html = declared + body.format("") if declared.startswith("<?") else body.format(declared)
    assert lines(html, encoding) == ["뷁쀍 똠방각하 공지입니다."]


def test_a_page_that_is_broken_in_a_place_is_read_with_a_mark_there() -> None:
    data = "<html><meta charset=utf-8><body><p>가나다</p><p>라</p></body></html>".encode()
    assert "\ufffd" in "".join(read_html(data.replace("라".encode(), b"\xff\xfe\xb0")).lines)


@given(st.text(st.sampled_from("<>/ptdrabl= '\"가나&;\n-!"), max_size=80))
def test_any_markup_is_read_or_refused(html: str) -> None:
    with suppress(Refused):
        lines(html)
