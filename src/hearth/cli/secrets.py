"""Secrets as words of a command line: names, never values."""

from __future__ import annotations

from collections.abc import Sequence

from hearth.sdk.secret_calls import SecretOptions, SecretVariableOptions


def read_variables(texts: Sequence[str]) -> list[SecretVariableOptions]:
    """Read ``NAME`` or ``VARIABLE=NAME`` words."""
    return [_variable(text) for text in texts]


def read_uses(variables: Sequence[str], files: Sequence[str]) -> list[SecretOptions]:
    """Read the words for variables, and the names that are to be files."""
    as_files: list[SecretOptions] = [{"name": name, "file": True} for name in files]
    return [*map(_use, variables), *as_files]


def _use(text: str) -> SecretOptions:
    variable = _variable(text)
    return {"name": variable["name"], "env": variable["env"]} if "env" in variable else {"name": variable["name"]}


def _variable(text: str) -> SecretVariableOptions:
    variable, equals, name = text.partition("=")
    return {"name": name, "env": variable} if equals else {"name": text}
