"""What apt says, read; and the machine's own apt asked for real."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hearth.config import DataDirectory
from hearth.errors import HostUnfit
from hearth.host.process import CommandFailed
from hearth.image import tools
from hearth.image.apt import FETCH_SETTING, Apt, Package, fresh_system_command, names, parse_packages
from hearth.image.store import ImageStore

STANZA = """\
Package: linux-image-cloud-amd64
Version: 6.1.1-1
Architecture: amd64
Pre-Depends: dpkg (>= 1.1)
Depends: linux-image-6.1.0-1-cloud-amd64 (= 6.1.1-1), kmod | module-init, linux-base:any
Description: kernel
 Depends: not a field
Size: 1234
SHA256: abcd
"""


def test_stanzas_are_read() -> None:
    (package, second) = parse_packages(STANZA + "\n\n" + STANZA.replace("cloud-amd64\nV", "second\nV"))
    assert package == Package(
        name="linux-image-cloud-amd64",
        version="6.1.1-1",
        architecture="amd64",
        size_bytes=1234,
        sha256="abcd",
        depends=("dpkg", "linux-image-6.1.0-1-cloud-amd64", "kmod", "linux-base"),
    )
    assert second.name == "linux-image-second"


def test_package_known_to_dpkg_alone_is_refused_by_name() -> None:
    with pytest.raises(HostUnfit, match=r"linux-image-cloud-amd64.*SHA256"):
        parse_packages(STANZA.replace("SHA256: abcd\n", ""))


@pytest.mark.parametrize(
    ("field", "expected"),
    [("", []), (" , ", []), ("a", ["a"]), ("a (>= 1), b | c, d:any [amd64]", ["a", "b", "d"]), ("g++-12", ["g++-12"])],
)
def test_dependency_names_are_read(field: str, expected: list[str]) -> None:
    assert names(field) == expected


@pytest.mark.parametrize(
    ("setting", "passes"),
    [
        ("Acquire::http::Proxy", True),
        ("Acquire::http::Proxy::mirror.example", True),
        ("Acquire::https::CaInfo", True),
        ("Acquire::Retries", True),
        ("Acquire::Check-Valid-Until", True),
        ("Acquire::GzipIndexes", False),
        ("Acquire::IndexTargets::deb::DEP-11::MetaKey", False),
    ],
)
def test_only_settings_about_fetching_reach_the_new_system(setting: str, *, passes: bool) -> None:
    assert (FETCH_SETTING.fullmatch(setting) is not None) is passes


@pytest.mark.parametrize(
    ("output", "about_network"),
    [
        ("E: Failed to fetch http://mirror.example/x  Could not connect to 192.0.2.1:80", True),
        ("W: Temporary failure resolving 'mirror.example'", True),
        ("dpkg: error processing package base-files", False),
    ],
)
def test_failures_of_the_network_are_told_from_others(output: str, *, about_network: bool) -> None:
    assert tools.is_about_network(CommandFailed(["apt-get"], 100, output)) is about_network


def test_fresh_system_sees_the_given_sources_alone(tmp_path: Path) -> None:
    argv = fresh_system_command(tmp_path, ["deb http://mirror.example/debian bookworm main"])
    assert "Dir::State::status=/dev/null" in argv
    assert "Dir::Etc::SourceParts=/dev/null" in argv
    assert (tmp_path / "sources.list").read_text() == "deb http://mirror.example/debian bookworm main\n"


@pytest.mark.slow
async def test_download_is_checked_kept_and_mended(tmp_path: Path) -> None:
    store = ImageStore(DataDirectory(root=tmp_path / "data"))
    store.prepare()
    apt = Apt(store)
    (package,) = await apt.show(["libffi8"])
    first = await apt.download(package)
    assert hashlib.sha256(first.read_bytes()).hexdigest() == package.sha256
    written_ns = first.stat().st_mtime_ns
    assert (await apt.download(package)).stat().st_mtime_ns == written_ns
    first.write_bytes(b"cut short")
    assert hashlib.sha256((await apt.download(package)).read_bytes()).hexdigest() == package.sha256
    apt.forget([package])
    assert list(store.downloads.iterdir()) == []
