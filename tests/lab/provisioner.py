"""A provisioner in a lab, its storage and where both are reached from here: what acceptance tests speak to.

``TEST_PROVISIONER_URL`` names another one instead, which runs on this host.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import obstore
from tests.lab.lab import BUCKET, VOLUME_GROUP, Lab
from tests.lab.site import TOKEN, URL, Here, Site

from hearth.bench.s3_server import S3Server, configured
from hearth.host.files import hash_file
from hearth.sdk.client import Client

TOKEN_FILE = "/var/lib/lab/hearth/admin.key"
UP_S, LINE_S = 600.0, 400.0
"""An emulated guest of an emulated machine on a busy host takes its time."""
GIB_OF_MIB = 1 / 1024
DOMAIN = """\
<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory>
<os><type arch='x86_64' machine='pc'>hvm</type></os>
<devices><disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='{device}'/>
<target dev='vda' bus='virtio'/></disk><serial type='file'><source path='{console}'/></serial></devices></domain>
"""


@dataclass(frozen=True, kw_only=True)
class Provisioner:
    """Where it is, who we are there, the lab that it runs in and the storage that it reads."""

    url: str
    token: str = field(repr=False)
    lab: Site
    storage: S3Server
    group: str = VOLUME_GROUP

    def client(self) -> Client:
        return Client(self.url, self.token)

    def upload(self, image: Path, name: str | None = None, *, checksum: bool = True) -> str:
        """Put an image into the bucket, with its checksum beside it, and give its URL."""
        store, key = self.storage.store(BUCKET), name or image.name
        obstore.put(store, key, image)
        if checksum:
            obstore.put(store, f"{key}.sha256", f"{hash_file(image)}  {quote(key)}\n".encode())
        return f"s3://{BUCKET}/{key}"

    def volumes(self) -> dict[str, dict[str, str]]:
        """Tell of each volume of the group, by LVM's own report: ``pool_lv``, ``origin``, ``lv_tags``."""
        fields = ("lv_name", "pool_lv", "origin", "lv_tags")
        said = self.lab.run("lvs", "--noheadings", "--separator", "|", "-o", ",".join(fields), self.group)
        rows = (line.strip().split("|") for line in said.splitlines())
        return {row[0]: dict(zip(fields, row, strict=True)) for row in rows}

    @contextlib.contextmanager
    def domain(self, name: str, device: str) -> Iterator[str]:
        """Start a guest of libvirt on a volume; gives the file that its serial port is written to."""
        console = f"/var/log/libvirt/qemu/{name}-console.log"
        definition = DOMAIN.format(name=name, device=device, console=console)
        script = f"mkdir -p {Path(console).parent} && cat > /tmp/domain.xml && virsh -q create /tmp/domain.xml"
        self.lab.run("sh", "-c", script, stdin=definition.encode())
        try:
            yield console
        finally:
            self.lab.run("virsh", "-q", "destroy", name)

    def wait_for_line(self, console: str, line: str) -> None:
        """Wait until a guest has printed a line."""
        # The end of the pipe ends the reader; it fails where the time is over.
        script = f"timeout {LINE_S:.0f} tail -n +1 -F {console} 2>/dev/null | grep -q -m1 -F '{line}'"
        assert self.lab.tried("sh", "-c", script, timeout_s=LINE_S + 30).exit_code == 0, self.lab.tried(
            "cat", console
        ).stdout


def configured_provisioner() -> Provisioner:
    """Give the one that the environment names, with its storage and its volume group on this host."""
    storage = configured()
    assert storage is not None, "TEST_PROVISIONER_URL needs TEST_MINIO_ENDPOINT beside it: images are uploaded there"
    storage.make_bucket(BUCKET)
    group = os.environ.get("TEST_LVM_VG", VOLUME_GROUP)
    return Provisioner(url=os.environ[URL], token=os.environ.get(TOKEN, ""), lab=Here(), storage=storage, group=group)


@contextlib.contextmanager
def running_provisioner(lab: Lab) -> Iterator[Provisioner]:
    """Start it where it does not run, and lead ports to it and to its storage."""
    lab.run("lab", "up", "provisioner", timeout_s=UP_S)
    token = lab.run("cat", TOKEN_FILE).strip()
    with lab.forward("provisioner") as (host, port), lab.forward("s3") as (_, storage_port):
        storage = S3Server(endpoint=f"http://127.0.0.1:{storage_port}", access_key="lab", secret_key=lab.password)
        storage.make_bucket(BUCKET)
        with contextlib.suppress(FileNotFoundError):  # starts the client library's own threads, which stay
            obstore.head(storage.store(BUCKET), "nothing")
        yield Provisioner(url=f"http://{host}:{port}", token=token, lab=lab, storage=storage)
