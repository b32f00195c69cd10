"""The warm lab with a provisioner that runs and has filled an order: made once for each state of the sources.

Emulated, Python needs a minute to load a daemon; a fork of this has one at once.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.lab import bootable, sources
from tests.lab.lab import Lab
from tests.lab.provisioner import GIB_OF_MIB, Provisioner, running_provisioner
from tests.lab.warm import (
    CHECKPOINT,
    Say,
    alone,
    cache,
    forget_crowd,
    lab_daemon,
    lab_in,
    publish,
    warm_directory,
)
from tests.server.daemon import data_directory

PREFIX = "provisioner"
REHEARSAL = "rehearsal"
KEPT = 4
"""How many states of the sources have a lab ready: several working trees of one user take turns."""


def provisioned_directory(say: Say, *, refresh: bool = False) -> Path:
    """Give the directory to copy; the first time, and when a source has changed, a provisioner is started for it.

    Args:
        refresh: ask apt whether the packages of the lab below it are still the newest ones, too.
    """
    warm = warm_directory(say, refresh=refresh)
    made = cache() / f"{PREFIX}-{warm.name}-{sources.digest(sources.PRODUCT)}"
    with alone(made, say):
        if not made.exists():
            forget_crowd(PREFIX, KEPT - 1)
            make(warm, made, say)
        made.touch()
    return made


def make(warm: Path, made: Path, say: Say) -> None:
    """Start a provisioner in a fork of the warm lab, have it fill an order, and keep that as a checkpoint."""
    with data_directory() as data:
        with lab_in(warm, data) as (_, client, sandbox):
            lab = Lab(client=client, sandbox=sandbox, say=say)
            say("starting a provisioner in the lab")
            lab.sync()
            with running_provisioner(lab) as provisioner:
                say("having it fill an order")
                rehearse(provisioner)
            say("keeping it as it is")
            client.delete_snapshot(CHECKPOINT)
            sandbox.checkpoint(CHECKPOINT)
        publish(data, made)


def rehearse(provisioner: Provisioner) -> None:
    """Fill an order and take all of it away again: what it loads, it has loaded from then on."""
    with tempfile.TemporaryDirectory() as scratch, provisioner.client() as client:
        url = provisioner.upload(bootable.make(Path(scratch), 1), f"{REHEARSAL}.qcow2")
        client.provisioning.start(url, REHEARSAL, 4 * GIB_OF_MIB).filled()
        client.provisioning.delete(REHEARSAL)
        for image in client.provisioning.images():
            client.provisioning.forget(image.key)


@contextlib.contextmanager
def provisioned_lab(say: Say) -> Iterator[Lab]:
    """Give a lab of our own in which a provisioner of the working tree's sources runs."""
    with lab_daemon(provisioned_directory(say)) as (_, client, sandbox):
        yield Lab(client=client, sandbox=sandbox, say=say, wanted=sources.TESTS)
