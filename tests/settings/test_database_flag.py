"""The database on the command line: its place, never its password."""

from __future__ import annotations

import pytest

from hearth.settings.options import read_words

ENVIRONMENT = {"HEARTH_DATABASE_URL": "postgresql://u:s3cret@host/one", "DATABASE_URL": "postgresql://host/two"}


def test_the_flag_comes_before_the_environment_and_hearths_own_variable_before_the_common_one() -> None:
    flag = ["--database", "postgresql://u@host/three?sslmode=require"]
    assert read_words(flag, ENVIRONMENT).said["database_url"].value == flag[1]
    assert read_words([], ENVIRONMENT).said["database_url"].value.endswith("/one")
    assert read_words([], {"DB_PATH": "/var/db"}).said["database_url"].value == "sqlite:////var/db"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:s3cret@host/one",
        "postgresql://host/one?password=s3cret",
        "postgresql://h/one?sslpassword=s3cret",
    ],
)
def test_a_password_on_the_command_line_is_refused_without_repeating_it(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        read_words(["--database", url], {})
    said = capsys.readouterr().err
    assert "HEARTH_DATABASE_URL" in said
    assert "s3cret" not in said
