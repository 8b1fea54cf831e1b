"""What the sentences of a world are made of.

A rule is a list of entries, or a string of words if every entry is one word. {name} in an entry
stands for any entry of the rule of that name.
"""

Rules = dict[str, str | list[str]]
Repairs = list[tuple[str, str]]  # patterns and what replaces them, in order


def entries(rules: Rules, name: str) -> list[str]:
    """Returns the entries of a rule."""
    found = rules[name]
    return found.split() if isinstance(found, str) else found


def ending(words: str, old: str, new: str) -> str:
    """Returns the words with another ending, those that have the old one."""
    changed = []
    for word in words.split():
        changed.append(word.removesuffix(old) + new if word.endswith(old) else word)
    return " ".join(changed)
