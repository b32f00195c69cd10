"""Real machines of an ordinary user: everything but networks works, and nothing of them is left behind."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.boot import DATA, link_images
from tests.server.daemon import RunningDaemon, data_directory
from tests.unprivileged import OrdinaryUser, ordinary_user

from hearth.config import DataDirectory
from hearth.control.net_mode import WIRE_FILE
from hearth.engine.qemu import passt
from hearth.errors import HearthError, InvalidInput
from hearth.guest.client import Guest
from hearth.host.directory import load_secret, load_tag
from hearth.host.processes import find_by_arguments, owner_of
from hearth.network.user import UserNetwork
from hearth.sdk.client import Client, Sandbox

pytestmark = pytest.mark.slow

READY_S = 60.0
GONE_S = 60.0
PORT = 3000
WEB = "import http.server as h; h.ThreadingHTTPServer(('127.0.0.1', 3000), h.SimpleHTTPRequestHandler).serve_forever()"
START_WEB = 'cd /home/user && setsid python3 -c "$1" >/dev/null 2>&1 </dev/null &'
REACH = """
import socket
for address in ("172.16.0.1", "10.0.2.2", "169.254.169.254", "192.168.0.1", "198.51.100.7"):
    for port in (22, 53, 80, 1024):
        try:
            socket.create_connection((address, port), timeout=20).close()
        except ConnectionRefusedError:
            continue
        print("not refused:", address, port)
probe = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
probe.settimeout(0.5)
for address in (("172.16.0.3", 53), ("172.16.0.1", 53), ("198.51.100.7", 53)):
    try:
        probe.sendto(b"\\0" * 12, address)
        print("answered:", address, probe.recv(512))
    except OSError:
        continue
"""


class RootWithoutNetworks(OrdinaryUser):
    """Root, but for one right."""

    @property
    def prefix(self) -> list[str]:
        return ["setpriv", "--inh-caps=-all", "--bounding-set=-net_admin", "--"]


@pytest.fixture(scope="module")
def user(images: None) -> OrdinaryUser:
    return ordinary_user()


@pytest.fixture(scope="module")
def home(user: OrdinaryUser) -> Iterator[DataDirectory]:
    """A data directory of the user's, with the images of the set-up."""
    with own_directory(user) as data:
        yield data


@contextlib.contextmanager
def own_directory(user: OrdinaryUser) -> Iterator[DataDirectory]:
    """A data directory of the user's, with the images of the set-up."""
    with data_directory() as data:
        shutil.copytree(
            DATA.images, data.images, copy_function=_link, ignore=shutil.ignore_patterns("downloads", "*.tmp")
        )
        for path in (data.root, data.images, *(each for each in data.images.rglob("*") if each.is_dir())):
            os.chown(path, user.uid, user.uid)
        yield data


@pytest.fixture(scope="module")
def served(user: OrdinaryUser, home: DataDirectory) -> Iterator[RunningDaemon]:
    with serving(user, home) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def shared(served: RunningDaemon) -> Iterator[str]:
    with served.client() as client, client.create(name="shared") as made:
        yield made.id


@pytest.fixture
def client(served: RunningDaemon) -> Iterator[Client]:
    with served.client() as made:
        yield made


@pytest.fixture
def sandbox(client: Client, shared: str) -> Sandbox:
    return client.get(shared)


