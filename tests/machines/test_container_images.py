"""A machine made of a container image that has no shell, pulled from a real registry: its commands get what it says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.boot import DATA
from tests.image.layers.archives import Item, archive, directory, file, link, symlink
from tests.image.oci.images import Pusher, build
from tests.image.oci.servers import registry
from tests.server.daemon import data_directory, running_daemon

from hearth.config import DataDirectory
from hearth.errors import StartFailed

CONFIG = {"Env": ["PATH=/tools", "GREETING=hello"], "WorkingDir": "/srv/app", "User": "app:staff"}
PASSWD = "root:x:0:0::/root:/no/shell\napp:x:1234:1234::/srv:/no/shell\n"
PROGRAMS = ("env", "pwd", "id", "cat")


def libraries(program: str) -> set[str]:
    lines = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout.split()
    return {word for word in lines if word.startswith("/")}


def programs() -> bytes:
    """Give a layer of this host's programs and what they are linked with."""
    found = {f"tools/{name}": Path("/usr/bin", name).resolve() for name in PROGRAMS}
    for name in PROGRAMS:
        found |= {library.lstrip("/"): Path(library).resolve() for library in libraries(f"/usr/bin/{name}")}
    return archive(*(file(name, path.read_bytes(), mode=0o755) for name, path in found.items()))


def above() -> list[Item]:
    return [
        file("etc/passwd", PASSWD),
        file("tools/root-id", Path("/usr/bin/id").resolve().read_bytes(), mode=0o4755),
        directory("srv/data", 0o700),
        file("srv/data/x", "x", uid=1234, gid=1234, mode=0o600),
        link("srv/hard", "srv/data/x"),
        symlink("srv/out", "../../../../etc"),
        file("gone", "x"),
    ]


def own_images(data: DataDirectory) -> None:
    """Give a data directory an image store of its own that begins with the images of the set-up."""
    data.images.mkdir(parents=True)
    shutil.copytree(DATA.images / "names", data.images / "names")
    for path in DATA.images.glob("*/manifest.json"):
        (data.images / path.parent.name).symlink_to(path.parent)


@pytest.mark.slow
def test_a_machine_of_a_pulled_image_runs_its_programs(images: None, tmp_path: Path) -> None:
    layers = [programs(), archive(*above()), archive(file(".wh.gone"), file("srv/out/motd", "inside"))]
    with registry(tmp_path / "registry") as host, data_directory() as data:
        Pusher(host=host, repository="tools").push("latest", build(layers, config=CONFIG))
        own_images(data)
        words = ["--engine", "qemu", "--pool", "0", "--registry-insecure", "127.0.0.1"]
        with running_daemon(data, *words) as daemon, daemon.client() as client:
            image = client.images.pull(f"{host}/tools", insecure=True, platform="linux/amd64").wait()
            with client.create(name="tools", image="tools", env={"MORE": "1"}) as sandbox:

                def said(*cmd: str, user: str | None = None, cwd: str | None = None) -> list[str]:
                    return sandbox.run(list(cmd), user=user, cwd=cwd).check().stdout.split()

                assert {"GREETING=hello", "MORE=1", "PATH=/tools"} <= set(said("env"))
                assert said("pwd") == ["/srv/app"] and said("pwd", cwd="/srv") == ["/srv"]
                assert said("id", "-u") == ["1234"] and said("id", "-u", user="root") == ["0"]
                assert said("root-id", "-u") == ["0"], "setuid survives"
                assert said("cat", "/srv/hard") == ["x"]
                assert said("cat", "/etc/motd") == ["inside"]
                assert sandbox.run(["cat", "/gone"]).exit_code == 1
                with pytest.raises(StartFailed):
                    sandbox.run(["sh", "-c", "true"])
                sandbox.stop()
                assert {"GREETING=hello", "MORE=1"} <= set(said("env")), "after a night's sleep, too"
                saved = client.images.save("tools", "saved")
                assert saved.defaults == image.defaults
