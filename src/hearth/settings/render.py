"""Writes settings for people: a commented file, the table of the documentation, values with secrets hidden."""

from __future__ import annotations

from typing import Any

from hearth.settings.kinds import Choice
from hearth.settings.loading import Said
from hearth.settings.table import GROUPS, SETTINGS, Setting

HIDDEN = "********"
EXAMPLES = {
    "listen": '["127.0.0.1:8080"]',
    "rate": '{ create = "30/10" }',
    "quota": "{ sandboxes = 20, volumes = 32 }",
    "public_trusted_proxy": '["192.0.2.1"]',
    "dns": '["192.0.2.53"]',
}
"""Shown where the default, nothing, would not tell the form."""


def default_text(setting: Setting) -> str:
    """Give the default as the file would say it; empty where there is none."""
    if setting.default is None or setting.default in ((), {}):
        return ""
    text = setting.kind.write(setting.default)
    return text.strip('"') if text.count('"') == 2 and text.startswith('"') else text


def shown_value(setting: Setting, value: Any) -> str:
    """Give a value as the file would say it; a secret is hidden, nothing is empty."""
    if value is None or value in ((), {}):
        return ""
    return HIDDEN if setting.is_secret else setting.kind.write(value)


def shown_source(said: Said) -> str:
    return f"{said.source}: {said.where}" if said.where else str(said.source)


def default_file() -> str:
    """Write a file that says nothing: every setting as a comment, with its default."""
    lines = [
        "# Settings of the hearth daemon. Flags of 'hearth serve' and variables (HEARTH_NAME) win over this file.",
        "# 'hearth config check FILE' tells whether it is right, 'hearth config show' what holds and why.",
    ]
    for group in GROUPS:
        lines += ["", f"# --- {group}"]
        for setting in (each for each in SETTINGS if each.group == group):
            lines += ["", f"# {setting.help}{_hints(setting)}", f"# {setting.name} = {_example(setting)}"]
    return "\n".join(lines) + "\n"


def _hints(setting: Setting) -> str:
    hints = []
    if isinstance(setting.kind, Choice):
        hints.append("one of " + ", ".join(setting.kind.values))
    if setting.is_secret:
        hints.append("a secret: chmod 0600 this file")
    if setting.default is None and "default" not in setting.help:
        hints.append("not set by default")
    return f" ({'; '.join(hints)})" if hints else ""


def _example(setting: Setting) -> str:
    if setting.name in EXAMPLES:
        return EXAMPLES[setting.name]
    return '""' if setting.default is None else setting.kind.write(setting.default)


def documentation() -> str:
    """Write the tables of docs/configuration.md, a heading for each group."""
    parts = []
    for group in GROUPS:
        rows = ["| key | default | flag, variables | what it does |", "| --- | --- | --- | --- |"]
        rows += [_documented(setting) for setting in SETTINGS if setting.group == group]
        parts.append(f"### {group[0].upper()}{group[1:]}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


def _documented(setting: Setting) -> str:
    default = default_text(setting)
    variables = [setting.variable, *(alias.name for alias in setting.aliases)]
    if setting.name == "listen":
        variables += ["HOST", "PORT"]
    spoken = ", ".join(f"`{name}`" for name in (setting.flag, *variables) if name)
    notes = [setting.kind.unit and f"in {setting.kind.unit}", setting.is_secret and "secret, no flag",
             setting.is_live and "a reload changes it"]  # fmt: skip
    said = "; ".join(note for note in notes if note)
    text = setting.help.replace("|", "\\|") + (f" ({said})" if said else "")
    if isinstance(setting.kind, Choice):
        text += ": " + ", ".join(f"`{value}`" for value in setting.kind.values)
    return f"| `{setting.name}` | {f'`{default}`' if default else ''} | {spoken} | {text} |"
