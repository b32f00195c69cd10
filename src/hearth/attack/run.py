"""An attack from its beginning to its end: the cast is brought in, probes are sent out, evidence is gathered."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace

from hearth.api.net_schemas import EgressView, NetPolicyView
from hearth.api.schemas import SandboxView
from hearth.attack import observer as watching
from hearth.attack.carrying import given, read_outcome, said
from hearth.attack.cast import Witness, standing, throw_away, throw_away_owner
from hearth.attack.host_side import ask_proxy, face_impostor, trap, unwell
from hearth.attack.judge import judge
from hearth.attack.model import Evidence, Expect, Flow, Outcome, Passage, Probe, Report, Where
from hearth.attack.plan import WITNESS_PORT, Scene, probes_for
from hearth.errors import Conflict, GuestFailed, HearthError, InvalidInput
from hearth.sdk.async_client import AsyncClient

Tell = Callable[[str], None]
Counted = Mapping[tuple[str, str, str, str, int], int]
"""Kind, host, address, protocol and port of what the daemon refused → times."""
WITNESS_S = 1800
GRACE_S = 30
"""How much longer than its own time a prober may take to begin and to end."""
SETTLE_S = 1.0
"""What the daemon tells of refusals, and an observer of frames, may come this much later."""
SPOILING = ("floods", "agent")
"""Groups with probes for the spare."""
FOREIGN = ("strangers", "names", "frames")
"""Groups with probes of another owner's sandbox."""
LATE = ("scan", "crowd agent", "speak to agent")
"""Actions that make so many refusals, or so much noise, that they come after the others."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the caller chose.

    Args:
        groups: of probes; none for all.
        seconds: how long a prober may take.
        also: addresses and ports besides, which the target must not reach.
    """

    sandbox: str
    neighbours: bool = True
    groups: tuple[str, ...] = ()
    seconds: int = 300
    also: tuple[tuple[str, int], ...] = ()

    def has(self, *groups: str) -> bool:
        """Tell whether one of these is to be tried."""
        return not self.groups or bool(set(groups) & set(self.groups))


@dataclass(frozen=True, kw_only=True)
class Cast:
    """Who takes part; None for who is not there. ``place`` is where an observer can stand, or why there is none."""

    target: SandboxView
    friend: SandboxView | None = None
    spare: SandboxView | None = None
    stranger: SandboxView | None = None
    place: watching.Place | str


