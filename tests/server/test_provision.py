"""Volumes from golden images through a real daemon: filled, replaced, refused, cancelled, and gone on with."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.database_fixtures import DATABASES
from tests.disks import LINUX, disk, ext4, qcow2, run
from tests.image.golden.web import Web, web_server
from tests.postgresql import Server
from tests.provisioning.daemons import ask, order
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.api.event_schemas import JobView
from hearth.errors import Cancelled, Conflict, Forbidden, HearthError, InvalidInput, NotFound, RateLimited
from hearth.sdk.client import Client
from hearth.sdk.provision_calls import ProvisionOptions

MIB = 1 << 20
GB = 1 / 1024
"""One MiB, as orders count."""
DEADLINE_S = 120.0


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Golden images that the daemon may read: one raw, the same as qcow2, one that leads to a file of the host."""
    root = tmp_path_factory.mktemp("golden")
    content = os.urandom(3 * MIB) + bytes(5 * MIB)
    (root / "a.raw").write_bytes(content)
    convert(root / "a.raw", root / "a.qcow2")
    convert(root / "a.raw", root / "never-seen.qcow2")
    (root / "a.qcow2.sha256").write_text(f"{hashlib.sha256((root / 'a.qcow2').read_bytes()).hexdigest()}  a.qcow2\n")
    create = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd"]
    subprocess.run([*create, root / "evil.qcow2", "8M"], check=True)
    (root / "wrong.raw").write_bytes(bytes(MIB))
    (root / "wrong.raw.sha256").write_text("0" * 64)
    return root


@contextlib.contextmanager
def words_for(request: pytest.FixtureRequest) -> Iterator[Sequence[str]]:
    """Give a daemon's words about its database, which is of the kind that the fixture's parameter names."""
    if request.param == "sqlite":
        yield ()
    else:
        server: Server = request.getfixturevalue("postgresql")
        with server.database() as url:
            yield "--database", url


@pytest.fixture(scope="module")
def daemon(directory: Path) -> Iterator[RunningDaemon]:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--image-directories", str(directory)) as running:
            yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as opened:
        yield opened
        for volume in opened.provisioning.volumes():
            opened.provisioning.delete(volume.volume_name)


def convert(source: Path, target: Path, to: str = "qcow2", of: str = "raw") -> None:
    subprocess.run(["qemu-img", "convert", "-f", of, "-O", to, source, target], check=True)


def content_of(volume: JobView, image_format: str, scratch: Path) -> bytes:
    assert volume.volume_path is not None
    convert(Path(volume.volume_path), scratch / "raw", "raw", image_format)
    return (scratch / "raw").read_bytes()


@pytest.mark.parametrize("mode", ["copy", "clone", "auto"])
def test_a_volume_holds_what_its_image_does_and_zeros_beyond(
    client: Client, directory: Path, tmp_path: Path, mode: str
) -> None:
    url = f"file://{directory}/a.qcow2"
    job = client.provisioning.start(url, "vm", 16 * GB, mode=mode, correlation_id="order 7").filled()
    volume = client.provisioning.volume("vm")
    expected = (directory / "a.raw").read_bytes() + bytes(8 * MIB)
    assert content_of(job, volume.format, tmp_path) == expected
    assert (volume.size_bytes, volume.job_id, volume.path) == (16 * MIB, job.job_id, job.volume_path)
    assert (job.status, job.correlation_id, job.progress.percent) == ("completed", "order 7", 100.0)
    assert [step.name for step in job.steps] == ["downloading", "creating", "populating", "finalizing"]


def test_the_second_order_of_an_image_finds_it_in_the_cache(client: Client, directory: Path) -> None:
    url = f"file://{directory}/a.raw"
    first = client.provisioning.start(url, "one", 8 * GB, image_type="raw").filled()
    second = client.provisioning.start(url, "two", 8 * GB, image_type="raw").filled()
    assert (first.cache_hit, second.cache_hit) == (False, True)
    [image] = [image for image in client.provisioning.images() if image.url == url]
    assert image.key == hashlib.sha256((directory / "a.raw").read_bytes()).hexdigest()
    assert client.provisioning.pin(image.key).pinned
    client.provisioning.forget(image.key)
    assert url not in [image.url for image in client.provisioning.images()]


@pytest.fixture(scope="module")
def parted(directory: Path) -> str:
    """The URL of a disk with a table and one ext4."""
    disk(directory / "parted.raw", 24, [(LINUX, ext4(directory / "part", 16))])
    return f"file://{qcow2(directory / 'parted.raw')}"