@contextlib.contextmanager
def serving(user: OrdinaryUser, data: DataDirectory) -> Iterator[RunningDaemon]:
    """Run a daemon as the user; at the end it is gone, with its sandboxes."""
    log_file, address = data.root / "log.jsonl", data.root / "notify.sock"
    words = ["serve", "--pool", "0", "--log-format", "json"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, log_file.open("ab") as log:
        address.unlink(missing_ok=True)
        told.bind(str(address))
        address.chmod(0o666)
        process = subprocess.Popen(
            [*user.prefix, user.python, "-m", "hearth.server", *words],
            env={**user.environment(data.root), "NOTIFY_SOCKET": str(address)},
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
        daemon = RunningDaemon(process=process, data=data, log_file=log_file)
        try:
            ready, _, _ = select.select([told], [], [], READY_S)
            assert ready, f"the daemon did not become ready: {log_file.read_text()[-2000:]}"
            yield daemon
        finally:
            if process.poll() is None:
                with daemon.client() as client:
                    for sandbox in client.list():
                        sandbox.destroy()
                daemon.stop()
            process.wait()


def _link(source: str, target: str) -> None:
    """Share a published file, which nobody changes; copy what is written to."""
    try:
        if Path(source).parent.name == "names":
            shutil.copy2(source, target)
        else:
            os.link(source, target)
    except OSError:
        subprocess.run(["cp", "--sparse=always", "--", source, target], check=True)


def vmms(user: OrdinaryUser) -> list[int]:
    return [pid for pid, words in user.processes() if "qemu-system" in words]


def wait_until_alone(user: OrdinaryUser, *known: int) -> None:
    """Wait until the user has no process but those."""
    deadline = time.monotonic() + GONE_S
    while left := [each for each in user.processes() if each[0] not in known]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def serve_files(client: Client, sandbox: Sandbox) -> None:
    """Start a web server in the guest's home, unless it is there."""
    deadline = time.monotonic() + GONE_S
    if PORT in [each.port for each in client.ports.of(sandbox.id)]:
        return
    sandbox.run(["sh", "-c", START_WEB, "sh", WEB]).check()
    while PORT not in [each.port for each in client.ports.of(sandbox.id)]:
        assert time.monotonic() < deadline, "the server does not listen"


def fetch(address: tuple[str, int], path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(*address, timeout=READY_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class UnixHttp(http.client.HTTPConnection):
    """HTTP to the daemon's socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=READY_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(READY_S)
        self.sock.connect(str(self._path))


def test_commands_run_and_what_goes_in_comes_out_unchanged(sandbox: Sandbox) -> None:
    data = os.urandom(1 << 19)
    sandbox.run(["sh", "-c", "cat > /home/user/data"], stdin=data).check()
    assert sandbox.run(["cat", "/home/user/data"]).check().stdout_bytes == data
    assert sandbox.run(["sh", "-c", "exit 7"]).exit_code == 7


async def test_files_go_both_ways(served: RunningDaemon, sandbox: Sandbox) -> None:
    sandbox.run(["true"]).check()  # it is awake
    network = UserNetwork("0", served.data.machines)
    token = hmac.new(load_secret(served.data.secret), f"agent:{sandbox.id}".encode(), "sha256").hexdigest()
    files = Guest(network.dialer(sandbox.id, answers=True), token).files
    data = os.urandom(1 << 20)
    await files.write("/home/user/file", data)
    async with files.read("/home/user/file") as download:
        assert b"".join([piece async for piece in download]) == data
    assert sandbox.run(["sha256sum", "/home/user/file"]).stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_volume_is_mounted(client: Client) -> None:
    with client.create(name="store", new_volumes=[{"name": "disk", "size_mb": 16, "mount": "/disk"}]) as made:
        made.run(["sh", "-c", "echo kept > /disk/file && sync"]).check()
        assert " /disk ext4 rw" in made.run(["cat", "/proc/mounts"]).check().stdout
    client.delete_volume("disk")


def test_a_port_is_forwarded(client: Client, sandbox: Sandbox) -> None:
    serve_files(client, sandbox)
    sandbox.run(["sh", "-c", "echo forwarded > /home/user/f"]).check()
    with client.ports.forward(sandbox.id, PORT) as address:
        assert fetch(address, "/f") == (200, b"forwarded\n")


def test_a_port_is_proxied(served: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    serve_files(client, sandbox)
    sandbox.run(["sh", "-c", "echo proxied > /home/user/p"]).check()
    connection = UnixHttp(served.data.api_socket)
    try:
        path = f"/api/v1/sandboxes/{sandbox.id}/proxy/{PORT}/p"
        connection.request("GET", path, headers={"Authorization": f"Bearer {served.token}"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"proxied\n")
    finally:
        connection.close()


def test_a_guest_reaches_nothing_and_is_told_at_once(sandbox: Sandbox) -> None:
    assert sandbox.run(["python3", "-c", REACH], timeout_sec=300).check().stdout == ""


def test_memory_survives_a_stop_and_is_shared_with_a_fork(client: Client) -> None:
    with client.create(name="sleeper") as sandbox, contextlib.ExitStack() as undo:
        sandbox.run(["sh", "-c", "echo kept > /dev/shm/kept"]).check()
        sandbox.stop()
        assert sandbox.start().run(["cat", "/dev/shm/kept"]).check().stdout == "kept\n"
        (copy,) = sandbox.fork()
        undo.enter_context(copy)
        copy.run(["sh", "-c", "cat /dev/shm/kept; echo other > /dev/shm/kept"]).check()
        assert copy.run(["cat", "/dev/shm/kept"]).stdout == "other\n"
        assert sandbox.run(["cat", "/dev/shm/kept"]).stdout == "kept\n"


def test_a_vmm_sees_no_file_no_network_and_no_process_of_this_host(sandbox: Sandbox, user: OrdinaryUser) -> None:
    for pid in vmms(user):
        process = Path("/proc", str(pid))
        seen = {entry.name for entry in (process / "root").iterdir()}
        assert seen <= {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "etc", "dev", "proc", "tmp"}
        for kind in ("net", "user", "mnt", "pid", "ipc"):
            assert (process / "ns" / kind).readlink() != Path("/proc/self/ns", kind).readlink(), kind
        links = (process / "net/dev").read_text().splitlines()[2:]
        assert [line.split(":")[0].strip() for line in links] == ["lo"]
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        assert "unlimited" not in next(
            line for line in (process / "limits").read_text().splitlines() if line.startswith("Max data size")
        )


@pytest.mark.skipif(not passt.is_installed(), reason="passt is not installed")
def test_machines_run_sleep_and_copy_themselves_with_passt(user: OrdinaryUser) -> None:
    with own_directory(user) as data:
        (data.root / WIRE_FILE).write_text("passt\n")
        (data.root / WIRE_FILE).chmod(0o644)
        with serving(user, data) as daemon, daemon.client() as client, client.create(name="one") as sandbox:
            assert any(words.startswith("/") and "/passt" in words.split()[0] for _, words in user.processes())
            sandbox.stop()
            assert sandbox.run(["echo", "awake"]).stdout == "awake\n"
            (copy,) = sandbox.fork()
            with copy:
                assert copy.run(["echo", "copy"]).stdout == "copy\n"
            serve_files(client, sandbox)
            with client.ports.forward(sandbox.id, PORT) as address:
                assert fetch(address, "/.bashrc")[0] == 200


def test_root_without_the_right_to_networks_has_user_mode_and_vmms_that_are_not_root(images: None) -> None:
    root = RootWithoutNetworks(uid=0, python=sys.executable)
    with data_directory() as data:
        link_images(data)
        with serving(root, data) as daemon, daemon.client() as client, client.create(name="one") as sandbox:
            sandbox.stop()
            assert sandbox.run(["echo", "awake"]).stdout == "awake\n"
            machine = data.machine(sandbox.id)
            assert machine.stat().st_uid != 0
            (vmm,) = find_by_arguments(["-name", f"hearth-{load_tag(data)}-{sandbox.id}"])
            assert owner_of(vmm) == machine.stat().st_uid
            assert Path(f"/proc/{vmm}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
            with pytest.raises(InvalidInput, match="cannot be had"):
                client.create(name="open", net_policy={"default": "public"})


def test_the_gate_is_its_owners_alone(served: RunningDaemon, sandbox: Sandbox, user: OrdinaryUser) -> None:
    gate = served.data.machine(sandbox.id) / "agent.sock"
    assert (gate.stat().st_uid, gate.stat().st_mode & 0o777) == (user.uid, 0o600)
    assert gate.parent.stat().st_mode & 0o077 == 0


def test_a_policy_that_cannot_be_had_is_refused_in_words(client: Client, sandbox: Sandbox) -> None:
    with pytest.raises(InvalidInput, match="cannot be had") as refused:
        client.create(name="open", net_policy={"default": "public"})
    assert "user-mode networking" in refused.value.details
    with pytest.raises(InvalidInput, match="cannot be had"):
        client.update(sandbox.id, net_policy={"allow_hosts": ["example.com"]})
    client.update(sandbox.id, net_policy={"default": "deny"})


def test_an_open_default_is_refused_before_anything_runs(user: OrdinaryUser, tmp_path: Path) -> None:
    with data_directory() as data:
        os.chown(data.root, user.uid, user.uid)
        done = user.run(data.root, "-m", "hearth.server", "serve", "--net-default", "public")
        assert (done.returncode, b"user-mode networking" in done.stderr) == (1, True)
        done = user.run(data.root, "-m", "hearth.server", "serve", "--net", "full")
        assert (done.returncode, b"CAP_NET_ADMIN" in done.stderr) == (1, True)


def test_the_doctor_says_what_the_full_mode_has_beside(user: OrdinaryUser, home: DataDirectory) -> None:
    done = user.run(home.root, "-m", "hearth.server", "doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["privileges"]["status"] == "warning"
    assert "user-mode networking" in checks["privileges"]["finding"]
    assert "egress policies" in checks["privileges"]["resolution"]
    assert not [name for name, check in checks.items() if check["status"] == "failed"]


def test_a_daemon_killed_while_it_creates_leaves_nothing_and_what_ran_runs_on(
    user: OrdinaryUser,
) -> None:
    """With a daemon of its own, for it is killed."""
    with own_directory(user) as data:
        before = {pid for pid, _ in user.processes()}
        with serving(user, data) as daemon:
            with daemon.client() as client:
                survivor = client.create(name="survivor")
                survivor.run(["sh", "-c", "echo 1 > /dev/shm/mark"]).check()
            known = set(vmms(user))
            creating = threading.Thread(target=_create_in_vain, args=(daemon,), name="create")
            creating.start()
            deadline = time.monotonic() + GONE_S
            while set(vmms(user)) <= known:
                assert time.monotonic() < deadline, "no VMM was started"
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
            creating.join(GONE_S)
        with serving(user, data) as daemon, daemon.client() as client:
            assert [each.view.name for each in client.list()] == ["survivor"]
            survivor = client.get("survivor")
            assert survivor.run(["cat", "/dev/shm/mark"]).check().stdout == "1\n"
            assert set(vmms(user)) - before == known - before
            survivor.destroy()
        wait_until_alone(user, *before)
        assert [*data.machines.iterdir()] == []


def _create_in_vain(daemon: RunningDaemon) -> None:
    with contextlib.suppress(HearthError), daemon.client(patience_s=0) as client:
        client.create(name="unfinished", memory_mb=320)
