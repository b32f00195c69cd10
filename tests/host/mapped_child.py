"""A process that maps memory as a virtual machine monitor does and touches the pages it is told to."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence

SCRIPT = """
import ctypes, mmap, sys
size, descriptor, huge = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "huge"
flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if descriptor < 0 else 0)
memory = mmap.mmap(descriptor, size, flags=flags)
if huge:
    memory.madvise(mmap.MADV_HUGEPAGE)
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
view = memoryview(memory)
sink = 0
for line in sys.stdin:
    command, *words = line.split()
    if command == "write":
        value = int(words[0])
        for word in words[1:]:
            memory[int(word) * mmap.PAGESIZE] = value
    elif command == "read":
        for word in words:
            sink += memory[int(word) * mmap.PAGESIZE]
    elif command == "fill":
        value, start, count = (int(word) for word in words)
        block = bytes([value]) * mmap.PAGESIZE
        for page in range(start, start + count):
            memory[page * mmap.PAGESIZE : (page + 1) * mmap.PAGESIZE] = block
    elif command == "protect":
        ctypes.CDLL(None).mprotect(
            ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory))), ctypes.c_size_t(size), 1
        )
    print("done", flush=True)
"""


class MappedChild:
    """One such process; ``address`` is where its mapping begins."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid
        self.address = int(self._answer())

    def write(self, pages: Iterable[int], value: int = 7) -> None:
        """Write one byte at the start of each page."""
        self._tell("write", value, *pages)

    def read(self, pages: Iterable[int]) -> None:
        """Look at the first byte of each page."""
        self._tell("read", *pages)

    def fill(self, value: int, start: int, count: int) -> None:
        """Write every byte of some pages in a row."""
        self._tell("fill", value, start, count)

    def protect(self) -> None:
        """Make the whole mapping unwritable."""
        self._tell("protect")

    def _tell(self, *words: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done"

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def mapped_child(
    size: int, descriptor: int = -1, *, huge: bool = False, prefix: Sequence[str] = ()
) -> Iterator[MappedChild]:
    """Run one that maps ``size`` bytes of a file, or anonymous memory, privately."""
    command = [*prefix, sys.executable, "-S", "-c", SCRIPT, str(size), str(descriptor), "huge" if huge else "small"]
    descriptors = () if descriptor < 0 else (descriptor,)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=descriptors
    ) as process:
        try:
            yield MappedChild(process)
        finally:
            process.kill()
