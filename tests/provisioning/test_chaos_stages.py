"""A daemon killed, and a job cancelled, at every stage: it ends right, and nothing half-made or lost stays behind."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import obstore
import pytest
from tests.provisioning.daemons import (
    ask,
    credentials,
    ended,
    order,
    wait_for_stage,
    what_is_left,
)
from tests.provisioning.held import HeldTool, tools_of
from tests.provisioning.relay import Relay, relay
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.bench.s3_server import S3Server
from hearth.config import DataDirectory
from hearth.errors import Conflict
from hearth.host.locks import FileLock, try_lock
from hearth.sdk.client import Client

pytestmark = pytest.mark.root

MIB = 1 << 20
WAIT_S = 120.0
STAGES = ("resolving", "downloading", "verifying", "creating", "populating", "finalizing")
OLD = "old.raw"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A data directory, an object storage behind a network that can be held, and a tool that can, too."""

    data: DataDirectory
    server: S3Server
    bucket: str
    network: Relay
    tool: HeldTool
    image: bytes

    @contextlib.contextmanager
    def daemon(self) -> Iterator[RunningDaemon]:
        endpoint = f"http://127.0.0.1:{self.network.port}"
        prefix = (*credentials(self.server, self.bucket, endpoint), *self.tool.prefix)
        with running_daemon(self.data, "--s3-retry-backoff-ms", "1", prefix=prefix) as running:
            yield running

    def put(self, name: str, data: bytes) -> str:
        obstore.put(self.server.store(self.bucket), name, data)
        return f"s3://{self.bucket}/{name}"

    @contextlib.contextmanager
    def held_at(self, stage: str) -> Iterator[Callable[[Client, str], None]]:
        """Hold whatever comes to a stage; gives what waits until a job is there. At the end everything passes."""
        if stage in ("resolving", "downloading"):
            self.network.hold(after_bytes=0 if stage == "resolving" else len(self.image) // 2)
            try:
                yield lambda client, job_id: self.network.wait_until_held()
            finally:
                self.network.release()
        elif stage == "finalizing":
            with self.tool.holding("convert") as gate, contextlib.ExitStack() as taken:

                def take(client: Client, job_id: str) -> None:
                    gate.wait_until_reached()  # what comes before needs the lock, too
                    taken.enter_context(_taken(self.data.golden_volumes / "lock"))
                    gate.release()
                    wait_for_stage(client, job_id, stage)

                yield take
        else:
            command = {"verifying": "check", "creating": "create", "populating": "convert"}[stage]
            with self.tool.holding(command) as gate:
                yield lambda client, job_id: gate.wait_until_reached()


def _taken(path: Path) -> FileLock:
    """Take a lock that is held for moments by others."""
    deadline_s = time.monotonic() + WAIT_S
    while (lock := try_lock(path)) is None:
        assert time.monotonic() < deadline_s, f"{path} is not let go of"
        time.sleep(0.01)
    return lock


@pytest.fixture(scope="module")
def scene(storage: S3Server | str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if isinstance(storage, str):
        pytest.skip(storage)
    directory = tmp_path_factory.mktemp("scene")
    raw, path = directory / "a.raw", directory / "a.qcow2"
    raw.write_bytes(os.urandom(4 * MIB) + bytes(4 * MIB))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", "-f", "raw", str(raw), str(path)], check=True)
    (directory / "tool").mkdir()
    with (
        storage.own_bucket("golden") as bucket,
        relay(storage.endpoint) as network,
        data_directory() as data,
    ):
        publish_images(data)
        made = Scene(
            data=data,
            server=storage,
            bucket=bucket,
            network=network,
            tool=HeldTool(directory / "tool"),
            image=path.read_bytes(),
        )
        made.put(OLD, os.urandom(MIB))
        yield made


def start(daemon: RunningDaemon, url: str, **changes: str) -> str:
    status, answer, _ = ask(daemon, "POST", "/provision", order(url, **changes))
    assert status == 202, answer
    return str(answer["job_id"])


def with_old_volume(scene: Scene, daemon: RunningDaemon, client: Client) -> tuple[str, str]:
    """Have a volume whose name is asked for again; gives its job and what it holds."""
    job = ended(client, start(daemon, f"s3://{scene.bucket}/{OLD}", image_type="raw", mode="copy"))
    assert job.volume_path is not None
    return job.job_id, digest(job.volume_path)


def digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def is_untouched(client: Client, before: tuple[str, str]) -> bool:
    volume = client.provisioning.volume("vm")
    return (volume.job_id, digest(volume.path)) == before


def mode_at(stage: str) -> str:
    """Give the way in which there is something to hold at a stage."""
    return "clone" if stage == "creating" else "copy"


@pytest.fixture(scope="module")
def daemon(scene: Scene) -> Iterator[RunningDaemon]:
    with scene.daemon() as running:
        yield running


@pytest.mark.parametrize("stage", STAGES)
def test_cancelled_at_any_stage_a_job_ends_with_its_children(scene: Scene, daemon: RunningDaemon, stage: str) -> None:
    with daemon.client() as client:
        before = with_old_volume(scene, daemon, client)
        images = [image.key for image in client.provisioning.images()]
        url = scene.put(f"cancel-{stage}", scene.image)
        with scene.held_at(stage) as wait_until_there:
            job_id = start(daemon, url, mode=mode_at(stage))
            wait_until_there(client, job_id)
            if stage == "finalizing":  # its undo needs what holds it
                cancelling = threading.Thread(target=cancel, args=(daemon, job_id))
                cancelling.start()
                wait_until_undone(client, job_id)
            else:
                client.events.cancel(job_id)
                assert client.events.job(job_id).status == "cancelled"
                assert tools_of(daemon.process.pid) == []
        if stage == "finalizing":
            cancelling.join(WAIT_S)
            assert client.events.job(job_id).status == "cancelled"
        assert is_untouched(client, before)
        assert unfinished(scene.data) == []
        found = [image.key for image in client.provisioning.images() if image.key not in images]
        for key in found:
            client.provisioning.forget(key)
        assert len(found) == (stage in ("creating", "populating", "finalizing"))
        client.provisioning.delete("vm")


def test_what_a_job_works_with_stays_as_it_is_until_its_end(scene: Scene, daemon: RunningDaemon) -> None:
    with daemon.client() as client:
        with_old_volume(scene, daemon, client)
        url = scene.put("held", scene.image)
        with scene.held_at("populating") as wait_until_there:
            job_id = start(daemon, url, mode="copy")
            wait_until_there(client, job_id)
            [image] = [image for image in client.provisioning.images() if image.url == url]
            assert (image.in_use, image.used_by) == (True, [job_id])
            with pytest.raises(Conflict, match=f"in use.*{job_id}"):
                client.provisioning.forget(image.key)
            with pytest.raises(Conflict, match=job_id):
                client.provisioning.delete("vm")
            with pytest.raises(Conflict, match=job_id):
                client.provisioning.grow("vm", 1.0)
            with pytest.raises(Conflict, match=job_id):
                client.link_volume("vm", "vm")
        assert ended(client, job_id).status == "completed"
        assert client.provisioning.images()[0].used_by == []
        client.provisioning.delete("vm")
        client.provisioning.forget(image.key)


def cancel(daemon: RunningDaemon, job_id: str) -> None:
    with daemon.client() as other:
        other.events.cancel(job_id)


def wait_until_undone(client: Client, job_id: str) -> None:
    """Wait until a job is being undone: it has its error then."""
    deadline_s = time.monotonic() + WAIT_S
    while client.events.job(job_id).error is None:
        assert time.monotonic() < deadline_s, f"{job_id} is not being undone"
        time.sleep(0.01)


def wait_until_gone(stage: str) -> None:
    """Wait until nothing is left of what a killed daemon had started: orphans are given to us, and die with it."""
    deadline_s = time.monotonic() + WAIT_S
    while left := tools_of(os.getpid()):
        assert time.monotonic() < deadline_s, f"{stage}: {left}"
        time.sleep(0.01)


def unfinished(data: DataDirectory) -> list[str]:
    return [name for name in what_is_left(data) if name.endswith(".tmp")]


def let_leases_run_out(data: DataDirectory) -> None:
    """Have half a minute gone by, for those who look at leases."""
    with contextlib.closing(sqlite3.connect(data.database)) as database, database:
        database.execute("UPDATE jobs SET lease_until = '2000-01-01 00:00:00.000000' WHERE lease_until IS NOT NULL")


def test_a_job_over_which_daemons_die_is_given_up_with_words(scene: Scene) -> None:
    with data_directory() as data:
        publish_images(data)
        scene = dataclasses.replace(scene, data=data)
        with scene.held_at("downloading") as wait_until_there:
            with scene.daemon() as daemon, daemon.client() as client:
                job_id = start(daemon, scene.put("worn", scene.image))
                wait_until_there(client, job_id)
                daemon.process.send_signal(signal.SIGKILL)
                daemon.process.wait(WAIT_S)
            let_leases_run_out(data)
            with contextlib.closing(sqlite3.connect(data.database)) as database, database:
                database.execute("UPDATE jobs SET attempt = 5")
            with scene.daemon() as daemon, daemon.client() as client:
                job = ended(client, job_id)
                assert (job.status, job.error and job.error.error) == ("failed", "the job was begun too often")
                assert what_is_left(data) == []


def test_killed_at_any_stage_a_daemon_leaves_its_job_to_the_next(scene: Scene) -> None:
    with data_directory() as data, contextlib.ExitStack() as last:
        publish_images(data)
        scene = dataclasses.replace(scene, data=data)  # the other one has a daemon
        daemon = last.enter_context(scene.daemon())
        for stage in STAGES:
            with daemon.client() as client:
                before = with_old_volume(scene, daemon, client)
                url = scene.put(f"kill-{stage}", scene.image)
                with scene.held_at(stage) as wait_until_there:
                    job_id = start(daemon, url, mode=mode_at(stage))
                    wait_until_there(client, job_id)
                    daemon.process.send_signal(signal.SIGKILL)
                    daemon.process.wait(WAIT_S)
                    wait_until_gone(stage)
            last.pop_all().close()
            let_leases_run_out(scene.data)
            daemon = last.enter_context(scene.daemon())
            with daemon.client() as client:
                job = ended(client, job_id)
                assert (job.status, job.attempts) == ("completed", 2), (stage, job)
                volume = client.provisioning.volume("vm")
                assert volume.job_id == job_id != before[0]
                assert unfinished(scene.data) == [], stage
                client.provisioning.delete("vm")
                for image in client.provisioning.images():
                    client.provisioning.forget(image.key)
