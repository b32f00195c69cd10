"""Shell text as tests see it: commands one by one, the lines of a transcript, and what they say to ``hearth``."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace

BETWEEN_COMMANDS = frozenset({"|", "||", "&&", ";", "&", "(", ")", "{", "}", "|&", ";;"})
LEADING_WORDS = frozenset({"do", "then", "else", "if", "while", "until", "!", "sudo", "exec", "time", "nohup"})
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
REDIRECTION = re.compile(r"[<>]+&?|&>+")
HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1([^\n]*)\n.*?\n\2$", re.DOTALL | re.MULTILINE)
SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One whole command, and what it is shown to print; None where nothing is said of that."""

    command: str
    shows: str | None = None


def steps_of_script(text: str) -> list[Step]:
    """Cut a script into its commands.

    Raises:
        SyntaxError: bash does not read it.
    """
    steps, begun = [], ""
    for line in text.splitlines():
        begun += line + "\n"
        if _is_whole(begun):
            if not all(not each.strip() or each.lstrip().startswith("#") for each in begun.splitlines()):
                steps.append(Step(command=begun))
            begun = ""
    if begun.strip():
        raise SyntaxError(f"bash does not read: {begun}")
    return steps


def steps_of_transcript(text: str) -> list[Step]:
    """Cut a transcript into commands after ``$ ``, going on after ``> ``, and what each printed.

    Where no command shows any output nothing is said of it.

    Raises:
        SyntaxError: it begins with output, or bash does not read a command.
    """
    steps: list[Step] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(command=line[2:] + "\n", shows=""))
        elif not steps:
            raise SyntaxError(f"a transcript begins with '$ ', not with: {line}")
        elif line.startswith("> ") and not steps[-1].shows and not _is_whole(steps[-1].command):
            steps[-1] = replace(steps[-1], command=steps[-1].command + line[2:] + "\n")
        else:
            steps[-1] = replace(steps[-1], shows=f"{steps[-1].shows}{line}\n")
    for step in steps:
        steps_of_script(step.command)
    return steps if any(step.shows for step in steps) else [replace(step, shows=None) for step in steps]


def hearth_lines(command: str) -> Iterator[list[str]]:
    """Give the words after each ``hearth`` that a command runs, those of ``$(hearth …)`` included."""
    for inner in SUBSTITUTION.findall(command):
        yield from hearth_lines(inner)
    text = HERE_DOCUMENT.sub(r"\3\n", SUBSTITUTION.sub("SUBSTITUTED", command)).replace("\\\n", " ")
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    simple: list[str] = []
    for word in [*lexer, ";"]:
        if word in BETWEEN_COMMANDS or set(word) <= set(";&|()\n"):
            yield from _hearth_words(simple)
            simple = []
        else:
            simple.append(word)


def _hearth_words(simple: list[str]) -> Iterator[list[str]]:
    words = _without_redirections(simple)
    while words and (words[0] in LEADING_WORDS or ASSIGNMENT.fullmatch(words[0])):
        words = words[1:]
    if words and words[0].rpartition("/")[2] == "hearth":
        yield words[1:]


def _without_redirections(words: list[str]) -> list[str]:
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif REDIRECTION.fullmatch(word):
            skip = True
            if kept and kept[-1] in ("1", "2"):
                kept.pop()
        else:
            kept.append(word)
    return kept


def _is_whole(text: str) -> bool:
    """Tell whether bash takes this for whole commands: no quote, loop, here-document or continued line is open."""
    if text.rstrip("\n").endswith("\\"):
        return False
    seen = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, timeout=30, check=False)
    return seen.returncode == 0 and not seen.stderr
