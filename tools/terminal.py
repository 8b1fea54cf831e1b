"""The terminal that the tools print to."""

from rich.console import Console

console = Console(soft_wrap=True, markup=False, highlight=False)
