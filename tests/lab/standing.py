"""A lab that stays until it is told to go: a keeper process holds it, its forwarded ports and the file that names them.

What a killed keeper leaves (a daemon, its sandbox, files) the next ``up`` or ``clean`` finds by ``state.json``.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab import sources
from tests.lab.lab import Lab
from tests.lab.provisioned import provisioned_directory
from tests.lab.provisioner import running_provisioner
from tests.lab.site import LAB_SANDBOX, LAB_TOKEN, LAB_URL, TOKEN, URL, read_settings
from tests.lab.warm import DAEMON, lab_in
from tests.server.daemon import running_daemon

from hearth.config import DataDirectory
from hearth.errors import HearthError
from hearth.host.files import write_atomic
from hearth.sdk.client import Client
from hearth.sdk.results import CommandFailed

PLACE = sources.ROOT / "build/integration"
ENVIRONMENT, STATE, LOG = PLACE / "env", PLACE / "state.json", PLACE / "log"
READY_S, END_S, PAUSE_S = 1800.0, 120.0, 0.2
TIMEOUT_S = 900

Say = Callable[[str], None]


def up(say: Say) -> None:
    """Have a lab whose services answer: leave what is well, start what is down, and make anew what is gone."""
    PLACE.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _is_alive(_state().get("keeper", "")):
        try:
            with attached(read_settings(ENVIRONMENT)) as lab:
                lab.run("lab", "up", timeout_s=TIMEOUT_S)
                lab.run("lab", "up", "provisioner", timeout_s=TIMEOUT_S)
            say(f"the lab is up; {ENVIRONMENT} tells where")
        except (HearthError, CommandFailed, OSError) as error:
            say(f"the lab does not answer ({error}); making another")
        else:
            return
    down(say)
    provisioned_directory(say, refresh=True)
    with LOG.open("ab") as log:
        words = [sys.executable, "-m", "tests.lab", "keep"]
        keeper = subprocess.Popen(
            words, cwd=sources.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    deadline_s, told = time.monotonic() + READY_S, 0
    while not ENVIRONMENT.exists():
        lines = LOG.read_text(errors="replace").splitlines()
        for line in lines[told:]:
            say(line)
        told = len(lines)
        if keeper.poll() is not None or time.monotonic() > deadline_s:
            down(say)
            sys.exit(f"error: the lab did not start; {LOG} tells why")
        time.sleep(PAUSE_S)
    say(f"the lab is up; {ENVIRONMENT} tells where its services are")


def keep(say: Say) -> None:
    """Hold a lab, its provisioner and ways to all of its services until SIGTERM comes."""

    def end(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        sys.exit(0)

    signal.signal(signal.SIGTERM, end)
    root = Path(tempfile.mkdtemp(prefix="hearth-lab-", dir="/tmp"))
    state = {"keeper": _identity(os.getpid()), "data": str(root)}
    write_atomic(STATE, json.dumps(state).encode(), mode=0o600)
    try:
        with lab_in(provisioned_directory(say), DataDirectory(root=root)) as (daemon, client, sandbox):
            lab = Lab(client=client, sandbox=sandbox, say=say)
            with running_provisioner(lab) as provisioner, contextlib.ExitStack() as ways:
                ports = {name: ways.enter_context(lab.forward(name))[1] for name in ("s3", "postgresql", "redis")}
                settings = {
                    **lab.settings(inside=True, at=ports.__getitem__),
                    **{URL: provisioner.url, TOKEN: provisioner.token, "TEST_TIMEOUT": str(TIMEOUT_S)},
                    **{LAB_URL: daemon.url, LAB_TOKEN: daemon.token, LAB_SANDBOX: sandbox.id},
                }
                text = "".join(f"{name}={value}\n" for name, value in settings.items())
                write_atomic(ENVIRONMENT, text.encode(), mode=0o600)
                while True:
                    signal.pause()
    finally:
        ENVIRONMENT.unlink(missing_ok=True)
        shutil.rmtree(root)


def down(say: Say) -> None:
    """End the lab, and what a killed keeper left; with nothing there nothing is done."""
    state = _state()
    keeper = state.get("keeper", "")
    if _is_alive(keeper):
        say("ending the lab")
        os.kill(int(keeper.split()[0]), signal.SIGTERM)
        deadline_s = time.monotonic() + END_S
        while _is_alive(keeper) and time.monotonic() < deadline_s:
            time.sleep(PAUSE_S)
        if _is_alive(keeper):
            os.kill(int(keeper.split()[0]), signal.SIGKILL)
    ENVIRONMENT.unlink(missing_ok=True)
    root = Path(state["data"]) if "data" in state else None
    if root is not None and root.exists():
        say("removing what a killed keeper left")
        _end_daemon(root)
        with running_daemon(DataDirectory(root=root), *DAEMON):
            pass  # it takes its sandbox over, which goes with it
        shutil.rmtree(root)
    STATE.unlink(missing_ok=True)


def clean(say: Say) -> None:
    """End the lab and remove all files of it; the image and the warm lab are kept, as other images are."""
    down(say)
    shutil.rmtree(PLACE, ignore_errors=True)
    with contextlib.suppress(OSError):  # others build there, too
        PLACE.parent.rmdir()
    say("nothing is left")


def logs() -> str:
    """Give what the keeper, the daemon and the lab's services have said."""
    texts = [LOG.read_text(errors="replace") if LOG.exists() else "there was no lab\n"]
    state = _state()
    if "data" in state and (log := Path(state["data"], "log.jsonl")).exists():
        texts.append(f"==> {log}\n{log.read_text(errors='replace')}")
    if _is_alive(state.get("keeper", "")) and ENVIRONMENT.exists():
        with attached(read_settings(ENVIRONMENT)) as lab:
            texts.append(lab.tried("lab", "logs").stdout)  # it fails where libvirt has had no guest
    return "\n".join(texts)


@contextlib.contextmanager
def attached(settings: dict[str, str]) -> Iterator[Lab]:
    """Give the lab that ``make integration-up`` has started, with the product of then: a provisioner runs it."""
    with Client(settings[LAB_URL], settings[LAB_TOKEN]) as client:
        yield Lab(client=client, sandbox=client.get(settings[LAB_SANDBOX]), wanted=sources.TESTS)


def _state() -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(STATE.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _identity(pid: int) -> str:
    """Give a process's id and the moment of its start: ids are used again."""
    return f"{pid} {Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"


def _is_alive(identity: str) -> bool:
    try:
        return bool(identity) and _identity(int(identity.split()[0])) == identity
    except OSError:
        return False


def _end_daemon(root: Path) -> None:
    """End a daemon that outlived its keeper; its machines go on until the next one takes them."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text(errors="replace").split("\0")
            if "serve" in words and str(root) in words:
                identity = _identity(int(process.name))
                os.kill(int(process.name), signal.SIGTERM)
                deadline_s = time.monotonic() + END_S
                while _is_alive(identity) and time.monotonic() < deadline_s:
                    time.sleep(PAUSE_S)
