"""Whether a sandbox could be brought up now: the store answers, the engine works, images are there, the disk has room.

Anybody may ask, as often as he likes: what was found holds for a few seconds, and of many who ask at once one looks.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from hearth.control.images import Images
from hearth.control.shelf import MIB
from hearth.engine.base import EngineReport
from hearth.errors import HearthError
from hearth.host.waiting import until_done
from hearth.jobs.bringup import Workshop
from hearth.model import SandboxSpec
from hearth.store.base import Store

log = structlog.get_logger(__name__)

OK = "ok"
HOLDS_S = 3.0
LOOK_S = 5.0
"""For each thing; what takes longer is not well."""


class Readiness:
    """Looks at what bringing a sandbox up takes."""

    def __init__(self, store: Store, images: Images, workshop: Workshop) -> None:
        self._store = store
        self._images = images
        self._workshop = workshop
        self._lock = asyncio.Lock()
        self._found: Mapping[str, str] = {}
        self._until_s = 0.0
        self._proof: tuple[object, asyncio.Task[EngineReport]] | None = None

    async def check(self) -> Mapping[str, str]:
        """Give ``ok``, or what is wrong, for each thing that is needed."""
        async with self._lock:
            if time.monotonic() >= self._until_s:
                self._found = await self._look()
                self._until_s = time.monotonic() + HOLDS_S
            return self._found

    async def close(self) -> None:
        """Break off a proof that is under way."""
        if self._proof is not None:
            self._proof[1].cancel()
            await asyncio.gather(self._proof[1], return_exceptions=True)

    async def _look(self) -> Mapping[str, str]:
        checks: dict[str, Callable[[], Awaitable[str]]] = {
            "store": self._store_answers,
            "images": self._images_are_there,
            "engine": self._engine_works,
            "disk": self._disk_has_room,
        }
        found = {name: await _told(name, check) for name, check in checks.items()}
        if set(found.values()) != {OK}:
            log.warning("not ready", **found)
        return found

    async def _store_answers(self) -> str:
        await self._store.sandboxes.count(None)
        return OK

    async def _images_are_there(self) -> str:
        await self._images.boot_files(SandboxSpec(name="any").image)
        return OK

    async def _engine_works(self) -> str:
        """Ask the engine, whose first answer may take a boot; that goes on when this has no more patience."""
        boot = await self._images.boot_files(SandboxSpec(name="any").image)
        known = self._proof
        if known is None or known[0] != boot or (known[1].done() and known[1].exception() is not None):
            known = self._proof = (boot, asyncio.create_task(self._workshop.engine.probe(boot), name="engine proof"))
        proof = known[1]
        await asyncio.wait((proof,), timeout=LOOK_S / 2)
        if not proof.done():
            return "it is being proven by booting a guest"
        report = proof.result()
        if report.accelerator is None and self._workshop.engine.capabilities.isolated:
            return report.reason
        return OK

    async def _disk_has_room(self) -> str:
        wanted_mib, root = self._workshop.settings.min_free_mib, self._workshop.data.root
        free_mib = (await asyncio.to_thread(shutil.disk_usage, root)).free // MIB
        return OK if free_mib >= wanted_mib else f"{free_mib} MiB are free, a new sandbox wants {wanted_mib} MiB"


async def _told(name: str, check: Callable[[], Awaitable[str]]) -> str:
    looking = asyncio.ensure_future(check())
    try:
        async with asyncio.timeout(LOOK_S):
            return await asyncio.shield(looking)
    except TimeoutError:
        looking.cancel()
        await until_done(looking)
        return f"it did not answer within {LOOK_S:g} s"
    except HearthError as error:
        return error.brief if not error.resolution else f"{error.brief}: {error.resolution}"
    except OSError as error:
        return error.strerror or type(error).__name__
    except Exception:
        # Whatever an engine meets: whoever asks learns that it does not work, the log why.
        log.exception("a check of readiness failed", check=name)
        return "an unexpected error; the daemon's log tells"
    finally:
        looking.cancel()
