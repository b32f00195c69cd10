"""Documents as tests see them: their fenced blocks in order, with what the comments before each block say of it.

<!-- runs on: machines -->     of a page, on its first lines: a daemon with real machines; else the local engine
<!-- runs on: golden images -->  the local engine, and golden images in object storage
<!-- serve: --option value --> of a page: more words for its daemon
<!-- not run: reason -->       this block cannot be run by a test
<!-- before: command -->       what has to be done before this block, and is not shown
<!-- exits: 3 -->              the last command of this block ends with this status
<!-- serves -->                this block starts a daemon, which serves until the next such block
<!-- output -->                this block is what the block before it prints
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
RUN = ("bash", "console", "python")
"""Languages of blocks that are commands."""
SHOWN = ("text", "json", "yaml", "toml", "ini", "http", "nginx", "css", "sql", "dockerfile")
"""Languages of blocks that are only looked at."""
FENCE = re.compile(r"^( *)(```+)\s*([\w-]*)\s*$")
COMMENT = re.compile(r"^ *<!-- (.*?) -->$")
NOTE = re.compile(r"(not run|before|exits|serves|output)(?:: (.*))?")
LOCAL, MACHINES, GOLDEN = "local engine", "machines", "golden images"


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block.

    Args:
        line: of its fence, from 1 on.
        not_run: why no test can run it.
        exits: the status its last command ends with.
        serves: its one command becomes a daemon.
        unread: comments before it that say nothing we know.
        shows: what it is said to print, from an output block after it.
    """

    page: str
    line: int
    language: str
    text: str
    not_run: str | None = None
    before: tuple[str, ...] = ()
    exits: int = 0
    serves: bool = False
    is_output: bool = False
    unread: tuple[str, ...] = ()
    shows: str | None = None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Page:
    """One document with its blocks, outputs joined to what prints them.

    Args:
        serve: more words for its daemon.
        prose: its lines outside of blocks.
    """

    path: str
    runs_on: str = LOCAL
    serve: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    prose: str = ""

    @property
    def commands(self) -> tuple[Block, ...]:
        """The blocks that are commands, whether or not a test runs them."""
        return tuple(block for block in self.blocks if block.language in RUN)

    @property
    def is_run(self) -> bool:
        return any(block.not_run is None for block in self.commands)


@dataclass
class _Reading:
    """What was read so far; ``unread`` are comments right before the next line that say nothing we know."""

    unread: list[str] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    notes: dict[str, list[str]] = field(default_factory=dict)


def every_page() -> list[Page]:
    """Read the documents at the top of the repository and all below docs/."""
    paths = sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md"))
    return [read_page(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))) for path in paths]


def read_page(text: str, path: str) -> Page:
    """Read one document."""
    said = dict(re.findall(r"(?m)^<!-- (runs on|serve): (.*?) -->$", text))
    return Page(
        path=path,
        runs_on=said.get("runs on", LOCAL),
        serve=tuple(said.get("serve", "").split()),
        blocks=_join_outputs(_blocks(text.splitlines(), path)),
        prose=_prose(text.splitlines()),
    )


def _blocks(lines: list[str], path: str) -> list[Block]:
    reading = _Reading()
    number = 0
    while number < len(lines):
        line = lines[number]
        if fence := FENCE.match(line):
            end = next((i for i in range(number + 1, len(lines)) if lines[i].strip() == fence[2]), len(lines))
            inside = [each.removeprefix(fence[1]) for each in lines[number + 1 : end]]
            reading.blocks.append(_block(path, number + 1, fence[3], "\n".join(inside), reading))
            reading.notes, reading.unread = {}, []
            number = end
        elif (comment := COMMENT.match(line)) and (note := NOTE.fullmatch(comment[1])):
            reading.notes.setdefault(note[1], []).append(note[2] or "")
        elif comment:
            reading.unread.append(comment[1])
        elif line.strip():
            reading.notes, reading.unread = {}, []
        number += 1
    return reading.blocks


def _prose(lines: list[str]) -> str:
    kept, inside = [], False
    for line in lines:
        if FENCE.match(line):
            inside = not inside
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _block(path: str, line: int, language: str, text: str, reading: _Reading) -> Block:
    notes = reading.notes
    return Block(
        page=path,
        line=line,
        language=language,
        text=text,
        not_run=notes["not run"][0] if "not run" in notes else None,
        before=tuple(notes.get("before", ())),
        exits=int(notes.get("exits", ["0"])[0]),
        serves="serves" in notes,
        is_output="output" in notes,
        unread=tuple(reading.unread),
    )


def _join_outputs(blocks: list[Block]) -> tuple[Block, ...]:
    joined: list[Block] = []
    for block in blocks:
        if block.is_output and joined:
            joined[-1] = Block(**{**vars(joined[-1]), "shows": block.text})
        else:
            joined.append(block)
    return tuple(joined)
