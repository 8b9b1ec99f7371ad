"""HTML: the article, without navigation, banners and feet.

trafilatura finds where the article is; its text is written here, because trafilatura's own output
loses lists and merged cells and breaks the lines of short pages.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any

from axtune.documents.blocks import Block, Table, lines_of
from axtune.documents.document import Content, Refused, missing_package
from axtune.documents.plain import decoded

_DECLARED = re.compile(rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?([\w-]+)""", re.I)
# What browsers read as CP949, which holds EUC-KR.
_KOREAN = ("euc-kr", "euckr", "ks_c_5601-1987", "ksc5601", "ks_c_5601", "windows-949", "ms949")

_UNSHOWN = frozenset(
    (
        "script", "style", "noscript", "template", "head", "svg", "math", "iframe",
        "object", "embed", "button", "input", "select", "textarea", "datalist", "canvas",
        "audio", "video", "rt", "rp",
    )
)  # fmt: skip
_FURNITURE = frozenset(("nav", "footer", "aside", "menu", "dialog"))
_FURNITURE_ROLES = frozenset(
    (
        "navigation", "banner", "contentinfo", "complementary", "search", "dialog",
        "menu", "menubar",
    )
)  # fmt: skip
# Words of class and id names; gnb, lnb, snb and fnb are how Korean sites name their menus.
_FURNITURE_NAMES = frozenset(
    (
        "nav", "navi", "navbar", "navigation", "gnb", "lnb", "snb", "fnb", "tnb", "menu",
        "sitemap", "sidebar", "aside", "footer", "copyright", "breadcrumb", "breadcrumbs",
        "skip", "skipnav", "cookie", "cookies", "consent", "banner", "ad", "ads",
        "advert", "advertisement", "popup", "modal", "share", "social", "sns", "related",
        "recommend", "recommended", "popular", "pagination", "paging", "pager",
        "prevnext", "login", "search", "newsletter", "subscribe", "quickmenu", "toolbar",
        "promo", "sponsor",
    )
)  # fmt: skip
# Whole class and id names of the frame, where no heading stands in the element.
_FRAME_NAMES = frozenset(
    (
        "header", "head", "hd", "top", "foot", "ft", "bottom", "util", "utility", "location",
        "quick", "logo", "satisfaction", "btns", "btn-area", "btn_area", "prev-next", "prev_next",
    )
)  # fmt: skip
_BLOCKS = frozenset(
    (
        "p", "div", "section", "article", "main", "header", "h1", "h2", "h3", "h4", "h5",
        "h6", "ul", "ol", "li", "dl", "dt", "dd", "blockquote", "figure", "figcaption",
        "address", "details", "summary", "fieldset", "legend", "form", "hr", "body",
        "center", "caption", "hgroup", *_FURNITURE, "table", "thead", "tbody", "tfoot",
        "tr", "td", "th", "pre", "option", "html",
    )
)  # fmt: skip
_NAME_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
# Letters of every hundred that stand in links: more, and it is a list of ways to other pages.
_LINKED_SHARE = 60
_WIDEST_TABLE = 1000


def read_html(data: bytes) -> Content:
    """The article of a page.

    Raises:
        Refused: When nothing of it can be parsed.
    """
    try:
        import lxml.html
        import trafilatura
    except ImportError as error:
        raise missing_package(error) from None

    text = _decoded(data)
    # A declared encoding stands for the bytes, and lxml refuses it in text.
    text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text)
    parser = lxml.html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True)
    try:
        page = lxml.html.document_fromstring(text, parser=parser)
    except (lxml.etree.LxmlError, ValueError):
        raise Refused("empty", "There is no text in it.") from None
    title = " ".join((page.findtext(".//title") or "").split())
    article = _article(page)
    if article is None:
        _drop_furniture(page)
        found = trafilatura.extract(lxml.html.tostring(page, encoding="unicode"), fast=True)
        article = _around(page, found or "")
    return Content(list(lines_of(_blocks(article))), title)


