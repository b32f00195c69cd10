"""Volumes in real machines: what is written stays, nobody has one twice, and no crash changes either."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.machines.sleepers import VmHouse, opened, start_threads

from hearth.config import DataDirectory
from hearth.control.creation import Extras
from hearth.control.volumes import NewVolume, WantedVolumes
from hearth.engine.base import SnapshotRefused
from hearth.errors import Conflict, NotFound
from hearth.model import Heat, Sandbox, SandboxSpec, SandboxState
from hearth.volume.base import AttachMode, VolumeInUse
from hearth.volume.mounting import VolumeRequest

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]

MOUNTED = "grep -c ' {0} ext4 {1},' /proc/mounts"


class Yard(VmHouse):
    """A house with short words for what is done with volumes."""

    @contextlib.asynccontextmanager
    async def box(self, name: str, *existing: VolumeRequest, new: NewVolume | None = None) -> AsyncIterator[Sandbox]:
        """A sandbox with volumes, destroyed at the end."""
        wanted = WantedVolumes(existing=existing, new=[] if new is None else [new])
        made = (await self.sandboxes.create(self.admin, SandboxSpec(name=name), extras=Extras(volumes=wanted))).sandbox
        try:
            yield made
        finally:
            with contextlib.suppress(NotFound):
                await self.sandboxes.destroy(self.admin, made.id)

    @contextlib.asynccontextmanager
    async def volume(self, name: str, size_mib: int = 16) -> AsyncIterator[str]:
        """A volume of that name, deleted at the end."""
        await self.daemon.volumes.create(self.admin, name, size_mib)
        try:
            yield name
        finally:
            await self.daemon.volumes.delete(self.admin, name)

    async def attach(self, sandbox: Sandbox, name: str, mount: str, *, read_only: bool = False) -> None:
        request = VolumeRequest(name=name, mount=mount, read_only=read_only)
        await self.daemon.attaching.attach(self.admin, sandbox.id, request)

    async def detach(self, sandbox: Sandbox, name: str) -> None:
        await self.daemon.attaching.detach(self.admin, sandbox.id, name)

    async def holders(self, name: str) -> list[tuple[str, AttachMode]]:
        """Who has a volume by the record that outlives every process."""
        volume = await self.daemon.volumes.get(self.admin, name)
        found = self.sandboxes.workshop.volumes.attachments.holders(volume.id)
        return [(holder.machine, holder.mode) for holder in found]

    async def user(self, sandbox: Sandbox, script: str) -> str:
        """Run a script as the sandbox's user."""
        out, status = await self.output(sandbox.id, "/bin/sh", "-c", script)
        assert status == 0, script
        return out.decode().strip()


def on(name: str, mount: str, *, read_only: bool = False) -> VolumeRequest:
    return VolumeRequest(name=name, mount=mount, read_only=read_only)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def yard(slept_in: DataDirectory) -> AsyncIterator[Yard]:
    await start_threads()
    async with opened(slept_in) as house:
        yard = Yard(house)
        async with yard.box("template-maker"):
            """The template is in memory from here on."""
        yield yard


async def test_what_is_written_to_a_new_volume_survives_the_sandbox_it_was_made_for(yard: Yard) -> None:
    async with yard.box("first", new=NewVolume(name="data", size_mib=32, mount="/srv/data")) as first:
        await yard.user(first, "echo kept > /srv/data/note")
        assert await yard.holders("data") == [(first.id, AttachMode.READ_WRITE)]
        with pytest.raises(VolumeInUse, match="first"):
            await yard.daemon.volumes.delete(yard.admin, "data")
    assert await yard.holders("data") == []

    await yard.daemon.volumes.resize(yard.admin, "data", 48)
    async with yard.box("second", on("data", "/mnt/again")) as second:
        assert await yard.user(second, "cat /mnt/again/note") == "kept"
        assert int(await yard.user(second, "df --output=size -m /mnt/again | tail -1")) > 40
    copy = await yard.daemon.volumes.clone(yard.admin, "data", "copy")
    assert copy.size_mib == 48
    for name in ("data", "copy"):
        await yard.daemon.volumes.delete(yard.admin, name)


