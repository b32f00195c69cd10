"""A daemon that dies of SIGKILL at one step of work on volumes: ``DIRECTORY SANDBOX attach|detach|create STEP``.

Everything is real; the step alone is wrapped by what kills this process after it. The volume is called data.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.machines.doomed_sleeper import Place, doom
from tests.machines.sleepers import VmHouse, opened

from hearth.config import DataDirectory
from hearth.control.creation import Extras
from hearth.control.volumes import NewVolume, WantedVolumes
from hearth.engine.qemu.machine import QemuMachine
from hearth.engine.qemu.qmp import Qmp
from hearth.guest.client import Guest
from hearth.jobs.volumes import MachineVolumes
from hearth.model import SandboxSpec
from hearth.store.sql_sandboxes import SqlSandboxes
from hearth.store.sql_volumes import SqlVolumes
from hearth.volume.file import FileVolumes
from hearth.volume.locks import Attachments
from hearth.volume.mounting import VolumeRequest

MOUNT = "/srv/data"
ATTACH: Mapping[str, Place] = {
    "place": (SqlVolumes, "place"),
    "acquire": (Attachments, "acquire"),
    "hand over": (Qmp, "hand_over"),
    "plug": (QemuMachine, "attach_volume"),
    "mount": (Guest, "settle_volumes"),
}
DETACH: Mapping[str, Place] = {
    "unmount": (Guest, "settle_volumes"),
    "unplug": (QemuMachine, "detach_volume"),
    "release": (Attachments, "release"),
}
CREATE: Mapping[str, Place] = {
    "volume's row": (SqlVolumes, "create"),
    "bytes": (FileVolumes, "create"),
    "take": (MachineVolumes, "take"),
    "plug": (QemuMachine, "attach_volume"),
    "sandbox's row": (SqlSandboxes, "transition"),
}
"""The steps in their order; each kills after it."""


async def work_on(house: VmHouse, sandbox_id: str, work: str) -> None:
    if work == "attach":
        await house.daemon.attaching.attach(house.admin, sandbox_id, VolumeRequest(name="data", mount=MOUNT))
    elif work == "detach":
        await house.daemon.attaching.detach(house.admin, sandbox_id, "data")
    else:
        wanted = WantedVolumes(new=[NewVolume(name="data", size_mib=16, mount=MOUNT)])
        await house.sandboxes.create(house.admin, SandboxSpec(name="made"), extras=Extras(volumes=wanted))


async def main(directory: str, sandbox_id: str, work: str, step: str) -> None:
    async with opened(DataDirectory(root=Path(directory))) as house:
        doom(*{"attach": ATTACH, "detach": DETACH, "create": CREATE}[work][step])
        await work_on(house, sandbox_id, work)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
