"""Names of hosts for daemons in a mount namespace of their own: a hosts file, and a server whose answers change."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

COVER = 'mount --bind "$0/hosts" /etc/hosts && mount --bind "$0/resolv" /etc/resolv.conf && exec "$@"'
PORT = 53
TYPE_A, CLASS_IN = 1, 1
HEADER_BYTES = 12


class Names:
    """Tells the addresses of names over UDP: the first ones first, the last one for ever."""

    def __init__(self, answers: Mapping[str, Sequence[str]]) -> None:
        self.asked: list[str] = []
        self._answers = {name: list(addresses) for name, addresses in answers.items()}
        # An address of this process's own: the port cannot be chosen, and others may test, too.
        self.address = f"127.{1 + os.getpid() % 250}.{os.getpid() // 250 % 250}.53"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.address, PORT))
        self._thread = threading.Thread(target=self._serve, name="names")
        self._thread.start()

    def close(self) -> None:
        """End, by a question that is none."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", (self.address, PORT))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            question, asker = self._socket.recvfrom(512)
            if not question:
                return
            self._socket.sendto(self._answer(question), asker)

    def _answer(self, question: bytes) -> bytes:
        labels, position = [], HEADER_BYTES
        while length := question[position]:
            labels.append(question[position + 1 : position + 1 + length].decode())
            position += 1 + length
        kind, end = struct.unpack_from(">H", question, position + 1)[0], position + 5
        addresses = self._answers.get(".".join(labels).lower(), []) if kind == TYPE_A else []
        found = b""
        if addresses:
            address = addresses.pop(0) if len(addresses) > 1 else addresses[0]
            self.asked.append(address)
            found = struct.pack(">HHHIH", 0xC000 | HEADER_BYTES, TYPE_A, CLASS_IN, 0, 4) + socket.inet_aton(address)
        head = struct.pack(">HHHHHH", struct.unpack_from(">H", question)[0], 0x8180, 1, bool(found), 0, 0)
        return head + question[HEADER_BYTES:end] + found


@contextlib.contextmanager
def names(directory: Path, hosts: str, answers: Mapping[str, Sequence[str]]) -> Iterator[tuple[Names, Sequence[str]]]:
    """Serve names, and give with them what has to stand before the command of a daemon that is to believe them."""
    serving = Names(answers)
    (directory / "hosts").write_text(hosts)
    (directory / "resolv").write_text(f"nameserver {serving.address}\noptions timeout:30 attempts:1\n")
    try:
        yield serving, ("unshare", "--mount", "sh", "-c", COVER, str(directory))
    finally:
        serving.close()