async def test_a_volume_is_read_by_many_and_then_written_by_none(yard: Yard) -> None:
    async with yard.volume("shared"):
        async with yard.box("writer", on("shared", "/srv/shared")) as writer:
            await yard.user(writer, "echo for all > /srv/shared/note")
        # The writer was ended with the volume mounted: its journal is replayed before anybody reads.
        async with (
            yard.box("ada", on("shared", "/srv/shared", read_only=True)) as ada,
            yard.box("bob") as bob,
        ):
            await yard.attach(bob, "shared", "/mnt/shared", read_only=True)
            assert await yard.user(ada, "cat /srv/shared/note") == "for all"
            assert await yard.user(bob, "cat /mnt/shared/note") == "for all"
            denied = await yard.shell(bob, "touch /mnt/shared/x 2>&1 || mount -o remount,rw /mnt/shared 2>&1 || true")
            assert "ead-only" in denied or "write-protected" in denied
            assert len(await yard.holders("shared")) == 2
            with pytest.raises(VolumeInUse):
                await yard.attach(ada, "shared", "/mnt/other")

            async with yard.box("carl") as carl:
                with pytest.raises(VolumeInUse, match=r"ada|bob"):
                    await yard.attach(carl, "shared", "/srv/shared")
            (copy,) = await yard.sandboxes.fork(yard.admin, ada.id, name="ada-copy")
            assert await yard.user(copy, "cat /srv/shared/note") == "for all"
            assert len(await yard.holders("shared")) == 3
            await yard.daemon.checkpoints.create(yard.admin, copy.id, "reading")
            await yard.sandboxes.destroy(yard.admin, copy.id)
        # A checkpoint knows the volume as it was: it goes on while nobody has written to it, and not afterwards.
        (resumed,) = await yard.daemon.checkpoints.resume(yard.admin, "reading", sandbox_name="resumed")
        assert await yard.user(resumed, "cat /srv/shared/note") == "for all"
        await yard.sandboxes.destroy(yard.admin, resumed.id)
        async with yard.box("writer", on("shared", "/srv/shared")) as writer:
            await yard.user(writer, "echo changed > /srv/shared/note")
        with pytest.raises(SnapshotRefused, match="volumes are not as they were"):
            await yard.daemon.checkpoints.resume(yard.admin, "reading", sandbox_name="resumed")
        await yard.daemon.checkpoints.delete(yard.admin, "reading")
        assert await yard.holders("shared") == []


async def test_a_running_machine_gets_a_volume_and_gives_it_back(yard: Yard) -> None:
    async with yard.volume("data"), yard.box("one") as one, yard.box("two") as two:
        await yard.attach(one, "data", "/srv/data")
        await yard.attach(one, "data", "/srv/data")  # as it is already
        await yard.user(one, "head -c 1000000 /dev/urandom > /srv/data/file")
        written = await yard.user(one, "sha256sum < /srv/data/file")
        with pytest.raises(VolumeInUse, match="one"):
            await yard.attach(two, "data", "/srv/data")
        with pytest.raises(Conflict, match="cannot be copied"):
            await yard.sandboxes.fork(yard.admin, one.id)

        pid = await yard.user(one, "cd /srv/data && (sleep 1000 >/dev/null 2>&1 & echo $!)")
        with pytest.raises(Conflict):
            await yard.detach(one, "data")
        await yard.shell(one, f"kill -9 {pid}; while test -d /proc/{pid}; do :; done")
        await yard.detach(one, "data")
        assert await yard.holders("data") == []
        with pytest.raises(NotFound, match="not attached"):
            await yard.detach(one, "data")

        await yard.attach(two, "data", "/srv/data")
        assert await yard.user(two, "sha256sum < /srv/data/file") == written
        await yard.detach(two, "data")


async def test_a_sandbox_that_sleeps_keeps_its_volumes_and_wakes_with_them_mounted(yard: Yard) -> None:
    async with yard.volume("data"), yard.box("sleeper", on("data", "/srv/data")) as sleeper, yard.box("other") as other:
        await yard.user(sleeper, "exec 3>/srv/data/log; echo one >&3; sleep 5000 3>&3 >/dev/null 2>&1 & echo $!")
        await yard.stop(sleeper)
        assert await yard.holders("data") == [(sleeper.id, AttachMode.READ_WRITE)]
        with pytest.raises(VolumeInUse, match="sleeper"):
            await yard.attach(other, "data", "/srv/data")
        with pytest.raises(VolumeInUse, match="sleeper"):
            await yard.daemon.volumes.resize(yard.admin, "data", 32)

        await yard.user(sleeper, "echo two >> /srv/data/log && sync /srv/data/log && cat /srv/data/log")
        row = await yard.look(sleeper)
        assert (row.state, row.error, yard.heat(sleeper)) == (SandboxState.RUNNING, None, Heat.HOT)
        assert await yard.shell(sleeper, MOUNTED.format("/srv/data", "rw")) == "1"

        # Memory that knows an older state of the volume is refused, and a boot from disk mounts it.
        await yard.stop(sleeper)
        volume = await yard.daemon.volumes.get(yard.admin, "data")
        (yard.data.volumes / "disks" / volume.id / "disk").touch()
        with pytest.raises(SnapshotRefused, match="volumes are not as they were"):
            await yard.sandboxes.start(yard.admin, sleeper.id)
        await yard.sandboxes.start(yard.admin, sleeper.id, force=True)
        assert await yard.user(sleeper, "cat /srv/data/log") == "one\ntwo"
        await yard.user(sleeper, "echo three >> /srv/data/log")


async def test_a_full_volume_is_its_writers_trouble_alone(yard: Yard) -> None:
    async with yard.volume("small"), yard.box("filler", on("small", "/srv/small")) as filler:
        said = await yard.user(filler, "dd if=/dev/zero of=/srv/small/fill bs=1M 2>&1 || true")
        assert "No space left on device" in said
        await yard.user(filler, "echo fine > /var/tmp/note")
        await yard.stop(filler)
        assert (
            await yard.user(filler, "cat /var/tmp/note && rm /srv/small/fill && echo room > /srv/small/note") == "fine"
        )
