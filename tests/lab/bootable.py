"""A disk that boots from its first sector and prints a line on the serial port: proof that a guest started."""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from pathlib import Path

MIB = 1 << 20
RUN = secrets.token_bytes(16)
"""A lab that stands has the images of earlier runs in its cache: each run has its own."""
GREETING = b"hearth lab: booted from a golden image\r\n"
CODE = bytes.fromhex(
    "31c0 8ed8"  # xor ax,ax; mov ds,ax
    "be227c fc"  # mov si,greeting; cld
    "ac 84c0 7412"  # next: lodsb; test al,al; jz halt
    "88c4"  # mov ah,al
    "bafd03 ec a820 74fb"  # mov dx,3fdh; wait: in al,dx; test al,20h; jz wait
    "88e0 baf803 ee ebe9"  # mov al,ah; mov dx,3f8h; out dx,al; jmp next
    "f4 ebfd"  # halt: hlt; jmp halt
)
"""16-bit code that the firmware loads to 7C00h; the greeting follows it."""


def content(size_mib: int) -> bytes:
    """Give such a disk: half of it holds bytes that do not compress, the rest is zero."""
    sector = (CODE + GREETING + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    noise = hashlib.shake_256(RUN).digest(size_mib * MIB // 2 - len(sector))
    return (sector + noise).ljust(size_mib * MIB, b"\0")


def make(directory: Path, size_mib: int) -> Path:
    """Write ``golden-SIZE.qcow2`` beside ``golden-SIZE.raw`` and give it."""
    raw, image = (directory / f"golden-{size_mib}.{kind}" for kind in ("raw", "qcow2"))
    raw.write_bytes(content(size_mib))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, image], check=True, timeout=120)
    return image
