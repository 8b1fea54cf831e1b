"""The words and rules of the toy corpus's sentences, in each language.

OPEN has the rules of the open world. REPAIRS are patterns and what replaces them in a sentence, and
REPAIRED has the words that come from them.
"""

from omni_avsr.toy.grammar import en, es, fr, it, ru
from omni_avsr.toy.grammar.rules import Repairs, Rules, entries

__all__ = ["GRID", "OPEN", "REPAIRED", "REPAIRS", "Repairs", "Rules", "entries"]

_LANGUAGES = {"en": en, "es": es, "fr": fr, "it": it, "ru": ru}

GRID = en.GRID
OPEN = {name: language.RULES for name, language in _LANGUAGES.items()}
REPAIRS = {name: language.REPAIRS for name, language in _LANGUAGES.items()}
REPAIRED = {name: language.REPAIRED for name, language in _LANGUAGES.items()}
