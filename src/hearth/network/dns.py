"""DNS messages (RFC 1035) as far as a forwarder reads and writes them; pure, and every byte may be hostile.

An answer from the world is handed on as it came, without its additional section: what stays keeps its offsets, so
compressed names in it stay right.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address

HEADER = struct.Struct(">HHHHHH")
RECORD = struct.Struct(">HHIH")
IN = 1
LONGEST_NAME_BYTES = 255
LONGEST_LABEL_BYTES = 63
MOST_RECORDS = 200
PLAIN_UDP_BYTES = 512
EDNS_BYTES = 1232
"""What both sides of a datagram can rely on without fragments (dnsflagday.net/2020)."""
RESPONSE, TRUNCATED, RECURSION_DESIRED, RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0100, 0x0080
OPCODE = 0x7800


class Kind(IntEnum):
    """Types of records this module knows; others pass as numbers."""

    A = 1
    CNAME = 5
    PTR = 12
    AAAA = 28
    OPT = 41
    SVCB = 64
    HTTPS = 65
    ANY = 255


class Code(IntEnum):
    """Response codes."""

    OK = 0
    FORMAT = 1
    FAILURE = 2
    NO_NAME = 3
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class Malformed(ValueError):
    """The bytes are no DNS message of the kind that was expected."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question. ``name`` is lower case without a final dot, ``wire`` the section's bytes as they came."""

    identity: int
    name: str
    kind: int
    wire: bytes
    recursion_desired: bool = True
    size_limit: int = PLAIN_UDP_BYTES


@dataclass(frozen=True, kw_only=True)
class Record:
    """A record of an answer. ``ttl_at`` is where its TTL lies; ``target`` is a CNAME's, ``address`` an A's."""

    name: str
    kind: int
    ttl_s: int
    ttl_at: int
    address: IPv4Address | None = None
    target: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An answer from the world; ``message`` ends with its authority section."""

    identity: int
    code: int
    is_truncated: bool
    question: bytes
    answers: tuple[Record, ...]
    records: tuple[Record, ...]
    message: bytes

    def addresses(self, name: str) -> dict[IPv4Address, int]:
        """Give the addresses that ``name`` leads to, by way of aliases, each with seconds for which it may be kept."""
        names = {name}
        for _ in range(len(self.answers)):
            aliases = {record.target for record in self.answers if record.name in names and record.target is not None}
            if aliases <= names:
                break
            names |= aliases
        return {
            record.address: record.ttl_s
            for record in self.answers
            if record.address is not None and record.name in names
        }


def parse_question(message: bytes) -> Question:
    """Read a query.

    Raises:
        Malformed: it is none, or has not exactly one question of the class Internet.
    """
    if len(message) < HEADER.size:
        raise Malformed("shorter than a header")
    identity, flags, questions, answers, authorities, additional = HEADER.unpack_from(message)
    if flags & (RESPONSE | OPCODE) or questions != 1 or answers or authorities:
        raise Malformed("no plain query")
    name, end = _name(message, HEADER.size)
    if end + 4 > len(message):
        raise Malformed("the question ends early")
    kind, class_ = struct.unpack_from(">HH", message, end)
    if class_ != IN:
        raise Malformed("not of the class Internet")
    return Question(
        identity=identity,
        name=name,
        kind=kind,
        wire=message[HEADER.size : end + 4],
        recursion_desired=bool(flags & RECURSION_DESIRED),
        size_limit=_size_limit(message, end + 4, additional),
    )


def parse_answer(message: bytes) -> Answer:
    """Read an answer.

    Raises:
        Malformed: it is none.
    """
    if len(message) < HEADER.size:
        raise Malformed("shorter than a header")
    identity, flags, questions, answers, authorities, _ = HEADER.unpack_from(message)
    if not flags & RESPONSE or questions != 1 or answers + authorities > MOST_RECORDS:
        raise Malformed("no plain answer")
    _, at = _name(message, HEADER.size)
    question_end = at + 4
    if question_end > len(message):
        raise Malformed("the question ends early")
    records = []
    at = question_end
    for _ in range(answers + authorities):
        record, at = _record(message, at)
        records.append(record)
    return Answer(
        identity=identity,
        code=flags & 0xF,
        is_truncated=bool(flags & TRUNCATED),
        question=message[HEADER.size : question_end],
        answers=tuple(records[:answers]),
        records=tuple(records),
        message=HEADER.pack(identity, flags, 1, answers, authorities, 0) + message[HEADER.size : at],
    )


def query(identity: int, question: bytes) -> bytes:
    """Write a query for the world, asking for recursion and telling how large a datagram may be (RFC 6891)."""
    header = HEADER.pack(identity, RECURSION_DESIRED, 1, 0, 0, 1)
    return header + question + b"\0" + RECORD.pack(Kind.OPT, EDNS_BYTES, 0, 0)


def answer(question: Question, code: Code, addresses: Iterable[IPv4Address] = (), *, ttl_s: int = 0) -> bytes:
    """Write an answer of our own: a code, and addresses for the name asked for."""
    chosen = list(addresses)
    records = b"".join(b"\xc0\x0c" + RECORD.pack(Kind.A, IN, ttl_s, 4) + each.packed for each in chosen)
    return _head(question, code, len(chosen)) + question.wire + records


def pointer(question: Question, target: str, *, ttl_s: int) -> bytes:
    """Write the answer to a question which name an address has."""
    encoded = encode_name(target)
    record = b"\xc0\x0c" + RECORD.pack(Kind.PTR, IN, ttl_s, len(encoded)) + encoded
    return _head(question, Code.OK, 1) + question.wire + record


def relay(question: Question, found: Answer, *, age_s: int = 0) -> bytes:
    """Write the world's answer for whoever asked, ``age_s`` seconds after it came."""
    message = bytearray(found.message)
    flags = RESPONSE | RECURSION_AVAILABLE | (RECURSION_DESIRED if question.recursion_desired else 0) | found.code
    struct.pack_into(">HH", message, 0, question.identity, flags)
    message[HEADER.size : HEADER.size + len(question.wire)] = question.wire  # the letters' case as it was asked
    for record in found.records:
        struct.pack_into(">I", message, record.ttl_at, max(0, record.ttl_s - age_s))
    return bytes(message)


