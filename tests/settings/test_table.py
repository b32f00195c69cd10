"""The table itself: every row can be written and read again, and the documentation says what it says."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path

import pytest

from hearth.config import ProvisioningSettings, Settings
from hearth.server.proxy.trust import HEADERS
from hearth.settings.kinds import Choice
from hearth.settings.loading import read_file
from hearth.settings.options import read_words
from hearth.settings.render import default_file, documentation
from hearth.settings.table import BY_NAME, SETTINGS, Setting

DOCUMENT = Path(__file__).parents[2] / "docs/configuration.md"


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_default_is_written_and_taken_again(setting: Setting) -> None:
    if setting.default is None:
        return
    written = tomllib.loads(f"key = {setting.kind.write(setting.default)}")["key"]
    assert setting.kind.take(written) == setting.default


def test_names_and_variables_are_there_once() -> None:
    variables = [name for each in SETTINGS for name in (each.variable, *(alias.name for alias in each.aliases))]
    assert len(BY_NAME) == len(SETTINGS)
    assert len(set(variables)) == len(variables)


def test_every_field_of_the_settings_can_be_chosen() -> None:
    nested = {f"provisioning.{each.name}" for each in dataclasses.fields(ProvisioningSettings)}
    own = {each.name for each in dataclasses.fields(Settings)} - {"provisioning", "rates", "quotas"}
    assert {setting.field for setting in SETTINGS if setting.field is not None} == own | nested


def test_the_headers_of_proxies_are_those_the_proxy_reads() -> None:
    kind = BY_NAME["public_proxy_header"].kind
    assert isinstance(kind, Choice)
    assert kind.values == tuple(HEADERS)


def test_the_file_of_defaults_says_nothing_and_each_of_its_lines_can_be_said(tmp_path: Path) -> None:
    file = tmp_path / "hearth.toml"
    file.write_text(default_file())
    assert read_file(file, must_exist=True) == {}
    rows = [line[2:] for line in default_file().splitlines() if line.startswith("# ") and " = " in line]
    said = [row for row in rows if row.split(" = ")[0] in BY_NAME and not row.endswith('""')]
    file.write_text("\n".join(said))
    read = read_words((), {}, file)
    assert len(said) > len(SETTINGS) / 2
    assert read.said["pool"].value == Settings().pool_ready


def test_the_documentation_is_the_table() -> None:
    text = DOCUMENT.read_text()
    assert documentation() in text, "write it anew: hearth config docs"