@dataclass(kw_only=True)
class Attack:
    """One run: who takes part, and what is known so far."""

    client: AsyncClient
    other: AsyncClient | None
    options: Options
    tell: Tell
    run: str = field(default_factory=lambda: secrets.token_hex(4))
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    async def carry_out(self) -> Report:
        """Try everything and judge it.

        Raises:
            Conflict: the sandbox has no network.
            HearthError: it, or a throw-away one, cannot be used.
        """
        target = await self._target()
        async with contextlib.AsyncExitStack() as undo:
            cast = await self._cast(target, undo)
            probes = (*probes_for(await self._scene(cast), self.options.groups), *_afterwards(cast))
            evidence = await self._probe(probes, cast)
            if cast.spare is not None and cast.friend is not None:
                evidence = await self._spoil(probes, cast.spare, cast.friend, target, evidence)
            evidence = await self._look_after(cast, evidence)
        unobserved = cast.place if isinstance(cast.place, str) else "frames were lost"
        return Report(
            sandbox=target.name,
            policy=target.net_policy.default if target.net_policy else "",
            observed="yes" if evidence.passage else unobserved,
            rows=judge(probes, evidence),
        )

    async def _target(self) -> SandboxView:
        await self.client.start(self.options.sandbox)
        view = (await self.client.get(self.options.sandbox)).view
        if view.net_policy is None or view.address is None:
            raise Conflict(
                "the sandbox has no network to attack",
                details=f"{view.name} has no address among its owner's sandboxes",
                resolution="attack one of a daemon that runs as root; without, machines have user-mode networks",
            )
        return view

    async def _cast(self, target: SandboxView, undo: contextlib.AsyncExitStack) -> Cast:
        """Create the throw-away sandboxes.

        Raises:
            InvalidInput: the other owner is the target's.
        """

        async def made(client: AsyncClient, role: str) -> SandboxView:
            self.tell(f"creating a throw-away sandbox: {role}")
            return await undo.enter_async_context(throw_away(client, f"attack-{role}-{self.run}", target))

        friend = spare = stranger = None
        if self.options.neighbours:
            friend = await made(self.client, "friend")
        if self.options.neighbours and self.options.has(*SPOILING):
            spare = await made(self.client, "spare")
        if self.options.neighbours and self.options.has(*FOREIGN):
            if self.other is None:
                self.other = await undo.enter_async_context(throw_away_owner(self.client, f"attack-{self.run}"))
            if self.other is not None:
                await _check_apart(self.client, self.other)
                stranger = await made(self.other, "stranger")
        place = watching.find_place(target.id, target.address or "")
        return Cast(target=target, friend=friend, spare=spare, stranger=stranger, place=place)

    async def _scene(self, cast: Cast) -> Scene:
        target, friend, stranger = cast.target, cast.friend, cast.stranger
        policy = target.net_policy or NetPolicyView(default="deny")
        is_open = policy.default == "public" or policy.audit
        hosts: tuple[str, ...] = ()
        if not isinstance(cast.place, str):
            hosts = await watching.host_addresses(cast.place)
        return Scene(
            run=self.run,
            gateway=await self._gateway(),
            address=target.address or "",
            friend=friend.address if friend else None,
            friend_name=friend.name if friend else "",
            stranger=stranger.address if stranger else None,
            stranger_name=stranger.name if stranger else "",
            has_spare=cast.spare is not None,
            is_open=is_open,
            neighbours=policy.neighbours,
            allowed=tuple(ipaddress.IPv4Network(each) for each in policy.allow_cidrs),
            hosts=hosts,
            also=self.options.also,
        )

    async def _gateway(self) -> str:
        """Ask the guest for its default gateway.

        Raises:
            GuestFailed: it knows none.
        """
        result = await self.client.run(self.options.sandbox, ["cat", "/proc/net/route"], timeout_sec=60)
        for line in result.stdout.splitlines()[1:]:
            fields = line.split()
            if len(fields) > 2 and fields[1] == "00000000":
                with contextlib.suppress(ValueError, struct.error):
                    return str(ipaddress.IPv4Address(struct.pack("=I", int(fields[2], 16))))
        raise GuestFailed("the guest has no default route", resolution="attack a sandbox whose network was left alone")

    async def _probe(self, probes: tuple[Probe, ...], cast: Cast) -> Evidence:
        """Send the probes of all but the spare, with witnesses and observer about."""
        witnesses: dict[str, Witness] = {}
        async with contextlib.AsyncExitStack() as undo:
            caught = await undo.enter_async_context(trap())
            ours = ((Where.TARGET, self.client, cast.target), (Where.FRIEND, self.client, cast.friend))
            for where, client, view in (*ours, (Where.STRANGER, self.other, cast.stranger)):
                if client is not None and view is not None:
                    self.tell(f"setting up a witness: {where.value}")
                    witness = standing(
                        client,
                        view.id,
                        where.value,
                        run=self.run,
                        port=WITNESS_PORT,
                        seconds=WITNESS_S,
                        redirect=caught.url,
                    )
                    witnesses[where.value] = await undo.enter_async_context(witness)
            passage, refusals, names = await self._watched(probes, cast, undo)
            if self.options.has("proxy"):
                self.tell("asking through the proxy")
                self.outcomes |= await ask_proxy(self.client, cast.target.id, WITNESS_PORT, caught)
        return Evidence(
            outcomes=dict(self.outcomes),
            witnesses=frozenset(
                view.address for view in (cast.friend, cast.stranger) if view is not None and view.address
            ),
            seen_by={name: frozenset(witness.seen) for name, witness in witnesses.items()},
            refusals=refusals,
            names_refused=names,
            passage=passage,
        )

    async def _watched(
        self, probes: tuple[Probe, ...], cast: Cast, undo: contextlib.AsyncExitStack
    ) -> tuple[Passage | None, frozenset[Flow], frozenset[str]]:
        """Probe under an observer's eyes; gives what it saw and what the daemon tells meanwhile."""
        target, friend, stranger = cast.target, cast.friend, cast.stranger
        observer = None
        if not isinstance(cast.place, str):
            observer = await undo.enter_async_context(watching.observing(self.run, cast.place))
        views = [each for each in (target, friend) if each is not None]
        before = {view.id: _counted(await self.client.egress(view.id)) for view in views}
        await self._send(self.client, target, _of(probes, Where.TARGET))
        if friend is not None:
            await self._send(self.client, friend, _of(probes, Where.FRIEND))
        if stranger is not None and self.other is not None:
            await self._send(self.other, stranger, _of(probes, Where.STRANGER))
        await asyncio.sleep(SETTLE_S)
        passage = observer.finish() if observer is not None else None
        refusals: set[Flow] = set()
        names: set[str] = set()
        for view in views:
            for kind, host, address, protocol, port in _new(
                _counted(await self.client.egress(view.id)), before[view.id]
            ):
                if kind == "name_denied":
                    names.add(host)
                elif kind == "denied" and view is target:
                    refusals.add((protocol, address, port))
                elif kind == "denied" and address == target.address:
                    # Refused on the friend's side: it was called.
                    refusals.add((protocol, view.address or "", port))
        if passage is not None and friend is not None:
            passage = _seen_clearly(passage, friend.address or "", self.outcomes)
        return passage, frozenset(refusals), frozenset(names)

    async def _send(self, client: AsyncClient, sandbox: SandboxView, probes: list[Probe]) -> None:
        """Have a sandbox carry out its probes and take down what it says."""
        if not probes:
            return
        what = f"{len(probes)} probes" if len(probes) > 1 else probes[0].tried
        self.tell(f"trying from {sandbox.name}: {what}")
        ids = {each.id for each in probes}
        seconds = self.options.seconds
        async for line in said(client, sandbox.id, given(self.run, probes, seconds), seconds + GRACE_S):
            found = read_outcome(line)
            if found is not None and found[0] in ids:
                self.outcomes[found[0]] = found[1]

    async def _spoil(
        self, probes: tuple[Probe, ...], spare: SandboxView, friend: SandboxView, target: SandboxView, known: Evidence
    ) -> Evidence:
        """Do to the spare what would spoil the target."""
        others = [friend.id, target.id]
        harm: dict[str, str] = {}
        mine = _of(probes, Where.SPARE)
        floods = [probe for probe in mine if probe.do != "become agent"]
        await self._send(self.client, spare, floods)
        if words := await unwell(self.client, others):
            harm = {probe.id: f"afterwards: {words}" for probe in floods}
        await self._send(self.client, friend, _of(probes, Where.AFTERWARDS))
        if len(floods) < len(mine):
            await self._send(self.client, spare, mine[len(floods) :])
            self.tell("talking to an impostor in the agent's place")
            self.outcomes |= await face_impostor(self.client, spare.id, self.run, others)
        rules: Mapping[str, int] = {}
        with contextlib.suppress(HearthError):
            rules = (await self.client.egress(spare.id)).counts
        return replace(known, outcomes=dict(self.outcomes), rules=rules, harm=harm)

    async def _look_after(self, cast: Cast, known: Evidence) -> Evidence:
        """See whether everybody serves after all of it."""
        for name, view in (("well-target", cast.target), ("well-friend", cast.friend)):
            if view is not None:
                words = await unwell(self.client, [view.id])
                self.outcomes[name] = Outcome(word="harmed" if words else "well", detail=words)
        return replace(known, outcomes=dict(self.outcomes))


