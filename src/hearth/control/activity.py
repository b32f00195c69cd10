"""What counts as use of a sandbox, and since when there was none: a pure function of two looks at it.

Use is a client's operation, something attached, bytes that flow, output, a job that runs without a client, and work of
the guest's CPUs. Reading what is stored about a sandbox is none of these, or listing them would keep all awake.
"""

from __future__ import annotations

from dataclasses import dataclass

SILENCE_S = 60.0
"""A guest that does not answer is too busy for that, on a busy host; after so long it is taken for dead."""


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What one look saw. Whoever has not asked the guest (a paused one must not be asked) leaves out what it tells.

    ``last_operation_s`` is when, by the monotonic clock, a client's last operation ended. ``bytes_moved`` (tunnels,
    files, terminals), ``output_bytes`` (of processes) and ``cpu_ms`` (of the guest's CPUs, from the agent) only grow;
    smaller than before means that they began anew. ``guest_idle_s`` is how long ago the agent last saw use, as far as
    its clock and the host's agree; ``guest_used_unix`` is when that was by its own, which another value tells apart
    from use that is known already, however wrong either clock is. ``silent`` is a guest that was asked and did not
    answer.
    """

    operations: int = 0
    attached: int = 0
    detached_jobs: int = 0
    last_operation_s: float | None = None
    bytes_moved: int = 0
    output_bytes: int = 0
    cpu_ms: int | None = None
    guest_idle_s: float | None = None
    guest_used_unix: int | None = None
    silent: bool = False


@dataclass(frozen=True, kw_only=True)
class Use:
    """When a sandbox was last used, in seconds of the monotonic clock, and what the next look is compared with."""

    used_s: float
    bytes_moved: int
    output_bytes: int
    cpu_ms: int | None = None
    cpu_at_s: float = 0.0
    guest_used_unix: int | None = None
    guest_asked_s: float = 0.0

    def idle_s(self, now_s: float) -> float:
        return max(0.0, now_s - self.used_s)


def look(before: Use | None, signs: Signs, now_s: float, *, busy_cpu_share: float) -> Use:
    """Give what is known of a sandbox's use after one more look.

    Args:
        before: None at the first look: without any sign of when it was used, it counts as used now.
        busy_cpu_share: share of one CPU from which the guest's work is use.
    """
    moments = [] if before is None else [before.used_s]
    if signs.operations or signs.attached or signs.detached_jobs or _moved(before, signs, now_s, busy_cpu_share):
        moments.append(now_s)
    if signs.silent and (before is None or now_s - before.guest_asked_s < SILENCE_S):
        moments.append(now_s)
    if (guest_s := _guest_used_s(before, signs, now_s)) is not None:
        moments.append(guest_s)
    if signs.last_operation_s is not None:
        moments.append(signs.last_operation_s)
    asked, told = signs.cpu_ms is not None, signs.guest_used_unix is not None
    return Use(
        used_s=min(max(moments, default=now_s), now_s),
        bytes_moved=signs.bytes_moved,
        output_bytes=signs.output_bytes,
        cpu_ms=signs.cpu_ms if asked or before is None else before.cpu_ms,
        cpu_at_s=now_s if asked or before is None else before.cpu_at_s,
        guest_used_unix=signs.guest_used_unix if told or before is None else before.guest_used_unix,
        guest_asked_s=now_s if told or before is None else before.guest_asked_s,
    )


def _guest_used_s(before: Use | None, signs: Signs, now_s: float) -> float | None:
    """Tell when the agent last saw use; None when that is known already, or not told."""
    if signs.guest_idle_s is None:
        return None
    used_s = now_s - max(0.0, signs.guest_idle_s)
    if before is None or before.guest_used_unix is None or signs.guest_used_unix is None:
        return used_s
    if signs.guest_used_unix == before.guest_used_unix:
        return None
    # It was since it was last asked, whatever the clocks say.
    return max(used_s, before.guest_asked_s)


def _moved(before: Use | None, signs: Signs, now_s: float, busy_cpu_share: float) -> bool:
    """Tell whether something moved since the look before."""
    if before is None:
        return False
    if signs.bytes_moved > before.bytes_moved or signs.output_bytes > before.output_bytes:
        return True
    if signs.cpu_ms is None or before.cpu_ms is None or now_s <= before.cpu_at_s:
        return False
    return (signs.cpu_ms - before.cpu_ms) / 1000 >= busy_cpu_share * (now_s - before.cpu_at_s)
