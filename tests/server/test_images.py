"""/images of a real daemon: pulls from a real registry, archives in, who sees what, and what is left of what failed."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from tests.image.layers.archives import archive, directory, file, link, symlink
from tests.image.oci.images import Built, Pusher, build
from tests.image.oci.servers import htpasswd, registry
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon

from hearth.errors import Cancelled, Conflict, Forbidden, HearthError, InvalidInput, NotFound, QuotaExceeded
from hearth.sdk.client import Client

USER, PASSWORD = "tester", "a secret word"
CONFIG = {"Env": ["GREETING=hello", "PLACE=image"], "WorkingDir": "/usr", "Cmd": ["/bin/sh"], "User": "root"}
NOISE = os.urandom(3_000_000)


@dataclass(frozen=True, kw_only=True)
class House:
    """A daemon, and a registry that asks who comes."""

    daemon: RunningDaemon
    registry: str

    def files_left(self) -> list[str]:
        """Name what is unfinished in the image store, once what is being removed just now has gone."""
        deadline = time.monotonic() + 60
        while (left := [path.name for path in self.daemon.data.images.glob("*.tmp")]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return left


def image() -> Built:
    lower = archive(directory("usr"), file("usr/data", NOISE), file("gone"), directory("etc"), symlink("a", "/etc"))
    upper = archive(file(".wh.gone"), file("a/motd", "hi"), link("hard", "etc/motd"))
    return build([lower, upper], config=CONFIG)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("registry")
    with (
        registry(directory, auth=htpasswd(directory, USER, PASSWORD)) as host,
        data_directory() as data,
    ):
        Pusher.basic(host, "some/app", USER, PASSWORD).push("1", image())
        publish_images(data)
        with running_daemon(data, "--registry-insecure", "127.0.0.1", "--image-max-mib", "64") as daemon:
            yield House(daemon=daemon, registry=host)


@pytest.fixture
def client(house: House) -> Iterator[Client]:
    with house.daemon.client() as client:
        yield client
        for each in client.images.list():
            if each.owner is not None and each.state == "ready":
                client.images.delete(each.id)
    assert house.files_left() == []


def pulled(house: House, client: Client, name: str = "app") -> str:
    job = client.images.pull(
        f"{house.registry}/some/app:1",
        name=name,
        username=USER,
        password=PASSWORD,
        insecure=True,
        platform="linux/amd64",
    )
    return job.wait().id


def test_a_pull_tells_how_far_it_is_and_what_came(house: House, client: Client) -> None:
    job = client.images.pull(
        f"{house.registry}/some/app:1", username=USER, password=PASSWORD, insecure=True, platform="linux/amd64"
    )
    told = list(job)
    assert job.job.status == "completed" and told
    percents = [each.percent for each in told if each.percent is not None]
    assert percents == sorted(percents)
    assert any(each.stage == "downloading" and each.bytes_total for each in told)
    view = client.images.get("app-1")
    assert (view.kind, view.state, view.source) == ("rootfs", "ready", f"{house.registry}/some/app:1")
    assert view.defaults is not None and view.defaults.env == {"GREETING": "hello", "PLACE": "image"}
    assert (view.defaults.user, view.defaults.working_dir, view.defaults.cmd) == ("root", "/usr", ["/bin/sh"])
    assert view.disk_bytes < view.size_bytes
    path = house.daemon.data.images / view.id / "rootfs.ext4"
    assert listed(path, "/") >= {"a", "etc", "hard", "usr", "proc", "tmp"} and "gone" not in listed(path, "/")
    assert "motd" in listed(path, "/etc")
    subprocess.run(["e2fsck", "-fn", str(path)], check=True, capture_output=True)


def listed(image: Path, where: str) -> set[str]:
    words = ["debugfs", "-R", f"ls -p {where}", str(image)]
    lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
    return {line.split("/")[5] for line in lines if line.count("/") >= 6}


def test_commands_get_what_the_image_says_unless_they_say_otherwise(house: House, client: Client) -> None:
    pulled(house, client)
    with client.create(name="of-app", image="app", env={"PLACE": "sandbox"}) as sandbox:
        script = ["sh", "-c", "echo $GREETING $PLACE; pwd; id -un"]
        assert sandbox.run(script).check().stdout.split() == ["hello", "sandbox", "/usr", "root"]
        assert sandbox.run(script, cwd="/tmp", env={"GREETING": "moin"}).check().stdout.split()[:3] == [
            *("moin", "sandbox", "/tmp")
        ]
        client.images.delete("app")
        with pytest.raises(NotFound):
            client.images.get("app")
        with pytest.raises(NotFound):
            client.create(name="another", image="app")
        assert sandbox.run(script).check().stdout.split()[0] == "hello"
        (left,) = [each for each in client.images.list() if each.name == "app"]
        assert left.state == "deleting"
        with pytest.raises(NotFound):
            client.create(name="another", image=left.id)


def test_credentials_are_asked_for_and_may_come_from_a_secret(house: House, client: Client) -> None:
    reference = f"{house.registry}/some/app:1"
    for options in ({}, {"username": USER, "password": "wrong"}):
        with pytest.raises(HearthError, match="credentials") as caught:
            client.images.pull(reference, insecure=True, **options).wait()  # type: ignore[arg-type]
        assert "wrong" not in str(caught.value)
    client.secrets.put("REGISTRY", f"{USER}:{PASSWORD}")
    job = client.images.pull(reference, insecure=True, secret="REGISTRY", platform="linux/amd64")
    assert job.wait().name == "app-1"
    assert PASSWORD not in house.daemon.log_file.read_text()
    database = b"".join(path.read_bytes() for path in house.daemon.data.root.glob("hearth.db*"))
    assert PASSWORD.encode() not in database
    with pytest.raises(InvalidInput, match="username"):
        client.images.pull(reference, username=USER, insecure=True)
    with pytest.raises(NotFound):
        client.images.pull(reference, secret="NONE", insecure=True)


def test_what_the_operator_did_not_allow_is_forbidden(client: Client) -> None:
    for reference, insecure in (("169.254.169.254/x", False), ("debian", False), ("127.0.0.2/x", True)):
        with pytest.raises(Forbidden):
            client.images.pull(reference, name="x", insecure=insecure)


def test_names_are_each_users_own_and_the_hosts_are_nobodys(house: House, client: Client) -> None:
    made = client.users.create("neighbour")
    mine = pulled(house, client)
    with Client(house.daemon.url, made.secret) as theirs:
        their = pulled(house, theirs)
        assert mine != their and theirs.images.get("app").id == their and client.images.get("app").id == mine
        with pytest.raises(NotFound):
            theirs.images.get(mine)
        with pytest.raises(NotFound):
            theirs.images.delete(mine)
        with pytest.raises(Conflict):
            theirs.images.pull(f"{house.registry}/some/app:1", name="debian", insecure=True)
        with pytest.raises(Forbidden):
            theirs.images.delete("debian")
        with pytest.raises(Forbidden):
            theirs.images.pull(f"{house.registry}/some/app:1", name="ours", insecure=True, shared=True)
        with pytest.raises(InvalidInput):
            theirs.images.pull(f"{house.registry}/some/app:1", name="pull", insecure=True)
        client.users.set_quotas("neighbour", images=1)
        with pytest.raises(QuotaExceeded):
            theirs.images.pull(f"{house.registry}/some/app:1", name="second", insecure=True)
        assert pulled(house, theirs) == their  # the same again takes no more
        theirs.images.delete("app")


def docker_save(built: Built) -> bytes:
    manifest = json.loads(built.manifest)
    layers = [built.blobs[each["digest"]] for each in manifest["layers"]]
    plain = [gzip.decompress(each) for each in layers]
    names = [f"{number}/layer.tar" for number in range(len(plain))]
    listing = [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": names}]
    parts = [file(name, data) for name, data in zip(names, plain, strict=True)]
    return archive(*parts, file("config.json", built.config), file("manifest.json", json.dumps(listing)))


def oci_layout(built: Built, *, spoilt: bool = False) -> bytes:
    blobs = {**built.blobs, built.digest: built.manifest}
    index = {"schemaVersion": 2, "manifests": [{"digest": built.digest, "size": len(built.manifest)}]}
    spoil = [*built.blobs][-1] if spoilt else ""
    return archive(
        file("oci-layout", '{"imageLayoutVersion": "1.0.0"}'),
        file("index.json", json.dumps(index)),
        *(
            file(f"blobs/{name.replace(':', '/')}", data[:-1] + b"x" if name == spoil else data)
            for name, data in blobs.items()
        ),
    )


def plain() -> bytes:
    return archive(file("etc/motd", "plain"), file("usr/noise", NOISE), file(".wh.kept"))


ARCHIVES: dict[str, tuple[Callable[[], bytes], bool]] = {
    "docker-save": (lambda: docker_save(image()), True),
    "docker-save-gz": (lambda: gzip.compress(docker_save(image()), 1), True),
    "oci-layout": (lambda: oci_layout(image()), True),
    "oci-layout-zst": (lambda: zstandard.ZstdCompressor().compress(oci_layout(image())), True),
    "file-system": (plain, False),
    "file-system-gz": (lambda: gzip.compress(plain(), 1), False),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_of_any_kind_become_images(house: House, client: Client, name: str) -> None:
    make, is_image = ARCHIVES[name]
    view = client.images.import_(io.BytesIO(make()), name, platform="linux/amd64").wait()
    path = house.daemon.data.images / view.id / "rootfs.ext4"
    assert "motd" in listed(path, "/etc") and view.source == "import"
    assert view.defaults is not None and (view.defaults.env == {"GREETING": "hello", "PLACE": "image"}) is is_image
    assert (".wh.kept" in listed(path, "/")) is not is_image


REFUSED: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "noise": lambda: b"noise" * 1000,
    "cut": lambda: plain()[:1_000_000],
    "upwards": lambda: archive(file("../../etc/passwd", "x")),
    "spoilt": lambda: oci_layout(image(), spoilt=True),
    "bomb": lambda: gzip.compress(archive(file("big", bytes(70 << 20)))),
    "wrong-layer": lambda: docker_save(build([archive(file("x"))], config=CONFIG, diff_ids=["sha256:" + "0" * 64])),
    "too-large": lambda: bytes(65 << 20),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_is_refused_with_words_and_leaves_nothing(house: House, client: Client, name: str) -> None:
    before = {path.name for path in house.daemon.data.images.iterdir()}
    with pytest.raises(HearthError) as caught:
        client.images.import_(io.BytesIO(REFUSED[name]()), f"bad-{name}", platform="linux/amd64").wait()
    assert caught.value.code in ("invalid", "too_large"), caught.value
    assert caught.value.details
    deadline = time.monotonic() + 60
    while left := {path.name for path in house.daemon.data.images.iterdir()} - before:
        assert time.monotonic() < deadline, left  # an image that an earlier test replaced may be on its way out
        time.sleep(0.05)
    with pytest.raises(NotFound):
        client.images.get(f"bad-{name}")


@pytest.fixture
def silent() -> Iterator[str]:
    """Somebody who takes calls and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_pull_may_be_broken_off(client: Client, silent: str) -> None:
    job = client.images.pull(f"{silent}/x", insecure=True)
    with pytest.raises(Conflict):
        client.images.pull(f"{silent}/x", insecure=True)
    job.cancel()
    with pytest.raises(Cancelled):
        job.wait()
    assert client.events.job(job.job.job_id).status == "cancelled"
    client.images.pull(f"{silent}/x", insecure=True).cancel()  # its name is free again


