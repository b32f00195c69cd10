"""The suite of the agent's services once more, inside a real machine and against the agent that its init runs.

The tests are carried into the machine and run there as the sandbox's user, so that files, processes and sockets mean
the same to them and to the agent. Their client comes in as every host does, through the machine's network interface:
the address it dials is the host's, whose port QEMU forwards back to the agent.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.agent.client import Address, Client, Result
from tests.agent.machine import HOST_SEEN_FROM_GUEST, Machine, running_machine
from tests.agent.services.test_archives import push
from tests.boot import boot_files

import hearth.wire
from hearth.wire.messages import ExecRequest

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

DISTRIBUTIONS = ("pytest", "hypothesis")
"""What the tests import beyond the standard library; the guest's own Python has none of it."""
SOURCES = ("__init__.py", "version.py", "wire", "agent")
PLACE = Path("/tmp/suite")
SUITE_TIMEOUT_S = 900.0
MOST_SKIPPED = 41
SETTINGS = """[pytest]
addopts = --strict-markers --import-mode=importlib -p no:cacheprovider -q -rsfE --durations=8 --color=no
pythonpath = . src
filterwarnings =
    error
markers =
    root
    vm
    slow
"""


def bundle() -> bytes:
    """Pack the tests, the agent's sources and what they import, with the bytecode that is there already."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for source, name in _contents():
            tar.add(source, arcname=name, filter=_for_everyone)
        settings = tarfile.TarInfo("pytest.ini")
        settings.size = len(SETTINGS)
        tar.addfile(settings, io.BytesIO(SETTINGS.encode()))
    return target.getvalue()


def _contents() -> Iterator[tuple[Path, str]]:
    for distribution in _with_requirements(DISTRIBUTIONS):
        for file in metadata.files(distribution) or ():
            if ".." not in file.parts:  # scripts, which the guest does not need
                yield Path(str(file.locate())), f"src/{file}"
    for name in SOURCES:
        yield Path(hearth.wire.__path__[0]).parent / name, f"src/hearth/{name}"
    for name in ("client.py", "conftest.py", "services"):
        yield Path(__file__).parent / name, f"tests/agent/{name}"


def _with_requirements(names: Iterable[str]) -> set[str]:
    """Add to distributions all that they require here."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            requirements = map(Requirement, metadata.requires(name) or ())
            waiting += [one.name for one in requirements if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def _for_everyone(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def as_guest_sees(address: Address) -> str:
    assert not isinstance(address, str)
    return f"{HOST_SEEN_FROM_GUEST}:{address[1]}"


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with running_machine(tmp_path_factory.mktemp("machine"), boot_files().rootfs, memory_mib=512) as running:
        yield running


def run_suite(client: Client) -> Result:
    """Run the tests as the sandbox's user and collect what pytest said."""
    environment = {
        "HEARTH_TEST_AGENT": f"{as_guest_sees(client.address)} {as_guest_sees(client.forward_address)}",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
    }
    request = ExecRequest(
        argv=["python3", "-m", "pytest", "tests/agent/services"],
        cwd=str(PLACE),
        env=environment | {"PYTHONPATH": f"{PLACE}/src", "PYTHONDONTWRITEBYTECODE": "1"},
        timeout_sec=SUITE_TIMEOUT_S,
    )
    with client.start(request) as wire:
        wire.socket.settimeout(SUITE_TIMEOUT_S)
        return Result(wire)


def test_the_handler_suite_passes_inside_a_machine(machine: Machine) -> None:
    push(machine.client, PLACE, bundle())
    result = run_suite(machine.client)
    said = (result.stdout + result.stderr).decode(errors="replace")
    print(said)
    assert result.exit_code == 0, said[-20_000:]
    skipped = sum(int(line.split("[")[1].split("]")[0]) for line in said.splitlines() if line.startswith("SKIPPED ["))
    assert skipped <= MOST_SKIPPED, said
