"""Packages from the machine's own apt configuration, downloaded and extracted aside, never installed.

Whatever mirror, proxy and keys the operator set up for apt are used as they are.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import HostUnfit, Unavailable
from hearth.host import files, process
from hearth.image.store import ImageStore

QUERY_TIMEOUT_S = 60.0
REFRESH_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 900.0
EXTRACT_TIMEOUT_S = 120.0
AS_ROOT = ("-o", "APT::Sandbox::User=root")
"""Our download directory is closed to the user _apt, to whom apt would otherwise drop."""

FETCH_SETTING = re.compile(r"Acquire::(?:(?:https?|ftp)::.*Proxy.*|https::.*|Check-Valid-Until|Check-Date|Retries)")
PROXY_VARIABLES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy")


@dataclass(frozen=True, kw_only=True)
class Package:
    """One version of a package as the archive describes it; ``depends`` holds names only, first alternatives."""

    name: str
    version: str
    architecture: str
    size_bytes: int
    sha256: str
    depends: tuple[str, ...]


def parse_packages(text: str) -> list[Package]:
    """Read the stanzas that ``apt-cache show`` prints.

    Raises:
        HostUnfit: a stanza lacks a field, as those of packages known only to dpkg do.
    """
    packages = []
    for stanza in re.split(r"\n{2,}", text.strip()):
        fields = dict(re.findall(r"^([A-Za-z0-9-]+):[ \t]*(.*)$", stanza, re.MULTILINE))
        try:
            packages.append(
                Package(
                    name=fields["Package"],
                    version=fields["Version"],
                    architecture=fields["Architecture"],
                    size_bytes=int(fields["Size"]),
                    sha256=fields["SHA256"],
                    depends=tuple(names(f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}")),
                )
            )
        except KeyError as error:
            raise HostUnfit(
                "apt cannot tell where a package comes from",
                details=f"{fields.get('Package', stanza[:80])!r} has no field {error}",
                resolution="run 'apt-get update' and check apt's sources",
            ) from error
    return packages


def names(dependencies: str) -> list[str]:
    """Give the package names of a dependency field, the first of alternatives, without versions."""
    return [match[0] for part in dependencies.split(",") if (match := re.match(r"[a-z0-9][a-z0-9+.-]*", part.strip()))]


class Apt:
    """The machine's apt with a download cache of our own; each .deb is kept under its checksum.

    Args:
        store: where finished downloads are kept, and where one process at a time fetches each package.
    """

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._refreshed = False
        self._refreshing = asyncio.Lock()

    async def show(self, wanted: Sequence[str]) -> list[Package]:
        """Describe the candidate versions of packages, in the order wanted; old package lists are refreshed.

        Raises:
            HostUnfit: apt does not know one of them even then.
            Unavailable: the lists could not be refreshed.
        """
        found = await self._show(wanted)
        if len(found) < len(wanted):
            await self.refresh()
            found = await self._show(wanted)
        if missing := [name for name in wanted if name not in found]:
            raise HostUnfit(
                "apt does not know a package hearth needs",
                details=f"unknown: {', '.join(missing)}",
                resolution="check apt's sources: the main archive of this release must be among them",
            )
        return [found[name] for name in wanted]

    async def _show(self, wanted: Sequence[str]) -> dict[str, Package]:
        try:
            shown = await process.run(["apt-cache", "show", "--no-all-versions", *wanted], timeout_s=QUERY_TIMEOUT_S)
        except process.CommandFailed:
            # apt-cache fails as a whole when one name is unknown; who that is, asking one by one tells.
            if len(wanted) == 1:
                return {}
            return {name: package for one in wanted for name, package in (await self._show([one])).items()}
        return {package.name: package for package in parse_packages(shown.stdout.decode())}

    async def refresh(self) -> None:
        """Fetch the package lists anew, once in the life of this object.

        Raises:
            Unavailable: apt could not.
        """
        async with self._refreshing:
            if self._refreshed:
                return
            try:
                await process.run(
                    ["apt-get", "-q", "update"], timeout_s=REFRESH_TIMEOUT_S, environment=proxy_environment()
                )
            except process.CommandFailed as error:
                raise fetch_failed("apt could not fetch the package lists", error) from error
            self._refreshed = True

    async def download(self, package: Package) -> Path:
        """Give the package's .deb, from the cache when a whole one is there, else from the archive.

        Raises:
            Unavailable: apt could not download it, or what came has the wrong checksum.
            NoSpace: the disk is full.
        """
        final = self._store.downloads / f"{package.sha256}.deb"
        async with self._store.alone(f"download-{package.sha256[:16]}") as aside:
            if final.exists() and await asyncio.to_thread(files.hash_file, final) == package.sha256:
                return final
            files.require_free(aside, package.size_bytes)
            argv = ["apt-get", "-q", *AS_ROOT, "download", f"{package.name}={package.version}"]
            try:
                await process.run(argv, timeout_s=DOWNLOAD_TIMEOUT_S, cwd=aside, environment=proxy_environment())
            except process.CommandFailed as error:
                raise fetch_failed(f"apt could not download {package.name}", error) from error
            (arrived,) = aside.glob("*.deb")
            if await asyncio.to_thread(files.hash_file, arrived) != package.sha256:
                raise Unavailable(
                    "a download has the wrong checksum",
                    details=f"{package.name} {package.version} is not what the package lists promise",
                    resolution="run 'apt-get update' and try again",
                )
            await asyncio.to_thread(files.publish_file, arrived, final)
        return final

    async def index_targets(self) -> str:
        """Tell what apt knows of its archives, ``REPO_URI|RELEASE|ORIGIN|CODENAME`` a line."""
        line = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(CODENAME)"
        argv = ["apt-get", "indextargets", "--format", line, "Created-By: Packages"]
        shown = await process.run(argv, timeout_s=QUERY_TIMEOUT_S)
        return shown.stdout.decode()

    async def closure(self, source_lines: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
        """Tell which .deb files a fresh system with the packages ``wanted`` would hold, by name, with their bytes.

        Args:
            source_lines: the only sources to consider, in the one-line format.
            wanted: package names and apt patterns.

        Raises:
            HostUnfit: apt cannot resolve them from these sources.
        """
        async with self._store.alone(f"closure-{os.getpid()}") as scratch:
            source_list = scratch / "sources.list"
            source_list.write_text("".join(f"{line}\n" for line in source_lines))
            options = [f"Dir::Etc::SourceList={source_list}", "Dir::Etc::SourceParts=/dev/null"]
            options += ["Dir::State::status=/dev/null", "APT::Install-Recommends=false"]
            argv = ["apt-get", "-q", *(word for option in options for word in ("-o", option))]
            try:
                shown = await process.run([*argv, "--print-uris", "-y", "install", *wanted], timeout_s=QUERY_TIMEOUT_S)
            except process.CommandFailed as error:
                raise HostUnfit(
                    "apt cannot put together a root file system",
                    details=error.output.strip(),
                    resolution="run 'apt-get update' and check apt's sources",
                ) from error
        lines = [line.split() for line in shown.stdout.decode().splitlines() if line.startswith("'")]
        return {words[1]: int(words[2]) for words in lines}

    async def unpack(self, packages: Iterable[Package], directory: Path) -> None:
        """Download packages and extract their files below ``directory``, without running anything of theirs.

        Raises:
            Unavailable: a download failed.
            NoSpace: the disk is full.
        """
        for package in packages:
            deb = await self.download(package)
            await process.run(["dpkg-deb", "-x", str(deb), str(directory)], timeout_s=EXTRACT_TIMEOUT_S)


def fingerprint(packages: Iterable[Package]) -> list[str]:
    """Give what identifies these packages' contents, for a build key."""
    return [f"{package.name} {package.version} {package.sha256}" for package in packages]


async def acquire_options() -> list[str]:
    """Give the host's settings for fetching, ``Name "value";``, for an apt that does not read the host's files."""
    shown = await process.run(["apt-config", "dump", "--format", "%F %v%n", "Acquire"], timeout_s=QUERY_TIMEOUT_S)
    settings = [line.split(" ", 1) for line in shown.stdout.decode().splitlines() if " " in line]
    return [f'{name} "{value}";' for name, value in settings if FETCH_SETTING.fullmatch(name) and value]


def proxy_environment() -> dict[str, str]:
    """Give the proxies this process was told to use, which apt honours too."""
    return {name: value for name in PROXY_VARIABLES if (value := os.environ.get(name))}


async def architecture() -> str:
    """Give the host's Debian architecture, such as ``amd64``."""
    shown = await process.run(["dpkg", "--print-architecture"], timeout_s=QUERY_TIMEOUT_S)
    return shown.stdout.decode().strip()


def fetch_failed(brief: str, error: process.CommandFailed) -> Unavailable:
    """Tell a failed fetch in words, with apt's own."""
    return Unavailable(
        brief,
        details=error.output.strip(),
        resolution="check the network, the proxy and apt's sources, then run it again: finished downloads are kept",
    )
