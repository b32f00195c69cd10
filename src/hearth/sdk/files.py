# Made of async_files.py by 'make twins': change that.
"""Files of a sandbox for the blocking client: ``sandbox.files.read_text("/etc/hostname")``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hearth.api.file_schemas import FileList
from hearth.errors import InvalidInput, NotFound
from hearth.sdk import calls, file_calls
from hearth.sdk.aside import aside
from hearth.sdk.call import read_problem
from hearth.sdk.file_calls import FileStat, Progress
from hearth.sdk.http1 import HttpRequest
from hearth.sdk.local_files import NewFile, pieces_of, tar_of
from hearth.sdk.transport import Incoming, Transport
from hearth.sdk.unpacking import Unpacker

if TYPE_CHECKING:
    from hearth.sdk.client import Client

TEXT = "utf-8"


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """What was copied: bytes that travelled, and the names of what was left out, such as sockets and devices."""

    size_bytes: int
    skipped: list[str] = field(default_factory=list)


class Body:
    """A file on its way: iterate for its bytes, piece by piece. ``size`` is the whole file's, ``mode`` 4 octal digits.

    Files of /proc and /sys have a ``size`` of 0 and content all the same.
    """

    def __init__(self, incoming: Incoming, stat: FileStat) -> None:
        self.size = stat.size
        self.mode = stat.mode
        self._incoming = incoming

    def __iter__(self) -> Iterator[bytes]:
        yield from self._incoming


class Files:
    """The files of one sandbox; paths are absolute. A file is written as a whole or not at all."""

    def __init__(self, client: Client, transport: Transport, ref: str) -> None:
        self._client = client
        self._transport = transport
        self._ref = ref

    def read(self, path: str) -> bytes:
        """Give a file's content; ``open`` gives one that is too large to hold.

        >>> sandbox.files.write("/tmp/greeting", b"hello\\n")
        >>> sandbox.files.read("/tmp/greeting")
        b'hello\\n'
        """
        return self._whole(file_calls.read(self._ref, path))

    def read_text(self, path: str, *, encoding: str = TEXT, errors: str = "strict") -> str:
        """Give a file's content as text.

        >>> sandbox.files.write("/tmp/name", "Åse")
        >>> sandbox.files.read_text("/tmp/name")
        'Åse'
        """
        return self.read(path).decode(encoding, errors)

    def read_range(self, path: str, start: int, length: int | None = None) -> bytes:
        """Give ``length`` bytes from byte ``start`` (0 is the first) on; without it all that follow.

        >>> sandbox.files.write("/tmp/alphabet", "abcdefghij")
        >>> sandbox.files.read_range("/tmp/alphabet", 2, 3)
        b'cde'
        """
        return self._whole(file_calls.read(self._ref, path, start=start, length=length))

    def read_lines(
        self, path: str, *, offset: int = 1, limit: int | None = None, max_bytes: int | None = None
    ) -> list[str]:
        """Give lines with their ends, ``limit`` of them from line ``offset`` (1 is the first) on.

        >>> sandbox.files.write("/tmp/poem", "one\\ntwo\\nthree\\n")
        >>> sandbox.files.read_lines("/tmp/poem", offset=2, limit=1)
        ['two\\n']
        """
        request = file_calls.read_lines(self._ref, path, offset=offset, limit=limit, max_bytes=max_bytes)
        text = self._whole(request).decode(TEXT, "replace")
        return [line + "\n" for line in text.split("\n")[:-1]] + [rest for rest in [text.rpartition("\n")[2]] if rest]

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[Body]:
        """Read a file of any size piece by piece.

        >>> sandbox.files.write("/tmp/large", bytes(1_000_000))
        >>> with sandbox.files.open("/tmp/large") as body:
        ...     body.size, sum([len(piece) for piece in body])
        (1000000, 1000000)
        """
        with self._opened(file_calls.read(self._ref, path)) as incoming:
            yield Body(incoming, file_calls.stat_of(incoming.reader.headers))

    def write(self, path: str, data: str | bytes, *, mode: str | int | None = None) -> None:
        """Write a file, and the directories above it; ``mode`` such as 0o755. Without it one that is there keeps its.

        >>> sandbox.files.write("/tmp/tool", "#!/bin/sh\\necho it works\\n", mode=0o755)
        >>> sandbox.run(["/tmp/tool"]).stdout
        'it works\\n'
        """
        content = data.encode(TEXT) if isinstance(data, str) else bytes(data)
        self._sent(file_calls.write(self._ref, path, content, mode))

    def write_stream(self, path: str, pieces: Iterable[bytes], size: int, *, mode: str | int | None = None) -> None:
        """Write a file of ``size`` bytes whose content comes piece by piece.

        Raises:
            InvalidInput: the pieces are more or less than that; nothing is written.

        >>> with sandbox.files.open("/etc/passwd") as body:
        ...     sandbox.files.write_stream("/tmp/copy", body, body.size)
        """
        self._sent(file_calls.write_stream(self._ref, path, size, mode), _sized(pieces, size))

    def list(self, path: str) -> FileList:
        """List a directory, sorted; ``total`` says how many entries it has where they are more than are told.

        >>> sandbox.files.write("/tmp/shelf/book", "")
        >>> [entry.name for entry in sandbox.files.list("/tmp/shelf").items]
        ['book']
        """
        with self._client.deaths_told(self._ref):
            return self._client.call(file_calls.listing(self._ref, path))

    def stat(self, path: str) -> FileStat:
        """Tell size, mode and kind of what a path leads to.

        Raises:
            NotFound: nothing is there.

        >>> sandbox.files.write("/tmp/four", "1234", mode=0o640)
        >>> sandbox.files.stat("/tmp/four")
        FileStat(size=4, mode='0640', is_dir=False)
        """
        with self._client.deaths_told(self._ref):
            answer = self._client.fetch(file_calls.stat(self._ref, path).request)
            if answer.status >= 400:
                # The answer to a HEAD has no words: those of the list, which the same thing is wrong with, tell more.
                self._client.call(file_calls.listing(self._ref, path))
                raise read_problem(answer)
            return file_calls.stat_of(answer.headers)

    def exists(self, path: str) -> bool:
        """Tell whether a path leads to something.

        >>> sandbox.files.exists("/etc/passwd"), sandbox.files.exists("/nowhere")
        (True, False)
        """
        try:
            self.stat(path)
        except NotFound:
            self._client.call(calls.get(self._ref))  # it is the file that is not there, not the sandbox
            return False
        return True

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Delete a file, a symlink itself or an empty directory; with ``recursive`` all that is in it, too.

        >>> sandbox.files.write("/tmp/rubbish/heap", "x")
        >>> sandbox.files.delete("/tmp/rubbish", recursive=True)
        """
        with self._client.deaths_told(self._ref):
            self._client.call(file_calls.remove(self._ref, path, recursive=recursive))

    def upload(
        self, local: str | Path, path: str, *, mode: str | int | None = None, progress: Progress | None = None
    ) -> Transferred:
        """Copy a file of this host to ``path``, or what is in a directory below ``path``, which is made.

        ``mode`` is for a file; without it the permissions are those here. Symlinks in a directory stay symlinks.

        >>> sandbox.files.upload("/usr/share/common-licenses", "/tmp/licenses")
        Transferred(size_bytes=..., skipped=[])
        >>> sandbox.files.upload("/etc/hostname", "/tmp/name-of-host", mode=0o600)
        Transferred(size_bytes=..., skipped=[])
        """
        source = Path(local)
        facts = aside(source.stat)
        if aside(source.is_dir):
            skipped: list[str] = []
            counted = _Counted(tar_of(source, skipped), None, progress)
            self._sent(file_calls.write_tar(self._ref, path), counted.pieces())
            return Transferred(size_bytes=counted.done, skipped=skipped)
        wanted = facts.st_mode & 0o777 if mode is None else mode
        counted = _Counted(pieces_of(source), facts.st_size, progress)
        request = file_calls.write_stream(self._ref, path, facts.st_size, wanted)
        self._sent(request, _sized(counted.pieces(), facts.st_size))
        return Transferred(size_bytes=counted.done)

    def download(self, path: str, local: str | Path, *, progress: Progress | None = None) -> Transferred:
        """Copy a file to ``local`` on this host, or what is in a directory below ``local``, which is made.

        A file is there as a whole or not at all. Of a directory nothing is written outside ``local``, and symlinks that
        would lead there are left out.

        >>> sandbox.files.write("/tmp/result", "42")
        >>> sandbox.files.download("/tmp/result", here / "result")
        Transferred(size_bytes=2, skipped=[])
        """
        if self.stat(path).is_dir:
            return self._download_tree(path, Path(local), progress)
        done = 0
        with self.open(path) as body, NewFile(Path(local)) as file:
            for piece in body:
                aside(file.write, piece)
                done += len(piece)
                if progress is not None:
                    progress(done, body.size or None)
            aside(file.commit, int(body.mode, 8))
        return Transferred(size_bytes=done)

    def _download_tree(self, path: str, local: Path, progress: Progress | None) -> Transferred:
        done = 0
        with self._opened(file_calls.read_tar(self._ref, path)) as incoming, Unpacker(local) as unpacker:
            for piece in incoming:
                aside(unpacker.feed, piece)
                done += len(piece)
                if progress is not None:
                    progress(done, None)
            unpacked = aside(unpacker.finish)
        return Transferred(size_bytes=done, skipped=unpacked.skipped)

    def _whole(self, request: HttpRequest) -> bytes:
        with self._client.deaths_told(self._ref):
            answer = self._client.fetch(request)
            if answer.status >= 400:
                raise read_problem(answer)
        return answer.body

    @contextlib.contextmanager
    def _opened(self, request: HttpRequest) -> Iterator[Incoming]:
        with self._client.deaths_told(self._ref), self._transport.open(request) as incoming:
            if incoming.reader.status >= 400:
                raise read_problem(incoming.whole())
            yield incoming

    def _sent(self, request: HttpRequest, body: Iterator[bytes] | None = None) -> None:
        with self._client.deaths_told(self._ref):
            sent = self._client.fetch(request) if body is None else self._transport.fetch(request, body)
            answer = sent
            if answer.status >= 400:
                raise read_problem(answer)


class _Counted:
    """The pieces of a local source, counted as they go by."""

    def __init__(self, source: Iterator[bytes], total: int | None, progress: Progress | None) -> None:
        self.done = 0
        self._source = source
        self._total = total
        self._progress = progress

    def pieces(self) -> Iterator[bytes]:
        while piece := aside(next, self._source, b""):
            yield piece
            self.done += len(piece)
            if self._progress is not None:
                self._progress(self.done, self._total)


def _sized(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Give pieces that must be ``size`` bytes together; what is more is not sent."""
    sent = 0
    for piece in pieces:
        sent += len(piece)
        if sent > size:
            raise _wrong_size(size, f"more than {size}")
        yield piece
    if sent < size:
        raise _wrong_size(size, str(sent))


def _wrong_size(size: int, came: str) -> InvalidInput:
    return InvalidInput(
        "the content is not as long as was said",
        details=f"{size} bytes were said, {came} came",
        resolution="try again when nobody changes it",
        field="size",
    )
