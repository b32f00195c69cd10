"""The warm lab: a data directory with a checkpoint of a lab whose services all run, made once and copied for each run.

A copy's daemon goes on from the checkpoint in a second or two; nobody has to wait for another run's lab.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.boot import DATA, link_images
from tests.lab import sources
from tests.lab.image import ingredients, lab_image
from tests.server.daemon import RunningDaemon, data_directory, running_daemon

from hearth.config import DataDirectory
from hearth.host import locks
from hearth.image.store import ImageStore
from hearth.sdk.client import Client, Sandbox
from hearth.store import migrations

CHECKPOINT = "warm"
IMAGE = "image-id"
"""In the directory: which image its lab was booted from."""
GUEST = Path(__file__).parent / "guest"
SETTINGS = "/etc/lab.env"
CPUS, MEMORY_MB, DISK_MB = 2, 2048, 24 * 1024
UP_S = 280
BUILD_WAIT_S = 1800.0
STALE_S = 24 * 3600.0
CROWD_S = 3600.0
DAEMON = ("--engine", "qemu", "--pool", "0", "--boot-timeout", "120")
COPIED = ("admin.key", "agent.secret", "hearth.db", "host.id", "mark.json", "snapshots", "verdicts")
"""What of a daemon's directory the next one needs; the rest it makes."""
IMPORTS = "pytest, _pytest.assertion.rewrite, hypothesis, hearth.server.serve, hearth.control.daemon, libvirt, psycopg"
"""Imported once before the checkpoint: their files are in memory from then on."""

Say = Callable[[str], None]


def cache() -> Path:
    """Give the directory of what outlives runs of tests."""
    kept = Path(os.environ.get("HEARTH_TEST_DATA") or f"/var/tmp/hearth-test-{os.getuid()}") / "lab"
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    return kept


def warm_directory(say: Say, *, refresh: bool = False) -> Path:
    """Give the directory to copy; the first time the image is built and a lab is started in it, which takes minutes.

    Args:
        refresh: ask apt whether the packages that it was made of are still the newest ones, too.

    Raises:
        HostUnfit: this host cannot build images.
    """
    made = cache() / key()
    with alone(made, say):
        known = made / IMAGE
        if refresh or not known.exists():
            image = asyncio.run(lab_image(lambda step: say(f"{step.stage}: {step.message}"))).id
            if not known.exists() or known.read_text() != image:
                _forget_stale()
                shutil.rmtree(made, ignore_errors=True)
                make(made, image, say)
        os.utime(made)
    return made


def key() -> str:
    """Hash what a warm lab is made of, but for the versions of packages, which take seconds to ask for."""
    store = ImageStore(DATA)
    digest = hashlib.sha256()
    for part in (store.get("kernel").id, store.get("agent").id, (CPUS, MEMORY_MB, DISK_MB), IMPORTS, ingredients()):
        digest.update(f"{part}\n".encode())
    for file in sorted(GUEST.iterdir()):
        digest.update(file.read_bytes())
    # A directory is made anew for each state of the database's schema: older sources cannot read it.
    digest.update(" ".join(sorted(path.name for path in Path(migrations.__path__[0]).rglob("v*.py"))).encode())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def alone(made: Path, say: Say) -> Iterator[None]:
    """Be the only one who makes this."""
    deadline_s, told = time.monotonic() + BUILD_WAIT_S, False
    while (held := locks.try_lock(made.with_suffix(".lock"))) is None:
        if not told:
            say("another run makes the lab; waiting")
            told = True
        assert time.monotonic() < deadline_s, "another run has been making the lab for half an hour"
        time.sleep(0.2)
    with held:
        yield


def make(made: Path, image: str, say: Say) -> None:
    """Start a lab from its disk and keep it as a checkpoint."""
    with data_directory() as data:
        link_images(data)
        with running_daemon(data, *DAEMON) as daemon, daemon.client() as client:
            say("booting the lab")
            lab = client.create(name="lab", image=image, cpus=CPUS, memory_mb=MEMORY_MB, disk_mb=DISK_MB, keep_hot=True)
            prepare(lab, say)
            say("keeping it as it is")
            lab.checkpoint(CHECKPOINT)
        publish(data, made, image)


def publish(data: DataDirectory, made: Path, image: str = "") -> None:
    """Keep what a daemon that has ended left, all of it or nothing."""
    staged = made.with_suffix(".tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(mode=0o700)
    copy(data.root, staged)
    (staged / IMAGE).write_text(image)
    staged.rename(made)


def prepare(lab: Sandbox, say: Say) -> None:
    """Start all services of a lab that has just booted."""
    lab.run(
        ["sh", "-c", f"umask 077 && cat > {SETTINGS}"], user="root", stdin=f"LAB_PASSWORD={secrets.token_hex(16)}\n"
    )
    for file in GUEST.iterdir():
        put = f"cat > /usr/local/sbin/{file.name} && chmod 0755 /usr/local/sbin/{file.name}"
        lab.run(["sh", "-c", put], user="root", stdin=file.read_bytes())
    with lab.stream(["lab", "up"], user="root", timeout_sec=UP_S) as running:
        for output in running:
            say(output.data.decode(errors="replace").strip())
    assert running.exit_code == 0, f"the lab's services did not start: {running.exit_code}"
    say("warming Python up")
    sources.put(lab)
    lab.run(["lab-python", "-c", f"import {IMPORTS}"], user="root", timeout_sec=UP_S).check()


@contextlib.contextmanager
def lab_daemon(warm: Path) -> Iterator[tuple[RunningDaemon, Client, Sandbox]]:
    """Give a lab of our own that goes on where the warm one was left, with its daemon and a client."""
    with data_directory() as data, lab_in(warm, data) as running:
        yield running


@contextlib.contextmanager
def lab_in(warm: Path, data: DataDirectory) -> Iterator[tuple[RunningDaemon, Client, Sandbox]]:
    """Give one whose daemon has an empty directory of the caller's."""
    link_images(data)
    copy(warm, data.root)
    with running_daemon(data, *DAEMON) as daemon, daemon.client() as client:
        [lab] = client.resume_snapshot(CHECKPOINT, name="mine")
        yield daemon, client, lab.update(keep_hot=True)


def copy(source: Path, target: Path) -> None:
    """Copy a daemon's directory without its machines; nobody writes to it meanwhile."""
    wanted = [source / name for name in COPIED if (source / name).exists()]
    subprocess.run(["cp", "-a", "--sparse=always", *wanted, target], check=True, timeout=UP_S)


def forget_crowd(prefix: str, kept: int) -> None:
    """Remove what begins so and was not used lately, but for some; what was used just now may be being copied."""
    ages_s = {path: time.time() - path.stat().st_mtime for path in cache().glob(f"{prefix}-*") if path.is_dir()}
    for old in sorted(ages_s, key=ages_s.__getitem__)[kept:]:
        if ages_s[old] > CROWD_S:
            shutil.rmtree(old)
            old.with_suffix(".lock").unlink(missing_ok=True)


def _forget_stale() -> None:
    for old in cache().iterdir():
        if old.is_dir() and time.time() - old.stat().st_mtime > STALE_S:
            shutil.rmtree(old)
            old.with_suffix(".lock").unlink(missing_ok=True)
