"""Makes the blocking half of the SDK of the asynchronous one: ``python -m tests.sdk.twins``, or ``make twins``.

The two differ in little but ``async`` and ``await``, so only one of them is written by hand, examples included.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SDK = Path(__file__).parents[2] / "src" / "hearth" / "sdk"
MADE = (
    "client",
    "core",
    "keeping",
    "commands",
    "events",
    "files",
    "images",
    "provisioning",
    "running",
    "sandbox",
    "secrets",
    "session",
    "sessions",
    "stats",
    "templates",
    "users",
    "volumes",
    "websocket",
)
"""Modules whose text is made of that of ``async_`` and their name."""
WORDS = (
    (r"\basync (with|for|def)\b", r"\1"),
    (r"Async(?=[A-Z])", ""),
    (r"async_(?=\w)", ""),
    (r"asynccontextmanager", "contextmanager"),
    (r"__a(enter|exit|iter|next)__", r"__\1__"),
    (r"\.aclose\(", ".close("),
    (r"\bimport asyncio\b", "import time"),
    (r"\basyncio\.sleep\b", "time.sleep"),
    (r"\basynchronous\b", "blocking"),
    (r"\basyncio shell\b", "blocking shell"),
)
PAIRS = {"(": ")", "[": "]"}


def blocking(text: str, name: str) -> str:
    """Give the blocking twin of an asynchronous module's text, formatted."""
    text = _without("Awaitable[", _without_awaits(text))
    for pattern, replacement in WORDS:
        text = re.sub(pattern, replacement, text)
    text = f"# Made of async_{name}.py by 'make twins': change that.\n" + text
    for words in (["check", "--fix-only", "--unsafe-fixes", "--select", "F401,I,SIM117,UP028"], ["format"]):
        command = [sys.executable, "-m", "ruff", *words, "--quiet", "--stdin-filename", str(SDK / f"{name}.py"), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


def written() -> dict[str, str]:
    """Give the text of every module that is made, by the module's name."""
    return {name: blocking((SDK / f"async_{name}.py").read_text(), name) for name in MADE}


def _without_awaits(text: str) -> str:
    """Take each ``await`` away, and the parentheses that were there for its sake."""
    while (found := re.search(r"\(await (?=\S)", text)) is not None:
        inner = found.end()
        end = _closing(text, found.start())
        kept = text[inner:end]
        is_alone = text[end + 1 : end + 2] in (".", "[") and not re.search(r"[\w\])]$", text[: found.start()])
        middle = kept if is_alone else f"({kept})"
        text = text[: found.start()] + middle + text[end + 1 :]
    return re.sub(r"\bawait (?=\S)", "", text)


def _without(opening: str, text: str) -> str:
    while (start := text.find(opening)) >= 0:
        end = _closing(text, start + len(opening) - 1)
        text = text[:start] + text[start + len(opening) : end] + text[end + 1 :]
    return text


def _closing(text: str, start: int) -> int:
    """Give where the bracket that opens at ``start`` closes."""
    opens, closes, depth = text[start], PAIRS[text[start]], 0
    for place in range(start, len(text)):
        depth += (text[place] == opens) - (text[place] == closes)
        if depth == 0:
            return place
    raise ValueError("a bracket is not closed")


if __name__ == "__main__":
    for module, content in written().items():
        (SDK / f"{module}.py").write_text(content)
