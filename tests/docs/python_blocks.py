"""Runs a page's Python blocks one after the other in one namespace: ``python_blocks.py REQUESTS ANSWERS``, two FIFOs.

A request is the path of the output, where the block stands, and its text, each ended by NUL; an answer is a status
and a line feed. This program imports nothing of the tests: its interpreter is the reader's.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any


def main(requests_path: str, answers_path: str) -> None:
    """Serve until the requests end."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with open(requests_path, encoding="utf-8") as requests, open(answers_path, "w", encoding="utf-8") as answers:
        for output, where, text in _read(requests):
            status = _run(namespace, output, where, text)
            answers.write(f"{status}\n")
            answers.flush()


def _run(namespace: dict[str, Any], output: str, where: str, text: str) -> int:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        exec(compile(text, where, "exec", dont_inherit=True), namespace)
    except BaseException:  # noqa: BLE001 - whatever ends a block is what the test reports
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


def _read(requests: Any) -> Any:
    """Give requests as they come."""
    parts: list[str] = []
    begun = ""
    while character := requests.read(1):
        if character != "\0":
            begun += character
            continue
        parts.append(begun)
        begun = ""
        if len(parts) == 3:
            yield parts
            parts = []


if __name__ == "__main__":
    main(*sys.argv[1:3])
