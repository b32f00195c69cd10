"""Quotas of what takes real machines: copies, checkpoints and images."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.server.daemon import RunningDaemon

from hearth.errors import Conflict, HearthError, QuotaExceeded
from hearth.sdk.client import Client


@pytest.fixture
def ada(client: Client, house: RunningDaemon) -> Iterator[Client]:
    """The client of a user who may have little, and of whom nothing is left."""
    with Client(house.url, client.users.create("ada").secret) as made:
        yield made
        for sandbox in made.list():
            sandbox.destroy()
        for snapshot in made.snapshots():
            made.delete_snapshot(snapshot.id)
    client.users.delete("ada")


def test_copies_checkpoints_and_images_are_bounded(client: Client, ada: Client, house: RunningDaemon) -> None:
    client.users.set_quotas("ada", sandboxes=2, snapshots=1, images=0)
    sandbox = ada.create(name="one")
    for count in (2, 64):
        with pytest.raises(QuotaExceeded, match="quota sandboxes: 1 of 2 are used"):
            sandbox.fork(count)
    sandbox.fork(name="two")
    with pytest.raises(QuotaExceeded):
        sandbox.fork()

    sandbox.checkpoint("first")
    with pytest.raises(QuotaExceeded, match="too many checkpoints"):
        sandbox.checkpoint("second")
    with pytest.raises(QuotaExceeded):
        ada.resume_snapshot("first")

    with pytest.raises(QuotaExceeded, match="too many images"):
        sandbox.save_image("hers")
    usage = ada.users.usage()
    assert (usage.sandboxes.used, usage.snapshots.used, usage.images.used) == (2, 1, 0)
    assert (usage.disk_mb.used or 0) > 2 * 100
    assert (usage.snapshot_mb.used or 0) > 1


def test_a_checkpoint_that_turns_out_too_large_is_removed_again(client: Client, ada: Client) -> None:
    client.users.set_quotas("ada", snapshot_mb=1)
    sandbox = ada.create(name="one")
    with pytest.raises(QuotaExceeded, match="too large together"):
        sandbox.checkpoint("large")
    assert ada.snapshots() == []
    assert ada.users.usage().snapshot_mb.used == 0
    assert sandbox.run(["true"]).exit_code == 0
    with pytest.raises(Conflict):
        client.users.delete("ada")
    with pytest.raises(HearthError):
        sandbox.checkpoint("again")
