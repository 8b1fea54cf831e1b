"""HTML pages that open offline: `page.html` beside this file, filled, and tables for its body."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from string import Template

from omni_avsr.files import write_text
from omni_avsr.tasks import VERSION

TEMPLATE = Path(__file__).with_name("page.html")


def write_page(path: Path, title: str, body: str) -> None:
    """Writes a page; the title is plain text, the body is HTML."""
    template = Template(TEMPLATE.read_text(encoding="utf-8"))
    write_text(path, template.substitute(title=escape(title), body=body, version=VERSION))


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts that scrolls sideways where the page is narrow."""
    lines = "".join(_row("td", row) for row in rows)
    return wide_table(_row("th", head), lines)


def wide_table(head: str, body: str) -> str:
    """A table of HTML rows that scrolls sideways where the page is narrow."""
    table = f"<table><thead>{head}</thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _row(tag: str, texts: Sequence[str]) -> str:
    cells = [f"<{tag}>{escape(text)}</{tag}>" for text in texts]
    return f"<tr>{''.join(cells)}</tr>"
