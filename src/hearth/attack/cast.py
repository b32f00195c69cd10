"""Who takes part besides the target: throw-away sandboxes, and witnesses that wait in them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from hearth.api.schemas import SandboxView
from hearth.attack.carrying import given, printable, said
from hearth.attack.model import Expect, Probe
from hearth.errors import Forbidden, HearthError, NotFound, TimedOut
from hearth.sdk.async_client import AsyncClient

LABEL = "hearth-attack"
LIFE_S = 3600
"""A throw-away sandbox is destroyed after this long even if nobody is left to do it."""
READY_S = 60.0
MOST_TOLD = 10_000


@contextlib.asynccontextmanager
async def throw_away(client: AsyncClient, name: str, like: SandboxView) -> AsyncIterator[SandboxView]:
    """Give a sandbox of the target's shape that reaches nothing but its owner's others; destroyed at the end."""
    try:
        made = await client.create(
            name=name,
            image=like.image,
            cpus=like.cpus,
            memory_mb=like.memory_mb,
            labels={LABEL: "throw-away"},
            ttl_s=LIFE_S,
            keep_hot=True,
            net_policy={"default": "deny"},
        )
        yield made.view
    finally:
        with contextlib.suppress(NotFound):
            # A second Ctrl-C must not leave it behind.
            await asyncio.shield(asyncio.ensure_future(client.destroy(name)))


@contextlib.asynccontextmanager
async def throw_away_owner(client: AsyncClient, name: str) -> AsyncIterator[AsyncClient | None]:
    """Make a user to own a sandbox, and give a client of theirs; None where the caller may not make users."""
    try:
        made = await client.users.create(name)
    except (Forbidden, NotFound):
        yield None
        return
    try:
        async with AsyncClient(token=made.secret) as theirs:
            yield theirs
    finally:
        await asyncio.shield(asyncio.ensure_future(client.users.delete(made.user.id)))


@dataclass(kw_only=True)
class Witness:
    """A sandbox that takes connections and tells what reached it."""

    name: str
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    seen: set[str] = field(default_factory=set)

    async def stand(self, client: AsyncClient, ref: str, stdin: bytes, seconds: int) -> None:
        """Listen to the sandbox until the prober in it ends."""
        async for line in said(client, ref, stdin, seconds):
            if "ready" in line:
                self.ready.set()
            if isinstance(told := line.get("seen"), str) and len(self.seen) < MOST_TOLD:
                self.seen.add(printable(told)[:60])


@contextlib.asynccontextmanager
async def standing(
    client: AsyncClient, ref: str, name: str, *, run: str, port: int, seconds: int, redirect: str | None = None
) -> AsyncIterator[Witness]:
    """Have a sandbox be a witness as long as the context lasts.

    Raises:
        HearthError: it cannot, and why.
    """
    how = {"port": port, "seconds": seconds, "redirect": redirect}
    probe = Probe(id="stand", group="", target="", tried="", expect=Expect.ALLOWED, do="stand", how=how)
    witness = Witness(name=name)
    task = asyncio.create_task(
        witness.stand(client, ref, given(run, [probe], seconds), seconds), name=f"witness {name}"
    )
    try:
        await _until_ready(witness, task)
        yield witness
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, HearthError):
            await task


async def _until_ready(witness: Witness, task: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(witness.ready.wait(), name=f"{witness.name} is ready")
    try:
        async with asyncio.timeout(READY_S):
            await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError as error:
        raise _mute(witness) from error
    finally:
        ready.cancel()
    if not witness.ready.is_set():
        task.result()
        raise _mute(witness)


def _mute(witness: Witness) -> TimedOut:
    return TimedOut(
        "the prober does not start in a sandbox",
        details=f"the {witness.name} said nothing within {READY_S:g} s",
        resolution="the image needs python3: try 'hearth exec SANDBOX -- python3 --version'",
    )