def _decoded(data: bytes) -> str:
    """Text by the byte order mark, the declared encoding, or what it proves to be.

    A page that is broken in a place is read with replacement characters, which are counted.
    """
    found = _DECLARED.search(data[:4096])
    name = found[1].decode("ascii").lower() if found else "utf-8"
    encoding = "cp949" if name in _KOREAN else name
    with_mark = data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return decoded(data) if with_mark else data.decode(encoding)
    except (UnicodeDecodeError, LookupError):
        pass
    try:
        return decoded(data)
    except Refused:
        return data.decode(encoding if found and _is_codec(encoding) else "utf-8", "replace")


def _is_codec(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def _article(page: Any) -> Any:
    """The one element that the page itself calls its article; None when it calls none so."""
    for path in (".//article", ".//main", ".//*[@role='main']"):
        found = [one for one in page.iterfind(path) if _length(one)]
        outermost = [one for one in found if not any(a in found for a in one.iterancestors())]
        if len(outermost) == 1:
            # A single short article may be a teaser beside the text.
            if _length(outermost[0]) * 2 >= _length(page.find(".//main")):
                return _without_inner_furniture(outermost[0])
        elif outermost and path != ".//article":
            break
    return None


def _without_inner_furniture(article: Any) -> Any:
    for element in list(article.iter(*_FURNITURE)):
        _drop(element)
    for element in list(article.iter("div", "ul", "section")):
        if _is_named_so(element) and not _is_most_of(element, article):
            _drop(element)
    return article


def _drop_furniture(page: Any) -> None:
    """Remove what frames a page: by element, role, name, and by being links for the most part."""
    body = page.find(".//body")
    page = page if body is None else body
    for element in list(page.iter()):
        if not isinstance(element.tag, str) or element is page or element.getparent() is None:
            continue
        framing = (
            element.tag in _FURNITURE
            or (element.get("role") or "") in _FURNITURE_ROLES
            or _is_named_so(element)
            or (element.tag == "header" and element.find(".//h1") is None)
            or _is_links(element)
        )
        if framing and element.find(".//h1") is None and not _is_most_of(element, page):
            _drop(element)


def _is_named_so(element: Any) -> bool:
    names = f"{element.get('class') or ''} {element.get('id') or ''}"
    if any(word.lower() in _FURNITURE_NAMES for word in _NAME_WORD.findall(names)):
        return True
    framing = not _FRAME_NAMES.isdisjoint(names.lower().split())
    return framing and not any(True for _ in element.iter("h1", "h2", "h3"))


def _is_links(element: Any) -> bool:
    if element.tag not in ("ul", "ol", "div", "dl", "section", "table", "p"):
        return False
    links = [link for link in element.iter("a") if link.get("href") is not None]
    linked = sum(map(_length, links))
    return len(links) > 1 and linked * 100 > _length(element) * _LINKED_SHARE


def _is_most_of(element: Any, page: Any) -> bool:
    return _length(element) * 2 > _length(page)


def _length(element: Any) -> int:
    """Letters that are shown in an element."""
    if element is None:
        return 0
    shown = element.xpath(".//text()[not(ancestor::script or ancestor::style)]")
    return len("".join("".join(shown).split()))


def _drop(element: Any) -> None:
    if element.getparent() is not None:
        element.drop_tree()


def _around(page: Any, found: str) -> Any:
    """The smallest element that holds all paragraphs that trafilatura found, and half of the page.

    It finds where the article is, not all of it: lists and tables are often missing.
    """
    body = page.find(".//body")
    body = page if body is None else body
    wanted = {"".join(line.split()) for line in found.splitlines()} - {""}
    holders = []
    for element in body.iter():
        own = "".join((element.text or "").split()) if isinstance(element.tag, str) else ""
        tails = ["".join((child.tail or "").split()) for child in element]
        if any(text in wanted for text in (own, *tails) if len(text) > 1):
            holders.append([element, *element.iterancestors()])
    if not holders:
        return body
    common = set(holders[0]).intersection(*holders[1:])
    return next(e for e in holders[0] if e in common and (e is body or _is_most_of(e, body)))


def _blocks(element: Any) -> Iterator[Block]:
    """The paragraphs, list items and tables below an element."""
    if element.tag in ("table", "pre"):
        yield _table(element) if element.tag == "table" else element.text_content().strip("\n")
        return
    pieces: list[str] = [element.text or ""]
    for child, block in _inner(element):
        if block:
            yield from _paragraphs(pieces)
            pieces = []
            inner = list(_blocks(child))
            if child.tag == "li" and inner and isinstance(inner[0], str):
                inner[0] = f"{_mark(child)} {inner[0]}"
            yield from inner
        else:
            pieces.append(child)
    yield from _paragraphs(pieces)


def _inner(element: Any) -> Iterator[tuple[Any, bool]]:
    """What stands in an element behind its first text: blocks, and pieces of text."""
    for child in element:
        if isinstance(child.tag, str) and not _is_unshown(child):
            if child.tag == "br":
                yield "\n", False
            elif child.tag in _BLOCKS:
                yield child, True
            else:
                yield _flat(child.text), False
                yield from _inner(child)
        yield _flat(child.tail), False


def _is_unshown(element: Any) -> bool:
    style = "".join((element.get("style") or "").lower().split())
    return (
        element.tag in _UNSHOWN
        or element.get("hidden") is not None
        or "display:none" in style
        or "visibility:hidden" in style
    )


def _flat(text: str | None) -> str:
    """Text as a browser shows it: line ends of the file are spaces."""
    return re.sub(r"\s+", " ", text or "")


def _paragraphs(pieces: list[str]) -> Iterator[str]:
    if pieces:
        pieces[0] = _flat(pieces[0]) if pieces[0] != "\n" else "\n"
    for line in "".join(pieces).split("\n"):
        if text := " ".join(line.split()):
            yield text


def _mark(item: Any) -> str:
    """``-``, or the number of an item in an ordered list."""
    ordered = item.getparent()
    if ordered is None or ordered.tag != "ol":
        return "-"
    before = sum(1 for one in item.itersiblings("li", preceding=True))
    start = ordered.get("start") or ""
    return f"{(int(start) if start.isdecimal() else 1) + before}."


def _table(table: Any) -> Table:
    """Cells merged downwards stand in each row, those merged across once."""
    rows: list[list[list[Block]]] = []
    caption = table.find("caption")
    if caption is not None:
        rows.append([list(_blocks(caption))])
    covered: dict[tuple[int, int], list[Block] | None] = {}  # by merged cells; None says nothing
    found = list(_rows(table))
    for index, row in enumerate(found):
        cells: list[list[Block]] = []
        column = 0
        for cell in [*row.iterchildren("td", "th"), None]:
            while (index, column) in covered:
                content = covered.pop((index, column))
                if content is not None:
                    cells.append(content)
                column += 1
            if cell is None:
                break
            content = [] if _is_unshown(cell) else list(_blocks(cell))
            cells.append(content)
            width = _span(cell, "colspan")
            for below in range(index + 1, min(index + _span(cell, "rowspan"), len(found))):
                covered[below, column] = content
                covered.update({(below, column + other): None for other in range(1, width)})
            column += width
        rows.append(cells)
    return Table(rows)


def _rows(table: Any) -> Iterator[Any]:
    for child in table:
        if child.tag == "tr":
            yield child
        elif child.tag in ("thead", "tbody", "tfoot"):
            yield from child.iterchildren("tr")


def _span(cell: Any, name: str) -> int:
    value = (cell.get(name) or "").strip()
    return min(max(int(value), 1), _WIDEST_TABLE) if value.isdecimal() else 1
