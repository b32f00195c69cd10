"""ELF files made by hand, so that tests of their readers need neither a compiler nor a kernel package."""

from __future__ import annotations

from hearth.image import elf


def make_elf(sections: dict[str, bytes]) -> bytes:
    """Give a little-endian 64-bit ELF file that holds these sections and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name in (*sections, ".shstrtab"))
    contents = {**sections, ".shstrtab": names}
    body = b""
    headers = [elf.SECTION_HEADER.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)]
    for name, data in contents.items():
        at = elf.HEADER.size + len(body)
        name_at = names.index(name.encode() + b"\0")
        headers.append(elf.SECTION_HEADER.pack(name_at, 1, 0, 0, at, len(data), 0, 0, 1, 0))
        body += data
    table_at = elf.HEADER.size + len(body)
    identification = elf.MAGIC + bytes([elf.CLASS_64, elf.LITTLE_ENDIAN, 1]) + bytes(9)
    header = elf.HEADER.pack(
        identification, 1, 62, 1, 0, 0, table_at, 0, elf.HEADER.size, 0, 0, elf.SECTION_HEADER.size,
        len(headers), len(headers) - 1,
    )  # fmt: skip
    return header + body + b"".join(headers)


def make_module(*records: str) -> bytes:
    """Give a kernel module whose ``.modinfo`` says this."""
    return make_elf({".modinfo": b"".join(record.encode() + b"\0" for record in records)})
