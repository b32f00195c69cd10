"""The smallest guest there is: a boot sector that reads the next sector of its disk and says on the serial line what
stands there. It proves that a machine boots from a disk and reads it, in the second that a BIOS takes.
"""

from __future__ import annotations

from pathlib import Path

SECTOR_BYTES = 512
READ_NEXT = bytes.fromhex(
    "31c0"  # xor ax, ax
    "8ed8"  # mov ds, ax
    "8ec0"  # mov es, ax
    "bb007e"  # mov bx, 0x7e00      to behind this sector
    "b80102"  # mov ax, 0x0201      read one sector
    "b90200"  # mov cx, 0x0002      the second of cylinder 0
    "b600"  # mov dh, 0             by the first head; dl is the disk we came from
    "cd13"  # int 0x13
)
SAY_IT = bytes.fromhex(
    "be007e"  # mov si, 0x7e00
    "baf803"  # mov dx, 0x3f8       the first serial port
    "fc"  # cld
    "ac"  # next: lodsb
    "84c0"  # test al, al
    "7403"  # jz end
    "ee"  # out dx, al
    "ebf8"  # jmp next
    "f4"  # end: hlt
    "ebfd"  # jmp end
)


def write_disk(path: Path, said: str, size_bytes: int) -> None:
    """Write a raw disk of a guest that says this, at most 511 bytes."""
    code = READ_NEXT + SAY_IT
    boot = code + bytes(SECTOR_BYTES - 2 - len(code)) + b"\x55\xaa"
    with path.open("wb") as file:
        file.write(boot + said.encode().ljust(SECTOR_BYTES, b"\0"))
        file.truncate(size_bytes)


def domain_xml(name: str, disk: Path, image_format: str, serial: Path, *, is_block: bool = False) -> str:
    """Describe a libvirt domain that boots from a disk and writes its serial line into a file, emulated."""
    kind, attribute = ("block", "dev") if is_block else ("file", "file")
    return f"""
<domain type='qemu'>
  <name>{name}</name>
  <memory unit='MiB'>16</memory>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <disk type='{kind}' device='disk'>
      <driver name='qemu' type='{image_format}'/><source {attribute}='{disk}'/><target dev='vda' bus='virtio'/>
    </disk>
    <serial type='file'><source path='{serial}'/></serial>
    <memballoon model='none'/>
    <video><model type='none'/></video>
  </devices>
</domain>"""