def test_ctrl_c_breaks_a_pull_off(house: House, client: Client, silent: str) -> None:
    words = [sys.executable, "-m", "hearth.cli", "image", "pull", f"{silent}/ctrl-c", "--insecure"]
    before = {job.job_id for job in client.events.jobs()}
    screen, terminal = pty.openpty()
    process = subprocess.Popen(words, env=house.daemon.environment, stdin=subprocess.DEVNULL, stderr=terminal)
    try:
        assert select.select([screen], [], [], 60)[0], "no progress was shown"
        process.send_signal(signal.SIGINT)
        ended = os.pidfd_open(process.pid)
        select.select([ended], [], [], 120)
        os.close(ended)
        assert process.poll() == 130, f"it does not end; it showed {os.read(screen, 65_536)!r}"
    finally:
        process.kill()
        process.wait()
        os.close(screen)
        os.close(terminal)
    (job,) = [job for job in client.events.jobs() if job.job_id not in before]
    assert (job.kind, job.subject, job.status) == ("image.pull", "ctrl-c", "cancelled")


def test_the_command_line_pulls_imports_shows_and_deletes(house: House, client: Client) -> None:
    environment = house.daemon.environment
    pull = ["image", "pull", f"{house.registry}/some/app:1", "--name", "cli", "--insecure", "--platform", "linux/amd64"]
    done = run_cli(environment, *pull, "--username", USER, "--password-stdin", "--json", stdin=PASSWORD.encode())
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "cli"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    done = run_cli(environment, "image", "import", "-", "piped", stdin=buffer.getvalue())
    assert (done.returncode, done.stdout) == (0, b"piped\n"), done.stderr
    shown = run_cli(environment, "image", "show", "cli").stdout.decode()
    assert "GREETING=hello" in shown and f"{house.registry}/some/app:1" in shown
    names = {image["name"] for image in json.loads(run_cli(environment, "images", "--json").stdout)}
    assert {"cli", "piped", "debian"} <= names
    assert run_cli(environment, "image", "delete", "cli").returncode != 0  # nobody said yes
    assert run_cli(environment, "image", "delete", "--yes", "cli", "piped").returncode == 0
    done = run_cli(environment, "image", "import", "/no/such/archive", "x")
    assert done.returncode == 1 and b"No such file" in done.stderr


def test_a_daemon_that_is_killed_fails_its_pulls_at_the_next_start(silent: str) -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--registry-insecure", "127.0.0.1") as daemon, daemon.client() as client:
            job = client.images.pull(f"{silent}/x", insecure=True)
            for _ in job:
                break
            daemon.process.kill()
            daemon.process.wait()
        (data.images / "import-1.aaaa.tmp").mkdir()
        with running_daemon(data) as daemon, daemon.client() as client:
            found = client.events.job(job.job.job_id)
            assert found.status == "failed" and found.error is not None and "daemon ended" in found.error.error
            assert [*data.images.glob("*.tmp")] == []
