"""What the host itself does in an attack: it asks through the proxy, and talks to a guest that plays the agent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from hearth.api.limits import PREFIX
from hearth.attack.model import Outcome
from hearth.errors import HearthError
from hearth.sdk.async_client import AsyncClient
from hearth.sdk.call import Call
from hearth.sdk.http1 import HttpRequest, HttpResponse

LIES = ("empty", "noise", "half", "text", "exit", "huge", "endless", "probes", "silence")
"""What ``guest/channel`` says to the host, by name."""
TAKE_OVER_S = 60.0
ANSWER_S = 2
"""Time limit of a command that an impostor never ends."""
HANG_S = 90.0
WELL_S = 60.0
ASK_S = 20.0
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Get(Call[HttpResponse]):
    """A GET whose answer is taken as it is."""

    def read(self, response: HttpResponse) -> HttpResponse:
        return response


def through_proxy(sandbox_id: str, port: int, path: str) -> Get:
    """Give the call of a port of a sandbox through the daemon's proxy."""
    target = f"{PREFIX}/sandboxes/{sandbox_id}/proxy/{port}/{path}"
    return Get(request=HttpRequest(method="GET", target=target, timeout_s=ASK_S, accept="*/*"), gives=HttpResponse)


@dataclass(kw_only=True)
class Trap:
    """A port of this host's loopback where nobody should call; ``calls`` counts who did."""

    port: int = 0
    calls: int = 0

    def called(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.calls += 1
        writer.close()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/"


@contextlib.asynccontextmanager
async def trap() -> AsyncIterator[Trap]:
    """Listen as long as the context lasts."""
    made = Trap()
    server = await asyncio.start_server(made.called, LOOPBACK, 0)
    made.port = server.sockets[0].getsockname()[1]
    async with server:
        yield made


async def ask_proxy(client: AsyncClient, sandbox_id: str, witness_port: int, caught: Trap) -> dict[str, Outcome]:
    """Ask the target's server, which sends us on to the trap, and its agent."""
    found = {}
    plain = await _status(client, through_proxy(sandbox_id, witness_port, "plain"))
    found["proxy-plain"] = Outcome(word="open" if plain == 200 else "refused", detail=f"status {plain}")
    moved = await _status(client, through_proxy(sandbox_id, witness_port, "moved"))
    followed = caught.calls > 0 or moved != 302
    words = f"status {moved}, {caught.calls} calls at the host's loopback"
    found["proxy-redirect"] = Outcome(word="harmed" if followed else "handed back", detail=words)
    for port in (1024, 1025):
        status = await _status(client, through_proxy(sandbox_id, port, ""))
        word = "harmed" if 200 <= status < 400 else "refused"
        found[f"proxy-agent-{port}"] = Outcome(word=word, detail=f"status {status}")
    return found


async def _status(client: AsyncClient, call: Get) -> int:
    try:
        return (await client.call(call)).status
    except HearthError:
        return 599


async def face_impostor(client: AsyncClient, ref: str, run: str, others: Sequence[str]) -> dict[str, Outcome]:
    """Talk to a sandbox whose agent was replaced, until every lie was told; the daemon and others have to live on."""
    if not await _is_impostor(client, ref, run):
        return {"impostor": Outcome(word="could not", detail="it did not get the agent's place")}
    heard = {"impostor-heard": Outcome(word="open")}
    for lie in LIES:
        try:
            async with asyncio.timeout(HANG_S):
                with contextlib.suppress(HearthError):
                    await client.run(ref, [f"hearth-lie:{lie};"], timeout_sec=ANSWER_S)
        except TimeoutError:
            return {**heard, "impostor": Outcome(word="harmed", detail=f"a command hangs after {lie!r}")}
        if harm := await unwell(client, others):
            return {**heard, "impostor": Outcome(word="harmed", detail=f"after {lie!r}: {harm}")}
    words = f"{len(LIES)} lies were taken as errors; the daemon and the others serve"
    return {**heard, "impostor": Outcome(word="survived", detail=words)}


async def _is_impostor(client: AsyncClient, ref: str, run: str) -> bool:
    """Wait until what the host hears is the impostor's own word."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + TAKE_OVER_S
    while loop.time() < deadline:
        try:
            async with asyncio.timeout(TAKE_OVER_S):
                await client.run(ref, ["hearth-lie:who;"], timeout_sec=ANSWER_S)
        except HearthError as error:
            if f"impostor {run}" in f"{error.brief} {error.details}":
                return True
        except TimeoutError:
            return False
        await asyncio.sleep(0.5)
    return False


async def unwell(client: AsyncClient, refs: Sequence[str]) -> str:
    """Say what does not serve any more; "" for nothing."""
    try:
        async with asyncio.timeout(WELL_S):
            await client.health()
            for ref in refs:
                result = await client.run(ref, ["true"], timeout_sec=WELL_S)
                if result.exit_code != 0:
                    return f"a command in {ref} ended with {result.exit_code}"
    except (HearthError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return ""
