"""The resolver a guest asks: at its gateway's address, in its own namespace, so who asks is known by the socket.

It answers from ``answers``, asks the world through ``upstream``, and opens the addresses of permitted names before the
guest hears of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Coroutine, Mapping
from ipaddress import IPv4Address
from typing import Any, Protocol

import structlog

from hearth.network import answers, dns
from hearth.network.answers import Household, Reply
from hearth.network.bucket import Bucket
from hearth.network.dns import Answer, Code, Kind, Malformed, Question
from hearth.network.policy import Policy
from hearth.network.upstream import Memory, NoAnswer, Upstream

log = structlog.get_logger(__name__)

QUERIES_PER_S = 100
QUERY_BURST = 300
MOST_AT_ONCE = 64
MOST_STREAMS = 8
STREAM_IDLE_S = 10.0


class Asker(Protocol):
    """The machine whose guest asks."""

    @property
    def sandbox_id(self) -> str: ...

    @property
    def policy(self) -> Policy: ...

    def household(self) -> Household:
        """Give the owner's sandboxes as they are now."""
        ...

    def bind(self, name: str, addresses: Mapping[IPv4Address, int]) -> None:
        """Open what the policy's names stand for; addresses with seconds for which they hold.

        Raises:
            OSError: the firewall could not be told; the guest must not hear of the addresses.
        """
        ...

    def name_refused(self, name: str, rule: str) -> None:
        """Tell that a question was refused."""
        ...


class NameService:
    """Serves one machine on two sockets of its namespace, which it owns from now on.

    Args:
        datagrams, streams: bound, non-blocking; the second listens.
        memory: of the owner.
    """

    def __init__(
        self, asker: Asker, datagrams: socket.socket, streams: socket.socket, upstream: Upstream, memory: Memory
    ) -> None:
        self._asker = asker
        self._datagrams = datagrams
        self._streams = streams
        self._upstream = upstream
        self._memory = memory
        self._tasks: set[asyncio.Task[None]] = set()
        self._open_streams = 0
        self._bucket = Bucket(per_s=QUERIES_PER_S, burst=QUERY_BURST)

    def start(self) -> None:
        """Begin to answer; blocks nothing."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._datagrams, self._datagrams_waiting)
        loop.add_reader(self._streams, self._streams_waiting)

    async def close(self) -> None:
        """Stop answering and let go of the sockets."""
        loop = asyncio.get_running_loop()
        for each in (self._datagrams, self._streams):
            if each.fileno() >= 0:
                loop.remove_reader(each)
                each.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def reply_to(self, message: bytes) -> bytes | None:
        """Give the answer to send; None for none."""
        question, reply = self._at_once(message)
        if question is None or reply is not None:
            return reply
        return self._said(question, await self._ask_world(question))

    def _at_once(self, message: bytes) -> tuple[Question | None, bytes | None]:
        """Give the question as it was understood, and its answer where that needs nobody else."""
        try:
            question = dns.parse_question(message)
        except Malformed:
            return None, dns.refusal_of(message)
        if not self._bucket.take(asyncio.get_running_loop().time()):
            return question, self._said(question, answers.refuse(question, "rate"))
        reply = answers.decide(question, self._asker.policy, self._asker.household())
        return question, None if reply is None else self._said(question, reply)

    def _said(self, question: Question, reply: Reply) -> bytes:
        if reply.rule is not None:
            self._asker.name_refused(question.name, reply.rule)
        return reply.message

    async def _ask_world(self, question: Question) -> Reply:
        now_s = asyncio.get_running_loop().time()
        kept = self._memory.get(question.name, question.kind, now_s)
        try:
            found = await self._upstream.ask(question.wire) if kept is None else kept.answer
        except NoAnswer:
            return Reply(message=dns.answer(question, Code.FAILURE))
        came_s = now_s if kept is None else kept.came_s
        if kept is None:
            self._memory.put(question.name, question.kind, found, now_s)
        return self._judged(question, found, int(now_s - came_s))

    def _judged(self, question: Question, found: Answer, age_s: int) -> Reply:
        # The policy may have been edited while the world was asked.
        policy = self._asker.policy
        if not policy.allows_name(question.name):
            return answers.refuse(question, "name")
        if answers.points_inside(found, policy):
            return answers.refuse(question, "rebinding")
        if question.kind == Kind.A:
            left = {address: ttl_s - age_s for address, ttl_s in found.addresses(question.name).items()}
            try:
                self._asker.bind(question.name, left)
            except OSError as error:
                log.warning("a name could not be opened", sandbox=self._asker.sandbox_id, error=str(error))
                return Reply(message=dns.answer(question, Code.FAILURE))
        return Reply(message=dns.relay(question, found, age_s=age_s))

    def _datagrams_waiting(self) -> None:
        for _ in range(MOST_AT_ONCE):
            try:
                message, peer = self._datagrams.recvfrom(65535)
            except OSError:  # none left, or an ICMP error of an answer that nobody wanted
                return
            question, reply = self._at_once(message)
            if reply is not None:
                self._send(question, reply, peer)
            elif question is not None and len(self._tasks) < MOST_AT_ONCE:
                self._spawn(self._answer_datagram(question, peer), "datagram")

    async def _answer_datagram(self, question: Question, peer: Any) -> None:
        self._send(question, self._said(question, await self._ask_world(question)), peer)

    def _send(self, question: Question | None, reply: bytes, peer: Any) -> None:
        if question is not None:
            reply = dns.truncate(question, reply)
        with contextlib.suppress(OSError):  # a full buffer, or a TAP without its machine: the guest asks again
            self._datagrams.sendto(reply, peer)

    def _streams_waiting(self) -> None:
        with contextlib.suppress(OSError):
            stream, _ = self._streams.accept()
            stream.setblocking(False)
            if self._open_streams >= MOST_STREAMS:
                stream.close()
            else:
                self._spawn(self._serve_stream(stream), "stream")

    async def _serve_stream(self, stream: socket.socket) -> None:
        self._open_streams += 1
        try:
            reader, writer = await asyncio.open_connection(sock=stream)
        except BaseException:
            self._open_streams -= 1
            stream.close()
            raise
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                while True:
                    async with asyncio.timeout(STREAM_IDLE_S):
                        (size,) = struct.unpack(">H", await reader.readexactly(2))
                        message = await reader.readexactly(size)
                        reply = await self.reply_to(message)
                        if reply is None:
                            return
                        writer.write(struct.pack(">H", len(reply)) + reply)
                        await writer.drain()
        finally:
            self._open_streams -= 1
            writer.close()

    def _spawn(self, work: Coroutine[Any, Any, None], what: str) -> None:
        task = asyncio.create_task(_quietly(work, self._asker.sandbox_id), name=f"dns {what} {self._asker.sandbox_id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _quietly(work: Coroutine[Any, Any, None], sandbox_id: str) -> None:
    try:
        await work
    except Exception:  # the task ends here; one bad question must not be the last one
        log.exception("a question could not be answered", sandbox=sandbox_id)
