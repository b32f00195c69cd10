# Made of async_keeping.py by 'make twins': change that.
"""What is kept besides sandboxes, for the blocking client: checkpoints, images, machines kept ready, endings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from hearth.api.image_schemas import ImageView
from hearth.api.sleep_schemas import EndingView, MachineTemplateView, SnapshotView
from hearth.sdk import sleep_calls
from hearth.sdk.core import Core
from hearth.sdk.sleep_calls import ShapeOptions


class Keeping(Core):
    """The calls of what is kept."""

    def checkpoint(self, ref: str, name: str) -> SnapshotView:
        """Keep memory and disk of a living sandbox under a name, for any number of others to start from.

        >>> client.checkpoint("web", "before").state
        'ready'
        >>> client.delete_snapshot("before")
        """
        with self.deaths_told(ref):
            return self.call(sleep_calls.checkpoint(ref, name))

    def save_image(self, ref: str, name: str) -> ImageView:
        """Make an image of a sandbox's disk, to create others of.

        >>> client.save_image("web", "web-with-tools").kind
        'rootfs'
        """
        return self.call(sleep_calls.save_image(ref, name))

    def snapshots(self) -> Sequence[SnapshotView]:
        """Give all checkpoints, oldest first.

        >>> [snapshot.name for snapshot in client.snapshots()]
        []
        """
        return self.every(lambda cursor: self.call(sleep_calls.snapshots_page(cursor)))

    def snapshot(self, ref: str) -> SnapshotView:
        """Give one checkpoint.

        >>> kept = client.checkpoint("web", "kept")
        >>> client.snapshot("kept").sandbox_name
        'web'
        >>> client.delete_snapshot("kept")
        """
        return self.call(sleep_calls.snapshot(ref))

    def delete_snapshot(self, ref: str) -> None:
        """Delete a checkpoint; what others need of it stays until they are gone.

        >>> kept = client.checkpoint("web", "for-a-while")
        >>> client.delete_snapshot("for-a-while")
        """
        self.call(sleep_calls.delete_snapshot(ref))

    def endings(self) -> Sequence[EndingView]:
        """Tell of the sandboxes that were destroyed, the first to end first, without their consoles.

        >>> with client.create(name="gone"):
        ...     pass
        >>> "gone" in [ending.name for ending in client.endings()]
        True
        """
        return self.every(lambda cursor: self.call(sleep_calls.endings_page(cursor)))

    def ending(self, ref: str) -> EndingView:
        """Tell why a destroyed sandbox ended: by its id, or of those that bore a name the last.

        >>> with client.create(name="ended"):
        ...     pass
        >>> client.ending("ended").exit_cause.kind
        'user'
        """
        return self.call(sleep_calls.ending(ref))

    def machine_templates(self) -> Sequence[MachineTemplateView]:
        """Give the machines kept ready to be cloned.

        >>> sum(template.size_bytes for template in client.machine_templates()) >= 0
        True
        """
        return self.call(sleep_calls.machine_templates()).items

    def warm_machine_template(self, **shape: Unpack[ShapeOptions]) -> MachineTemplateView:
        """Boot a machine of a shape and keep it ready: not even the first creation has to boot then.

        >>> client.warm_machine_template(image="debian", cpus=1, memory_mb=256).memory_mb
        256
        """
        return self.call(sleep_calls.warm_machine_template(shape))

    def delete_machine_template(self, ref: str) -> None:
        """Drop a machine kept ready; only administrators may.

        >>> template = client.warm_machine_template(image="debian", memory_mb=192)
        >>> client.delete_machine_template(template.id)
        """
        self.call(sleep_calls.delete_machine_template(ref))
