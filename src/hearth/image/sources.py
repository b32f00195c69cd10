"""apt's sources, one-line and deb822, and which of them are the distribution's own archive for one release.

Formats: sources.list(5). A root file system for strangers gets packages from the distribution only, never from what
else the operator once added to the host, and no password of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ORIGINS = {"debian": "Debian", "ubuntu": "Ubuntu"}
"""What the archive's Release files say in ``Origin``, by distribution family."""
POCKETS = ("", "-updates", "-security")
COMPONENTS = frozenset({"main", "contrib", "non-free", "non-free-firmware", "restricted", "universe", "multiverse"})
ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)")
USER_INFO = re.compile(r"//[^/@]*@")


@dataclass(frozen=True, kw_only=True)
class Source:
    """One archive of binary packages: one URI and one suite."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str | None = None

    def line(self) -> str:
        """Give it in the one-line format."""
        options = f"[signed-by={self.signed_by}] " if self.signed_by else ""
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"

    def without_password(self) -> Source:
        """Give it without a user name and password in the URI."""
        return replace(self, uri=USER_INFO.sub("//", self.uri))


@dataclass(frozen=True, kw_only=True)
class ArchiveRelease:
    """What a fetched Release file says of the archive at ``uri`` and ``suite``."""

    uri: str
    suite: str
    origin: str
    codename: str


def parse_one_line(text: str) -> list[Source]:
    """Read a ``sources.list``; comments, ``deb-src`` and malformed lines are left out."""
    sources = []
    for line in text.splitlines():
        match = ONE_LINE.fullmatch(line.split("#", 1)[0].strip())
        if match is None:
            continue
        options = dict(option.split("=", 1) for option in (match["options"] or "").split() if "=" in option)
        sources.append(
            Source(
                uri=match["uri"],
                suite=match["suite"],
                components=tuple(match["components"].split()),
                signed_by=options.get("signed-by"),
            )
        )
    return sources


def parse_deb822(text: str) -> list[Source]:
    """Read a ``.sources`` file: stanzas with continuation lines, disabled ones left out.

    A key that stands in the file itself instead of a path is left out too: apt's own keyring must do then.
    """
    sources = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n(?:[ \t]*\n)+", "\n".join(lines).strip()):
        unfolded = re.sub(r"\n[ \t]+", " ", stanza)
        fields = {key.lower(): value.strip() for key, value in re.findall(r"^([\w-]+):[ \t]*(.*)$", unfolded, re.M)}
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in {"no", "false", "0"}:
            continue
        signed_by = fields.get("signed-by", "")
        sources += [
            Source(
                uri=uri,
                suite=suite,
                components=tuple(fields.get("components", "").split()),
                signed_by=signed_by if signed_by.startswith("/") else None,
            )
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return sources


def read_sources(directory: Path = Path("/etc/apt")) -> list[Source]:
    """Read the sources in apt's configuration directory, in apt's order."""
    sources: list[Source] = []
    main = directory / "sources.list"
    if main.is_file():
        sources += parse_one_line(main.read_text())
    for path in sorted((directory / "sources.list.d").glob("*")):
        if path.suffix == ".list":
            sources += parse_one_line(path.read_text())
        elif path.suffix == ".sources":
            sources += parse_deb822(path.read_text())
    return sources


def parse_index_targets(text: str) -> list[ArchiveRelease]:
    """Read lines of ``REPO_URI|RELEASE|ORIGIN|CODENAME``; archives never fetched have no origin and are left out."""
    found = {}
    for line in text.splitlines():
        uri, suite, origin, codename = line.split("|")
        if origin and not origin.startswith("$("):
            found[uri, suite] = ArchiveRelease(uri=uri, suite=suite, origin=origin, codename=codename)
    return list(found.values())


def archive_sources(
    sources: Iterable[Source], releases: Iterable[ArchiveRelease], *, family: str, codename: str
) -> list[Source]:
    """Choose the sources that are the distribution's archive for the release ``codename``.

    What an archive is, its signed Release file tells: mirrors have any address, and third parties use the same suite
    names.
    """
    wanted = {f"{codename}{pocket}" for pocket in POCKETS}
    by_place: Mapping[tuple[str, str], ArchiveRelease] = {
        (release.uri.rstrip("/"), release.suite): release for release in releases
    }
    chosen: list[Source] = []
    for source in sources:
        release = by_place.get((source.uri.rstrip("/"), source.suite))
        components = tuple(name for name in source.components if name in COMPONENTS)
        if release is None or release.origin != ORIGINS[family] or not components:
            continue
        # Ubuntu's Release files of all pockets carry the bare code name; backports are told by their suite.
        if release.codename in wanted and not source.suite.endswith("-backports"):
            kept = replace(source, components=components)
            if kept not in chosen:
                chosen.append(kept)
    return chosen
