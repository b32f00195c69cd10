"""The two pages of reference that are made, not written: of the parsers, and of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from website.parsers import Command, every_command

from hearth.api.openapi import openapi_document

COMMANDS_HEAD = """# Every command and option

What each command takes, made of the same declarations that read the command line. What the commands are for is told in
[the command line](../cli.md).
"""
CALLS_HEAD = """# Every call of the HTTP API

Each call with its parameters, its body and its answers, made of the same table as the server's routes. How to
authenticate, what errors look like and how lists go on is told in [the HTTP API](../api.md). A running daemon gives the
whole as OpenAPI 3.1 at `/openapi.json`.
"""


def commands_page() -> str:
    """Give the reference of the command line as Markdown."""
    return "\n".join([COMMANDS_HEAD, *(_command(each) for each in every_command())])


def calls_page() -> str:
    """Give the reference of the HTTP API as Markdown."""
    document = openapi_document()
    by_tag: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            if isinstance(call, dict) and "responses" in call:
                tag = call.get("tags", ["other"])[0]
                by_tag.setdefault(tag, []).append(_call(method, path, call))
    schemas = document["components"]["schemas"]
    parts = [CALLS_HEAD]
    for tag, calls in by_tag.items():
        parts += [f"## {tag.replace('-', ' ').capitalize()}\n", *calls]
    parts += ["## Schemas\n", *(_schema(name, schema) for name, schema in sorted(schemas.items()))]
    return "\n".join(parts)


def _command(command: Command) -> str:
    level = "##" if command.words.count(" ") == 1 else "###"
    lines = [f"{level} {command.words}", "", f"{_sentence(command.help)}", "", "```text", command.usage, "```", ""]
    if command.options:
        lines += ["| takes | which |", "| --- | --- |"]
        lines += [f"| `{_cell(option.spelled)}` | {_cell(option.help)} |" for option in command.options]
        lines.append("")
    return "\n".join(lines)


def _call(method: str, path: str, call: Mapping[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`", "", _sentence(call.get("summary", "")), ""]
    lines += [call["description"], ""] if "description" in call else []
    rows = [
        (f"`{one['name']}`", one["in"], _type(one.get("schema", {})), one.get("description", ""))
        for one in call.get("parameters", ())
        if one.get("in") in ("query", "header")
    ]
    lines += _table(("parameter", "in", "type", ""), rows)
    if body := call.get("requestBody", {}).get("content"):
        lines += ["Body: " + ", ".join(f"{_type(of.get('schema', {}))} as `{kind}`" for kind, of in body.items()), ""]
    answers = [(status, _answer(answer)) for status, answer in call["responses"].items()]
    good = [(f"`{status}`", text) for status, text in answers if status < "400"]
    lines += _table(("status", "answer"), good)
    bad = [f"`{status}` {text}".rstrip() for status, text in answers if status >= "400"]
    lines += [f"Errors, each a [Problem](#problem): {'; '.join(bad)}.", ""] if bad else []
    return "\n".join(lines)


def _answer(answer: Mapping[str, Any]) -> str:
    kinds = [
        kind for of in answer.get("content", {}).values() if "Problem" not in (kind := _type(of.get("schema", {})))
    ]
    return ": ".join(filter(None, (answer.get("description", ""), ", ".join(dict.fromkeys(filter(None, kinds))))))


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    lines = [f"### {name}", ""]
    lines += [schema["description"], ""] if "description" in schema else []
    required = set(schema.get("required", ()))
    rows = [
        (f"`{key}`", "yes" if key in required else "", _type(of), of.get("description", ""))
        for key, of in schema.get("properties", {}).items()
    ]
    lines += _table(("field", "required", "type", ""), rows)
    if "enum" in schema:
        lines += ["One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".", ""]
    return "\n".join(lines)


def _type(schema: Mapping[str, Any]) -> str:
    """Say a schema in a few words; a named one is a link to where it stands on this page."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(filter(None, map(_type, options)))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = schema.get("type", "")
    if kind == "array":
        return f"list of {_type(schema.get('items', {})) or 'values'}"
    if kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_type(schema['additionalProperties'])}"
    return " or ".join(kind) if isinstance(kind, list) else str(kind)


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    filled = [[_cell(cell) for cell in row] for row in rows]
    if not filled:
        return []
    heads = list(columns)
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in filled), ""]


def _cell(text: str) -> str:
    """Make text fit into a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""
