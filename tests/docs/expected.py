"""Whether a command printed what a document shows: ``...`` stands for anything, runs of blanks count as one."""

from __future__ import annotations

import re

ANYTHING = "..."


def difference(shown: str, printed: str) -> str | None:
    """Tell how what was printed differs from what is shown, None where it does not.

    A line that is ``...`` alone stands for any number of lines, ``...`` within a line for any text.
    """
    pattern = "".join(_line_pattern(line) for line in _lines(shown))
    if re.fullmatch(pattern, "".join(line + "\n" for line in _lines(printed))):
        return None
    return f"shown:\n{_indented(shown)}\nprinted:\n{_indented(printed)}"


def _line_pattern(line: str) -> str:
    if line == ANYTHING:
        return r"(?:.*\n)*?"
    return ".*?".join(map(re.escape, line.split(ANYTHING))) + r"\n"


def _lines(text: str) -> list[str]:
    lines = [" ".join(line.split()) for line in text.splitlines()]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _indented(text: str) -> str:
    return "\n".join(f"  | {line}" for line in text.splitlines()) or "  (nothing)"
