"""Fills the command-line reference: `<!-- options: NAME -->` becomes the table of that class."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from omni_avsr import settings
from omni_avsr.settings import Settings

PLACE = re.compile(r"<!-- options: (\w+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page with its tables of options."""
    return PLACE.sub(lambda place: options_table(getattr(settings, place[1])), markdown)


def options_table(kind: type[Settings]) -> str:
    """The options of a command as a Markdown table."""
    rows = ["| option | default | meaning |", "|---|---|---|"]
    for own in fields(kind):
        help_text, _, said = own.metadata["help"].partition("  [default: ")
        default = said.removesuffix("]") or shown(own.default)
        rows.append(f"| {flag(own.name, own.default)} | {cell(default)} | {cell(help_text)} |")
    return "\n".join(rows)


def flag(name: str, default: Any) -> str:
    """The option as it is typed; a switch that is on by default is shown with its negation."""
    dashed = name.removesuffix("_").replace("_", "-")
    return f"`--no-{dashed}`" if default is True else f"`--{dashed}`"


def shown(default: Any) -> str:
    """A default value as it would be typed."""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return f"`{','.join(shown(item).strip('`') for item in default)}`"
    if isinstance(default, float):
        return f"`{default:g}`"
    if isinstance(default, str | int | Path):
        return f"`{default}`"
    return "none"


def cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return text.replace("|", "\\|")