@pytest.mark.parametrize(
    ("mode", "grow", "grown"),
    [
        ("clone", "table", "table"),
        ("clone", "partition", "partition"),
        ("auto", "filesystem", "filesystem"),
        ("copy", "none", "none"),
    ],
)
def test_what_is_on_a_volume_grows_as_far_as_was_asked(
    client: Client, parted: str, tmp_path: Path, mode: str, grow: str, grown: str
) -> None:
    job = client.provisioning.start(parted, "vm", 64 * GB, mode=mode, grow=grow, verify=True).filled()
    volume = client.provisioning.volume("vm")
    (tmp_path / "seen").write_bytes(content_of(job, volume.format, tmp_path))
    assert job.grown == grown
    assert ("No problems found" in run("sgdisk", "-v", tmp_path / "seen")) is (grow != "none")
    assert job.progress.stage in (None, "finalizing")


def test_a_volume_that_is_grown_later_keeps_a_good_table(client: Client, parted: str, tmp_path: Path) -> None:
    client.provisioning.start(parted, "vm", 32 * GB, mode="copy").filled()
    grown = client.provisioning.grow("vm", 64 * GB, grow="filesystem")
    assert grown.size_bytes == 64 * MIB
    assert "No problems found" in run("sgdisk", "-v", grown.path)
    with pytest.raises(InvalidInput, match="grow"):
        client.provisioning.grow("vm", 64 * GB, grow="all")
    client.provisioning.start(parted, "clone", 32 * GB, mode="clone").filled()
    with pytest.raises(InvalidInput, match="only its guest can grow"):
        client.provisioning.grow("clone", 64 * GB, grow="filesystem")
    assert client.provisioning.volume("clone").size_bytes == 32 * MIB


def test_a_clone_whose_file_system_is_to_grow_is_refused(client: Client, parted: str) -> None:
    job = client.provisioning.start(parted, "vm", 64 * GB, mode="clone", grow="filesystem")
    with pytest.raises(InvalidInput, match="only its guest can grow"):
        job.filled()
    assert not client.provisioning.volumes()


def test_golden_images_are_listed_with_the_others_shown_pinned_and_deleted(
    client: Client, daemon: RunningDaemon, directory: Path
) -> None:
    url = f"file://{directory}/a.raw"
    job = client.provisioning.fetch(url, image_type="raw").filled()
    assert (job.status, job.subject) == ("completed", "a.raw")
    key = hashlib.sha256((directory / "a.raw").read_bytes()).hexdigest()
    [listed] = [image for image in client.images.list() if image.kind == "golden" and image.source == url]
    assert (listed.sha256, listed.name, listed.format, listed.size_bytes) == (key, "a.raw", "raw", 8 * MIB)
    assert listed.last_used_at is not None and not listed.in_use
    assert client.images.get(key) == client.images.get(listed.id) == listed
    assert client.images.pin(listed.id).pinned
    assert [image.pinned for image in client.provisioning.images() if image.key == key] == [True]
    assert not client.images.pin(key, pinned=False).pinned
    with Client(daemon.url, client.users.create("tenant").secret) as tenant:
        assert "golden" not in {image.kind for image in tenant.images.list()}
        for call in (tenant.images.get, tenant.images.delete):
            with pytest.raises(NotFound):
                call(key)
        with pytest.raises(NotFound):
            tenant.images.pin(key)
        with pytest.raises(Forbidden):
            tenant.provisioning.fetch(url)
    client.images.delete(key)
    with pytest.raises(NotFound):
        client.images.get(key)


def test_a_forecast_makes_nothing(client: Client, directory: Path) -> None:
    told = client.provisioning.forecast(f"file://{directory}/a.qcow2", "vm", 16 * GB)
    assert (told.image_size_bytes, told.replaces) == ((directory / "a.qcow2").stat().st_size, False)
    assert not client.provisioning.volumes()


@pytest.mark.parametrize("query", ["dry_run=1", "dry_run=TRUE", "dry_run=", "dryrun=true", "dry_run=true&dry_run=true"])
def test_a_query_that_may_have_meant_a_forecast_makes_no_volume(
    daemon: RunningDaemon, client: Client, directory: Path, query: str
) -> None:
    before = len(client.events.jobs())
    status, answer, _ = ask(daemon, "POST", f"/provision?{query}", order(f"file://{directory}/a.qcow2"))
    assert (status, answer["code"]) == (400, "invalid"), answer
    assert query.partition("=")[0] in answer["error"]
    assert (len(client.events.jobs()), client.provisioning.volumes()) == (before, [])


