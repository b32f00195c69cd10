"""Which of the host's package sources a sandbox may have."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.image.sources import (
    ArchiveRelease,
    Source,
    archive_sources,
    parse_deb822,
    parse_index_targets,
    parse_one_line,
    read_sources,
)

MIRROR = "http://mirror.example/debian"
MAIN = Source(uri=MIRROR, suite="bookworm", components=("main",))


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("", []),
        ("# deb http://x y main\n\ndeb-src http://mirror.example/debian bookworm main\n", []),
        ("deb http://mirror.example/debian bookworm main", [MAIN]),
        ("deb http://mirror.example/debian  bookworm\tmain # ours", [MAIN]),
        (
            "deb [arch=amd64 signed-by=/usr/share/keyrings/k.gpg] http://mirror.example/debian bookworm main contrib",
            [
                Source(
                    uri=MIRROR,
                    suite="bookworm",
                    components=("main", "contrib"),
                    signed_by="/usr/share/keyrings/k.gpg",
                )
            ],
        ),
        ("deb http://mirror.example/flat ./", [Source(uri="http://mirror.example/flat", suite="./", components=())]),
    ],
)
def test_one_line_format_is_read(text: str, sources: list[Source]) -> None:
    assert parse_one_line(text) == sources


STANZA = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
# one inside
Suites: bookworm
  bookworm-updates
Components: main
"""


@pytest.mark.parametrize(
    ("text", "suites"),
    [
        (STANZA, ["bookworm", "bookworm-updates"]),
        (STANZA + "Enabled: no\n", []),
        (STANZA.replace("deb deb-src", "deb-src"), []),
        (STANZA + "\n\n" + STANZA.replace("bookworm\n", "trixie\n"), ["bookworm", "bookworm-updates", "trixie"]),
    ],
)
def test_stanza_format_is_read(text: str, suites: list[str]) -> None:
    found = parse_deb822(text)
    assert [source.suite for source in found][: len(suites)] == suites
    assert bool(found) == bool(suites)
    assert all(source.uri == MIRROR and source.components == ("main",) for source in found)


def test_key_in_a_file_is_kept_and_a_key_in_the_stanza_is_not() -> None:
    (by_file,) = parse_deb822(STANZA.replace("\n  bookworm-updates", "") + "Signed-By: /k.gpg\n")
    assert by_file.signed_by == "/k.gpg"
    inline = "Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n"
    (by_stanza,) = parse_deb822(STANZA.replace("\n  bookworm-updates", "") + inline)
    assert by_stanza.signed_by is None


def test_both_formats_are_read_from_a_directory(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://a.example/debian bookworm main\n")
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    (parts / "b.sources").write_text(STANZA.replace("\n  bookworm-updates", ""))
    (parts / "c.list").write_text("deb http://c.example/debian bookworm main\n")
    (parts / "d.list.disabled").write_text("deb http://d.example/debian bookworm main\n")
    assert [source.uri for source in read_sources(tmp_path)] == [
        "http://a.example/debian",
        MIRROR,
        "http://c.example/debian",
    ]


def release(suite: str, *, uri: str = MIRROR, origin: str = "Debian", codename: str = "") -> ArchiveRelease:
    return ArchiveRelease(uri=uri + "/", suite=suite, origin=origin, codename=codename or suite)


@pytest.mark.parametrize(
    ("suite", "known", "chosen"),
    [
        ("bookworm", release("bookworm"), True),
        ("bookworm-updates", release("bookworm-updates"), True),
        ("bookworm-security", release("bookworm-security"), True),
        ("stable", release("stable", codename="bookworm"), True),
        ("stable", release("stable", codename="trixie"), False),
        ("bookworm-backports", release("bookworm-backports"), False),
        ("bookworm", release("bookworm", origin="Docker"), False),
        ("bookworm", release("bookworm", uri="http://other.example/debian"), False),
        ("trixie", release("trixie"), False),
    ],
)
def test_only_the_distribution_s_archive_of_the_own_release_is_chosen(
    suite: str, known: ArchiveRelease, *, chosen: bool
) -> None:
    source = Source(uri=MIRROR, suite=suite, components=("main",))
    found = archive_sources([source], [known], family="debian", codename="bookworm")
    assert found == ([source] if chosen else [])


def test_same_source_twice_and_foreign_components_are_dropped() -> None:
    sources = [
        Source(uri=MIRROR, suite="bookworm", components=("main", "thirdparty")),
        Source(uri=MIRROR, suite="bookworm", components=("main",)),
        Source(uri=MIRROR, suite="bookworm", components=("thirdparty",)),
    ]
    assert archive_sources(sources, [release("bookworm")], family="debian", codename="bookworm") == [MAIN]


def test_ubuntu_backports_are_told_by_their_suite() -> None:
    suites = ["noble", "noble-updates", "noble-backports"]
    sources = [Source(uri=MIRROR, suite=suite, components=("main",)) for suite in suites]
    releases = [release(suite, origin="Ubuntu", codename="noble") for suite in suites]
    found = archive_sources(sources, releases, family="ubuntu", codename="noble")
    assert [source.suite for source in found] == ["noble", "noble-updates"]


def test_archive_that_was_never_fetched_is_unknown() -> None:
    text = f"{MIRROR}/|bookworm|Debian|bookworm\n{MIRROR}/|sid|$(ORIGIN)|$(CODENAME)\n"
    assert parse_index_targets(text) == [release("bookworm")]


def test_password_does_not_reach_the_guest() -> None:
    source = Source(uri="https://user:secret@mirror.example/debian", suite="bookworm", components=("main",))
    assert source.without_password().line() == "deb https://mirror.example/debian bookworm main"
    assert MAIN.without_password() == MAIN