def truncate(question: Question, message: bytes) -> bytes:
    """Give ``message`` as it fits into a datagram; cut short, it says so, and the guest asks again by TCP."""
    if len(message) <= question.size_limit:
        return message
    flags = struct.unpack_from(">H", message, 2)[0] | TRUNCATED
    return HEADER.pack(question.identity, flags, 1, 0, 0, 0) + question.wire


def refusal_of(message: bytes) -> bytes | None:
    """Write the answer to something that is no query; None for what may not be answered."""
    if len(message) < HEADER.size:
        return None
    identity, flags = struct.unpack_from(">HH", message)
    if flags & RESPONSE:
        return None
    code = Code.NOT_IMPLEMENTED if flags & OPCODE else Code.FORMAT
    return HEADER.pack(identity, RESPONSE | (flags & OPCODE) | code, 0, 0, 0, 0)


def encode_name(name: str) -> bytes:
    """Write a name of ASCII labels."""
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".") if label) + b"\0"


def reversed_address(name: str) -> IPv4Address | None:
    """Tell the address that a name below in-addr.arpa asks about."""
    labels = name.removesuffix(".in-addr.arpa").split(".")
    if not name.endswith(".in-addr.arpa") or len(labels) != 4 or not all(label.isdigit() for label in labels):
        return None
    try:
        return IPv4Address(".".join(reversed(labels)))
    except ValueError:
        return None


def _head(question: Question, code: Code, answers: int) -> bytes:
    flags = RESPONSE | RECURSION_AVAILABLE | (RECURSION_DESIRED if question.recursion_desired else 0) | code
    return HEADER.pack(question.identity, flags, 1, answers, 0, 0)


def _size_limit(message: bytes, at: int, additional: int) -> int:
    """Read how large a datagram the asker takes from its OPT record, the first of the additional ones in practice."""
    if additional and message[at : at + 1] == b"\0" and at + 1 + RECORD.size <= len(message):
        kind, size, _, _ = RECORD.unpack_from(message, at + 1)
        if kind == Kind.OPT:
            return max(PLAIN_UDP_BYTES, min(int(size), EDNS_BYTES))
    return PLAIN_UDP_BYTES


def _record(message: bytes, at: int) -> tuple[Record, int]:
    name, at = _name(message, at)
    if at + RECORD.size > len(message):
        raise Malformed("a record ends early")
    kind, class_, ttl_s, length = RECORD.unpack_from(message, at)
    data = at + RECORD.size
    end = data + length
    if end > len(message):
        raise Malformed("a record's data end early")
    address = target = None
    if class_ == IN and kind == Kind.A:
        if length != 4:
            raise Malformed("an address has four bytes")
        address = IPv4Address(message[data:end])
    elif class_ == IN and kind == Kind.CNAME:
        target, _ = _name(message, data)
    ttl_s = 0 if ttl_s > 0x7FFFFFFF else ttl_s  # RFC 2181, section 8
    return Record(name=name, kind=kind, ttl_s=ttl_s, ttl_at=at + 4, address=address, target=target), end


def _name(message: bytes, at: int) -> tuple[str, int]:
    """Read a name; gives it in lower case and where the bytes after it begin. Pointers lead backwards only."""
    labels: list[bytes] = []
    end: int | None = None
    limit = at
    total = 0
    while True:
        if at >= len(message):
            raise Malformed("a name ends early")
        length = message[at]
        if length >= 0xC0:
            if at + 2 > len(message):
                raise Malformed("a pointer ends early")
            end = at + 2 if end is None else end
            at = struct.unpack_from(">H", message, at)[0] & 0x3FFF
            if at >= limit:
                raise Malformed("a pointer leads forwards")
            limit = at
            continue
        if length > LONGEST_LABEL_BYTES:
            raise Malformed("a label of an unknown kind")
        if length == 0:
            return _text(labels), at + 1 if end is None else end
        label = message[at + 1 : at + 1 + length]
        total += length + 1
        if len(label) != length or total >= LONGEST_NAME_BYTES:
            raise Malformed("a name is too long")
        labels.append(label)
        at += 1 + length


def _text(labels: Sequence[bytes]) -> str:
    """Spell a name; bytes that are no letters of host names are escaped, so that no two names look the same."""
    return ".".join(
        "".join(chr(byte) if 33 <= byte <= 126 and byte not in b".\\" else f"\\{byte:03d}" for byte in label)
        for label in labels
    ).lower()
