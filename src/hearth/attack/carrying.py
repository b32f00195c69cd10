"""Brings the prober into a guest: its sources are a command's input, and nothing of it touches the guest's disk."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from importlib.resources import files
from typing import Any

from hearth.attack.model import Outcome, Probe
from hearth.sdk.async_client import AsyncClient

PACKAGES = ("hearth", "hearth.attack", "hearth.attack.guest")
MODULES = ("report", "packets", "calls", "shots", "channel", "floods", "witness", "work")
LOADER = """
import importlib.abc, importlib.util, json, sys
given = json.load(sys.stdin)
sources = given["sources"]
class Carried(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def find_spec(self, name, path=None, target=None):
        return importlib.util.spec_from_loader(name, self) if name in sources else None
    def get_source(self, name):
        return sources[name]
    def is_package(self, name):
        return any(other.startswith(name + ".") for other in sources)
sys.meta_path.insert(0, Carried())
from hearth.attack.guest.work import work
work(given["plan"])
"""
COMMAND = ("python3", "-I", "-B", "-c", LOADER)
LONGEST_LINE_BYTES = 65_536
MOST_BYTES = 4 << 20
"""Of what one prober may say: it is the guest's."""
MOST_PORTS = 2000


def sources() -> dict[str, str]:
    """Give the prober's modules by their names."""
    directory = files("hearth.attack.guest")
    modules = {f"{PACKAGES[-1]}.{name}": (directory / f"{name}.py").read_text() for name in MODULES}
    return {**dict.fromkeys(PACKAGES, ""), **modules}


def given(run: str, probes: Iterable[Probe], seconds: int) -> bytes:
    """Write the prober's input."""
    steps = [{"id": each.id, "do": each.do, "how": dict(each.how)} for each in probes]
    plan = {"run": run, "seconds": seconds, "probes": steps}
    return json.dumps({"sources": sources(), "plan": plan}).encode()


async def said(client: AsyncClient, ref: str, stdin: bytes, seconds: int) -> AsyncIterator[dict[str, Any]]:
    """Run the prober in a sandbox and give what it says, a dictionary a line; what is none is passed over.

    Raises:
        HearthError: the sandbox, or its Python, cannot be used.
    """
    rest, total = b"", 0
    async with client.stream(ref, list(COMMAND), user="root", stdin=stdin, timeout_sec=float(seconds)) as running:
        async for output in running:
            total += len(output.data)
            if total > MOST_BYTES:
                return
            if output.stream == "stdout":
                *lines, rest = (rest + output.data).split(b"\n")
                for line in filter(None, map(read_line, lines)):
                    yield line
                rest = rest[:LONGEST_LINE_BYTES]


def read_line(line: bytes) -> dict[str, Any] | None:
    """Read one line of the prober's; None for what is no object."""
    try:
        found = json.loads(line[:LONGEST_LINE_BYTES])
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_outcome(line: dict[str, Any]) -> tuple[str, Outcome] | None:
    """Read what was said of a probe; None where a line tells of none, or is not of that form."""
    probe, word = line.get("probe"), line.get("outcome")
    if not isinstance(probe, str) or not isinstance(word, str):
        return None
    ports, sent = line.get("open", []), line.get("sent", 0)
    is_list = isinstance(ports, list) and len(ports) <= MOST_PORTS and all(type(each) is int for each in ports)
    return probe, Outcome(
        word=printable(word)[:40],
        detail=printable(str(line.get("detail", "")))[:200],
        ports=tuple(ports) if is_list else (),
        sent=sent if type(sent) is int else 0,
    )


def printable(text: str) -> str:
    """Give a guest's text without what a terminal would obey."""
    return "".join(each if each.isprintable() else "?" for each in text)
