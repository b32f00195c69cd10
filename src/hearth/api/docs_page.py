"""The OpenAPI document as one page of HTML for people: no script, nothing from anywhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}
code,pre{font:14px/1.4 ui-monospace,monospace}pre{overflow:auto;padding:.5rem;border:1px solid #8884;border-radius:4px}
h2{margin-top:2.5rem;border-bottom:1px solid #8886}details{margin:.4rem 0}summary{cursor:pointer}
summary b{display:inline-block;min-width:4.5rem}table{border-collapse:collapse}td{padding:.15rem .8rem .15rem 0;
vertical-align:top}
"""
METHODS = ("get", "put", "post", "patch", "delete", "options", "head")


def docs_page(document: Mapping[str, Any]) -> str:
    """Give the page: all operations by resource, with what each takes, answers and an example."""
    info = document["info"]
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>",
        f"<title>{_text(info['title'])} API</title><style>{STYLE}</style>",
        f"<h1>{_text(info['title'])} {_text(info['version'])}</h1><p>{_text(info['description'])}</p>",
        "<p>The same for machines: <a href='/openapi.json'>/openapi.json</a>.</p>",
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{_text(tag['name'])}</h2>")
        parts += [
            _operation(document, method, path, described)
            for method, path, described in _operations(document)
            if described["tags"][0] == tag["name"]
        ]
    return "\n".join(parts)


def _operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method in methods:
                yield method, path, methods[method]


def _operation(document: Mapping[str, Any], method: str, path: str, described: Mapping[str, Any]) -> str:
    rows = [_row(_resolve(document, each)) for each in described.get("parameters", ())]
    body = described.get("requestBody", {}).get("content", {}).get("application/json")
    parts = [
        f"<details id='{_text(described['operationId'])}'><summary><b>{method.upper()}</b> <code>{_text(path)}</code> ",
        f"{_text(described['summary'])}</summary>",
        f"<p>{_text(described['description'])}</p>" if "description" in described else "",
        f"<table>{''.join(rows)}</table>" if rows else "",
    ]
    if body is not None:
        parts.append(f"<p>Takes:</p>{_example(document, body)}")
    for status, answer in described["responses"].items():
        parts.append(f"<p><code>{status}</code> {_text(answer['description'])}</p>")
        content = answer.get("content", {}).get("application/json")
        if content is not None and status.startswith("2"):
            parts.append(_example(document, content))
    return "".join(parts) + "</details>"


def _row(parameter: Mapping[str, Any]) -> str:
    told = parameter.get("description") or parameter["schema"].get("description", "")
    return f"<tr><td><code>{_text(parameter['name'])}</code><td>{_text(parameter['in'])}<td>{_text(told)}</tr>"


def _example(document: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    """Show an example where there is one, else the schema."""
    shown = content.get("example")
    if shown is None:
        shown = _resolve(document, content["schema"])
    return f"<pre>{_text(json.dumps(shown, indent=2, ensure_ascii=False))}</pre>"


def _resolve(document: Mapping[str, Any], value: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = value.get("$ref")
    if reference is None:
        return value
    found: Any = document
    for word in reference.removeprefix("#/").split("/"):
        found = found[word]
    resolved: Mapping[str, Any] = found
    return resolved


def _text(value: str) -> str:
    return escape(value)
