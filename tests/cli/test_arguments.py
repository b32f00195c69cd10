"""Words of the command line become values, or errors that name the next step."""

from __future__ import annotations

import pytest

from hearth.cli.arguments import Parser, read_duration, read_env, read_pairs
from hearth.cli.commands import exec as exec_command
from hearth.errors import InvalidInput


def parse_exec(*words: str) -> tuple[str, list[str], list[str], str | None]:
    parser = Parser(prog="hearth exec", description="", usage_status=125)
    exec_command.add_arguments(parser)
    arguments = parser.parse_args(words)
    return *exec_command.split_words(arguments.words), arguments.env, arguments.cwd


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("web", "ls"), ("web", ["ls"], [], None)),
        (("web", "ls", "-la", "--cwd", "/x"), ("web", ["ls", "-la", "--cwd", "/x"], [], None)),
        (("web", "--", "ls", "-la"), ("web", ["ls", "-la"], [], None)),
        (("web", "--", "--odd"), ("web", ["--odd"], [], None)),
        (("web", "sh", "-c", "a -- b", "--", "c"), ("web", ["sh", "-c", "a -- b", "--", "c"], [], None)),
        (("-e", "A=1", "--cwd", "/tmp", "web", "env"), ("web", ["env"], ["A=1"], "/tmp")),
        (("-e", "A=1", "-e", "B=", "web", "--", "env", "-i"), ("web", ["env", "-i"], ["A=1", "B="], None)),
    ],
)
def test_options_before_the_sandbox_are_ours_what_follows_is_the_commands(
    words: tuple[str, ...], expected: tuple[str, list[str], list[str], str | None]
) -> None:
    assert parse_exec(*words) == expected


@pytest.mark.parametrize("words", [(), ("web",), ("web", "--"), ("web", "--cwd", "/x", "ls")])
def test_a_command_that_is_none_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_exec(*words)
    assert refused.value.resolution


@pytest.mark.parametrize("words", [("--colour", "web", "ls"), ("--timeout", "soon", "web", "ls")])
def test_wrong_usage_ends_with_the_commands_own_status(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_exec(*words)
    assert ended.value.code == 125
    assert "'hearth exec --help'" in capsys.readouterr().err


def test_pairs_keep_everything_after_the_first_equals_sign() -> None:
    assert read_pairs(["A=b=c", "B=", "A=d"], what="--env") == {"A": "d", "B": ""}


def test_a_variable_without_a_value_has_the_one_it_has_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "a=b")
    assert read_env(["A=", "TOKEN"]) == {"A": "", "TOKEN": "a=b"}
    monkeypatch.delenv("TOKEN")
    with pytest.raises(InvalidInput, match="'TOKEN' is not set here"):
        read_env(["TOKEN"])


@pytest.mark.parametrize("text", ["A", "=x", "", "supersecretvalue-that-is-long-indeed"])
def test_a_pair_without_a_key_is_refused_without_telling_all_of_it(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read_pairs([text], what="--env")
    assert "KEY=VALUE" in refused.value.resolution
    assert len(text) <= 20 or text not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "duration_s"), [("90", 90), ("90s", 90), ("1.5m", 90), ("2h", 7200), ("7d", 604800), ("0.5", 0.5)]
)
def test_a_length_of_time_is_read_in_seconds(text: str, duration_s: float) -> None:
    assert read_duration(text, what="--ttl") == duration_s


@pytest.mark.parametrize("text", ["", "s", "1w", "-1", "1 h", "h1", "1h30m", "nan", "1e9", "1\n", "\u0661", "9" * 400])
def test_what_is_no_length_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="--ttl"):
        read_duration(text, what="--ttl")