def test_a_volume_that_is_known_to_be_too_small_is_refused_at_once(
    daemon: RunningDaemon, client: Client, directory: Path
) -> None:
    big, raw = directory / "big.qcow2", f"file://{directory}/a.raw"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", big, "1G"], check=True)
    url = f"file://{big}"
    with pytest.raises(InvalidInput, match="smaller than its image") as forecast:
        client.provisioning.forecast(raw, "vm", 1 * GB, image_type="raw")
    assert "volume_size_gb" in forecast.value.resolution
    client.provisioning.fetch(url).filled()
    before = len(client.events.jobs())
    status, answer, _ = ask(daemon, "POST", "/provision", order(url))
    assert (status, answer["error"]) == (400, "the volume is smaller than its image"), answer
    with pytest.raises(InvalidInput, match="smaller than its image"):
        client.provisioning.forecast(url, "vm", 1 * GB)
    with pytest.raises(InvalidInput, match="another format"):
        client.provisioning.forecast(url, "vm", 2048 * GB, image_type="raw")
    assert len(client.events.jobs()) == before
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", big, "2M"], check=True)
    assert client.provisioning.start(url, "vm", 16 * GB).filled().cache_hit is False, "it is another image now"


def test_a_forecast_tells_how_long_it_may_take_once_the_like_was_done(client: Client, directory: Path) -> None:
    made = directory / "timed.raw"
    made.write_bytes(os.urandom(4 * MIB))
    url = f"file://{made}"
    client.provisioning.start(url, "one", 8 * GB, image_type="raw", mode="copy").filled()
    told = client.provisioning.forecast(url, "two", 8 * GB, image_type="raw", mode="copy")
    assert told.is_cached and told.estimate_s is not None and 0 < told.estimate_s < DEADLINE_S
    made.write_bytes(os.urandom(8 * MIB))
    other = client.provisioning.forecast(url, "two", 8 * GB, image_type="raw", mode="copy")
    assert not other.is_cached and other.estimate_s is not None and other.estimate_s > told.estimate_s