def _of(probes: tuple[Probe, ...], where: Where) -> list[Probe]:
    """Give the probes to send from somewhere: those that make noise come last, and an impostor after them."""
    mine = [each for each in probes if each.where is where and each.do and each.tried_at_all]
    return sorted(mine, key=lambda each: (each.do == "become agent", each.do in LATE))


def _afterwards(cast: Cast) -> list[Probe]:
    found = []
    for identity, target in (("well-target", "the target"), ("well-friend", "a neighbour")):
        probe = Probe(id=identity, group="afterwards", target=target, tried="a command", expect=Expect.SURVIVED)
        found.append(probe)
    return found if cast.friend is not None else found[:1]


async def _check_apart(client: AsyncClient, other: AsyncClient) -> None:
    if (await client.users.get()).id == (await other.users.get()).id:
        raise InvalidInput(
            "the other owner is the sandbox's own",
            details="both keys are one user's",
            resolution="name the file with another user's key: 'hearth user create' makes one",
            field="--other-key",
        )


def _counted(view: EgressView) -> Counted:
    return {(each.kind, each.host, each.address or "", each.protocol, each.port): each.count for each in view.attempts}


def _new(after: Counted, before: Counted) -> list[tuple[str, str, str, str, int]]:
    return [each for each, count in after.items() if count > before.get(each, 0)]


def _seen_clearly(passage: Passage, friend: str, outcomes: Mapping[str, Outcome]) -> Passage | None:
    """Give what an observer saw without what may pass; None if it missed even that."""
    called = outcomes.get("friend-dial")
    if called is not None and called.word == "open" and not any(flow[1] == friend for flow in passage.flows_passed):
        return None
    may_pass = frozenset(flow for flow in passage.flows_passed if flow[1] == friend)
    return replace(passage, flows_passed=passage.flows_passed - may_pass)


@contextlib.asynccontextmanager
async def clients(url: str | None, other_key: str | None) -> AsyncIterator[tuple[AsyncClient, AsyncClient | None]]:
    """Give the caller's client, and another owner's where there is a key of theirs."""
    async with contextlib.AsyncExitStack() as undo:
        client = await undo.enter_async_context(AsyncClient(url))
        other = await undo.enter_async_context(AsyncClient(url, other_key)) if other_key else None
        yield client, other
