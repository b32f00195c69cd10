"""Packages from the machine's own apt configuration, downloaded and extracted aside, never installed.

Whatever mirror, proxy and keys the operator set up for apt are used as they are.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hearth.errors import HostUnfit, Unavailable
from hearth.host import files, process
from hearth.host.threads import on_own_thread
from hearth.image import tools
from hearth.image.apt_state import AptState
from hearth.image.store import ImageStore, hash_aside

QUERY_TIMEOUT_S = 60.0
REFRESH_TIMEOUT_S = 300.0
DOWNLOAD_TIMEOUT_S = 900.0
EXTRACT_TIMEOUT_S = 120.0
AS_ROOT = ("-o", "APT::Sandbox::User=root")
"""Our download directory is closed to the user _apt, to whom apt would otherwise drop."""
DOWNLOAD_STATUS = re.compile(r"dlstatus:[^:]*:([0-9]+)[.:].*")
"""apt's machine-readable progress: README.progress-reporting in its documentation."""


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
        self._state = AptState(store.root / "apt")
        self._refreshing = asyncio.Lock()
        self.is_fresh = False
        """True once the package lists were fetched by this object."""

    async def show(self, wanted: Sequence[str]) -> list[Package]:
        """Describe packages' candidate versions, in the order wanted; the lists are fetched when one is not known.

        Raises:
            HostUnfit: apt does not know one of them even then.
            Unavailable: the lists could not be fetched.
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
            argv = ["apt-cache", "show", "--no-all-versions", *wanted]
            shown = await process.run(argv, timeout_s=QUERY_TIMEOUT_S, environment=self._state.environment())
        except process.CommandFailed:
            # apt-cache fails as a whole when one name is unknown; which one, asking one by one tells.
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
            if not self.is_fresh:
                self._state.begin_own()
                try:
                    await self._run(["apt-get", "-q", "update"], timeout_s=REFRESH_TIMEOUT_S, where=self._store.root)
                except process.CommandFailed as error:
                    raise tools.fetch_failed("apt could not fetch the package lists", error) from error
                self.is_fresh = True

    async def download(self, package: Package) -> Path:
        """Give the package's .deb, from the cache when a whole one is there, else from the archive.

        Raises:
            Unavailable: apt could not download it, or what came has the wrong checksum.
            NoSpace: the disk is full.
        """
        final = self._cached(package)
        async with self._store.alone(f"download-{package.sha256[:16]}") as aside:
            if final.exists() and await hash_aside(final) == package.sha256:
                return final
            files.require_free(aside, package.size_bytes)
            argv = ["apt-get", "-q", *AS_ROOT, "download", f"{package.name}={package.version}"]
            try:
                await self._run(argv, timeout_s=DOWNLOAD_TIMEOUT_S, where=aside)
            except process.CommandFailed as error:
                raise tools.fetch_failed(f"apt could not download {package.name}", error) from error
            (arrived,) = aside.glob("*.deb")
            if await hash_aside(arrived) != package.sha256:
                raise Unavailable(
                    "a download has the wrong checksum",
                    details=f"{package.name} {package.version} is not what the package lists promise",
                    resolution="run 'apt-get update' and try again",
                )
            await on_own_thread("publish", lambda: files.publish_file(arrived, final))
        return final

    def forget(self, packages: Iterable[Package]) -> None:
        """Delete downloads that nobody will want again."""
        for package in packages:
            self._cached(package).unlink(missing_ok=True)

    def _cached(self, package: Package) -> Path:
        return self._store.downloads / f"{package.sha256}.deb"

    async def unpack(self, packages: Iterable[Package], directory: Path) -> None:
        """Download packages and extract their files below ``directory``, without running anything of theirs.

        Raises:
            Unavailable: a download failed.
            NoSpace: the disk is full.
        """
        for package in packages:
            deb = await self.download(package)
            await tools.run(["dpkg-deb", "-x", str(deb), str(directory)], timeout_s=EXTRACT_TIMEOUT_S, where=directory)

    async def index_targets(self) -> str:
        """Tell what apt knows of its archives, ``REPO_URI|RELEASE|ORIGIN|CODENAME`` a line."""
        line = "$(REPO_URI)|$(RELEASE)|$(ORIGIN)|$(CODENAME)"
        argv = ["apt-get", "indextargets", "--format", line, "Created-By: Packages"]
        shown = await process.run(argv, timeout_s=QUERY_TIMEOUT_S, environment=self._state.environment())
        return shown.stdout.decode()

    async def closure(self, source_lines: Sequence[str], wanted: Sequence[str]) -> dict[str, int]:
        """Tell which .deb files a fresh system with the packages ``wanted`` would hold, by name, with their bytes.

        Args:
            source_lines: the only sources to consider, in the one-line format.
            wanted: package names and apt patterns.

        Raises:
            HostUnfit: apt cannot resolve them from these sources.
        """
        async with self._store.alone("closure") as scratch:
            argv = fresh_system_command(scratch, source_lines)
            try:
                shown = await self._run(
                    [*argv, "--print-uris", "install", *wanted], timeout_s=QUERY_TIMEOUT_S, where=scratch
                )
            except process.CommandFailed as error:
                raise HostUnfit(
                    "apt cannot put together a root file system",
                    details=error.output.strip(),
                    resolution="run 'apt-get update' and check apt's sources",
                ) from error
        lines = [line.split() for line in shown.stdout.decode().splitlines() if line.startswith("'")]
        return {words[1]: int(words[2]) for words in lines}

    async def prefetch(
        self, source_lines: Sequence[str], wanted: Sequence[str], on_fraction: Callable[[float], None]
    ) -> Path:
        """Download what ``closure`` told; what an interrupted run got, even half a file, is not fetched again.

        Returns:
            The directory with the .deb files under their names in the archive; apt checks them before it uses them.

        Raises:
            Unavailable: a download failed.
            NoSpace: the disk is full.
        """

        told = -1

        def on_line(line: str) -> None:
            nonlocal told
            match = DOWNLOAD_STATUS.fullmatch(line)
            percent = int(match[1]) if match else told
            if percent > told:
                told = percent
                on_fraction(percent / 100)

        archives = self._store.downloads / "archives"
        async with self._store.alone("archives") as scratch:
            archives.mkdir(exist_ok=True)
            options = ["-o", f"Dir::Cache::archives={archives}", "-o", "APT::Status-Fd=2", *AS_ROOT]
            argv = [*fresh_system_command(scratch, source_lines), *options, "--download-only", "install", *wanted]
            try:
                await self._run(argv, timeout_s=DOWNLOAD_TIMEOUT_S, where=scratch, on_line=on_line)
            except process.CommandFailed as error:
                raise tools.fetch_failed("apt could not download the root file system's packages", error) from error
        return archives

    async def _run(
        self, argv: list[str], *, timeout_s: float, where: Path, on_line: Callable[[str], None] | None = None
    ) -> process.Completed:
        environment = self._state.environment()
        return await tools.run(argv, timeout_s=timeout_s, where=where, environment=environment, on_line=on_line)


def fresh_system_command(scratch: Path, source_lines: Sequence[str]) -> list[str]:
    """Give the beginning of a command line of apt-get for a system where nothing is installed yet.

    Args:
        scratch: a directory for the list of sources.
        source_lines: the only sources to consider.
    """
    source_list = scratch / "sources.list"
    source_list.write_text("".join(f"{line}\n" for line in source_lines))
    options = [
        f"Dir::Etc::SourceList={source_list}",
        "Dir::Etc::SourceParts=/dev/null",
        "Dir::State::status=/dev/null",
        "APT::Install-Recommends=false",
    ]
    return ["apt-get", "-q", "-y", *(word for option in options for word in ("-o", option))]


def fingerprint(packages: Iterable[Package]) -> list[str]:
    """Give what identifies these packages' contents, for a build key."""
    return [f"{package.name} {package.version} {package.sha256}" for package in packages]


async def architecture() -> str:
    """Give the host's Debian architecture, such as ``amd64``."""
    shown = await process.run(["dpkg", "--print-architecture"], timeout_s=QUERY_TIMEOUT_S)
    return shown.stdout.decode().strip()


FETCH_SETTING = re.compile(r"Acquire::(?:(?:https?|ftp)::.*Proxy.*|https::.*|Check-Valid-Until|Check-Date|Retries)")


async def fetch_settings() -> list[str]:
    """Give the host's settings for fetching, ``Name "value";``, for an apt that does not read the host's files."""
    shown = await process.run(["apt-config", "dump", "--format", "%F %v%n", "Acquire"], timeout_s=QUERY_TIMEOUT_S)
    settings = [line.split(" ", 1) for line in shown.stdout.decode().splitlines() if " " in line]
    return [f'{name} "{value}";' for name, value in settings if FETCH_SETTING.fullmatch(name) and value]