def test_a_volume_of_about_the_same_size_is_replaced_and_of_another_refused(client: Client, directory: Path) -> None:
    url = f"file://{directory}/a.qcow2"
    client.provisioning.start(url, "vm", 100 * GB).filled()
    replaced = client.provisioning.start(url, "vm", 103 * GB).filled()
    assert client.provisioning.volume("vm").job_id == replaced.job_id
    with pytest.raises(Conflict, match="another size"):
        client.provisioning.start(url, "vm", 120 * GB)
    assert client.provisioning.volume("vm").job_id == replaced.job_id


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("../x", {}, "volume_name"),
        ("-x", {}, "volume_name"),
        ("vm", {"image_type": "vmdk"}, "image_type"),
        ("vm", {"mode": "both"}, "mode"),
        ("vm", {"grow": "all"}, "grow"),
        ("vm", {"pool": "nowhere"}, "pool"),
        ("vm", {"checksum": "abc"}, "checksum"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(
    client: Client, directory: Path, name: str, changes: ProvisionOptions, words: str
) -> None:
    options: ProvisionOptions = {"image_type": "qcow2"}
    options.update(changes)
    with pytest.raises(InvalidInput, match=words):
        client.provisioning.start(f"file://{directory}/a.qcow2", name, 16 * GB, **options)


@pytest.mark.parametrize(
    "url", ["", "ftp://example.org/a", "s3://bucket/a", "file:///etc/passwd", "http://169.254.169.254/a"]
)
def test_a_url_that_leads_elsewhere_is_refused_at_once(client: Client, url: str) -> None:
    with pytest.raises((InvalidInput, Forbidden)):
        client.provisioning.start(url, "vm", 16 * GB)


@pytest.mark.parametrize(
    ("image", "image_type", "size_gb", "words"),
    [
        ("evil.qcow2", "qcow2", 16 * GB, "backing"),
        ("a.raw", "qcow2", 16 * GB, "qcow2"),
        ("a.qcow2", "raw", 16 * GB, "raw"),
        ("wrong.raw", "raw", 16 * GB, "checksum"),
        ("missing", "raw", 16 * GB, "no such|not there|missing"),
        ("never-seen.qcow2", "qcow2", 4 * GB, "smaller"),
    ],
)
def test_a_bad_image_fails_its_job_with_words_and_leaves_nothing(
    client: Client, daemon: RunningDaemon, directory: Path, image: str, image_type: str, size_gb: float, words: str
) -> None:
    job = client.provisioning.start(f"file://{directory}/{image}", "vm", size_gb, image_type=image_type)
    with pytest.raises(HearthError, match=words):
        job.filled()
    assert not client.provisioning.volumes()
    assert not list((daemon.data.golden_volumes / "volumes").iterdir())
    assert client.events.job(job.job.job_id).status == "failed"


def test_only_administrators_make_volumes(client: Client, daemon: RunningDaemon, directory: Path) -> None:
    secret = client.users.create("anna").secret
    with Client(daemon.url, secret) as anna:
        for deed in (anna.provisioning.volumes, anna.provisioning.images):
            with pytest.raises(Forbidden):
                deed()
        with pytest.raises(Forbidden):
            anna.provisioning.start(f"file://{directory}/a.qcow2", "vm", 16 * GB)


class Slow:
    """A daemon whose images come from a web server that sends nothing while it is held."""

    def __init__(self, web: Web, words: Sequence[str]) -> None:
        self.web = web
        hosts = ("--image-hosts", f"127.0.0.1:{web.port}", "--image-networks", "127.0.0.0/8")
        self.options: Sequence[str] = (*hosts, *words)


@pytest.fixture(params=DATABASES)
def slow(request: pytest.FixtureRequest) -> Iterator[Slow]:
    with words_for(request) as words, web_server() as web:
        web.objects["/a.raw"] = os.urandom(3 * MIB)
        web.flows.clear()
        try:
            yield Slow(web, words)
        finally:
            web.flows.set()


def wait_for(client: Client, job_id: str, *statuses: str) -> JobView:
    deadline_s = time.monotonic() + DEADLINE_S
    while (job := client.events.job(job_id)).status not in statuses:
        assert time.monotonic() < deadline_s, f"{job_id} is {job.status} at {job.progress}"
        time.sleep(0.02)
    return job


def test_orders_wait_in_line_and_are_the_same_while_they_do(slow: Slow) -> None:
    url = slow.web.url("/a.raw")
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *slow.options, "--provision-queue", "5") as daemon, daemon.client() as client:
            start = client.provisioning.start
            jobs = [start(url, f"vm{number}", 8 * GB, image_type="raw").job for number in range(4)]
            assert len({job.job_id for job in jobs}) == 4
            assert start(url, "vm3", 8 * GB, image_type="raw").job.job_id == jobs[3].job_id
            with pytest.raises(Conflict, match="being made"):
                start(url, "vm3", 16 * GB, image_type="raw")
            digest = hashlib.sha256(slow.web.objects["/a.raw"]).hexdigest()
            spellings = (digest, f"sha256:{digest.upper()}")
            alike = {start(url, "vm4", 8 * GB, image_type="raw", checksum=each).job.job_id for each in spellings}
            assert len(alike) == 1
            client.events.cancel(alike.pop())
            start(url, "vm4", 8 * GB, image_type="raw")
            with Client(daemon.url, daemon.token, patience_s=0) as hasty, pytest.raises(RateLimited):
                hasty.provisioning.start(url, "vm9", 8 * GB, image_type="raw")
            wait_for(client, jobs[1].job_id, "running")
            assert client.events.job(jobs[3].job_id).queue_position == 1
            client.events.cancel(jobs[3].job_id)
            client.events.cancel(jobs[0].job_id)
            assert {client.events.job(jobs[number].job_id).status for number in (0, 3)} == {"cancelled"}
            slow.web.flows.set()
            last = start(url, "vm4", 8 * GB, image_type="raw").job
            for job in (jobs[1], jobs[2], last):
                wait_for(client, job.job_id, "completed")
            assert [volume.volume_name for volume in client.provisioning.volumes()] == ["vm1", "vm2", "vm4"]
            assert slow.web.sent_bytes < 2 * 3 * MIB  # fetched once for all of them


def test_a_cancelled_job_says_so_to_who_follows_it(slow: Slow) -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *slow.options) as daemon, daemon.client() as client, daemon.client() as other:
            job = client.provisioning.start(slow.web.url("/a.raw"), "vm", 8 * GB, image_type="raw")
            wait_for(other, job.job.job_id, "running")
            other.events.cancel(job.job.job_id)
            with pytest.raises(Cancelled):
                job.filled()
            assert not client.provisioning.volumes()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_goes_on_with_what_another_left(slow: Slow, end: signal.Signals) -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *slow.options) as daemon, daemon.client() as client:
            job = client.provisioning.start(slow.web.url("/a.raw"), "vm", 8 * GB, image_type="raw").job
            wait_for(client, job.job_id, "running")
            daemon.process.send_signal(end)
            daemon.process.wait(DEADLINE_S)
        slow.web.flows.set()
        with running_daemon(data, *slow.options) as daemon, daemon.client() as client:
            done = wait_for(client, job.job_id, "completed")
            assert done.attempts == 2
            assert client.provisioning.volume("vm").job_id == job.job_id
