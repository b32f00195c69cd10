"""What one call of the API is: a row of the table of operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from hearth.api.schemas import Nothing
from hearth.errors import Code
from hearth.tenancy import KeyScope

Input = TypeVar("Input")
Output = TypeVar("Output")
Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What a call that changes to a WebSocket speaks: the schemas of the client's messages, and of the server's."""

    hears: tuple[type[Any], ...]
    says: tuple[type[Any], ...]


@dataclass(frozen=True, kw_only=True)
class Operation(Generic[Input, Output]):
    """One call.

    Args:
        takes: the body of a POST or PATCH, of everything else the query.
        gives: the body of the answer; ``Nothing`` means 204.
        statuses: those of success, the usual one first.
        also_gives: the bodies of those whose body is another.
        errors: the codes it answers besides those every call may answer.
        public: needs no token.
        body_optional: no body at all means one without a field.
        streams: the schemas of its lines when the caller accepts NDJSON.
        events: the schema of its events' data, where it answers with server-sent events.
        gives_secret: its answer holds what is shown this once and stored nowhere.
        scope: what a key must be allowed; None is to read for a GET, else to write.
        uploads: the media types of a body that is no JSON and of any size; ``takes`` is the query then.
        downloads: the media types of answers that are no JSON, besides ``gives``.
        headers: what the answer of success tells in headers.
        reads_header: a header that says more of what is asked for.
        conversation: of a call that changes to a WebSocket.
    """

    name: str
    method: Method
    path: str
    summary: str
    takes: type[Input]
    gives: type[Output]
    statuses: tuple[int, ...] = (200,)
    also_gives: Mapping[int, type[Any]] = field(default_factory=dict)
    errors: tuple[Code, ...] = ()
    public: bool = False
    body_optional: bool = False
    streams: tuple[type[Any], ...] = ()
    events: type[Any] | None = None
    gives_secret: bool = False
    scope: KeyScope | None = None
    uploads: tuple[str, ...] = ()
    downloads: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    reads_header: str | None = None
    conversation: Conversation | None = None

    @property
    def needed_scope(self) -> KeyScope:
        """What a key must be allowed to make this call."""
        return self.scope or (KeyScope.WRITE if self.changes else KeyScope.READ)

    @property
    def has_body(self) -> bool:
        return self.method in ("POST", "PATCH") and not self.uploads

    @property
    def changes(self) -> bool:
        """Whether it does more than look."""
        return self.method not in ("GET", "HEAD")

    @property
    def creates(self) -> bool:
        """Whether it makes something new, so that an Idempotency-Key keeps a repetition from making it twice.

        Also where the answer holds a secret: what is kept for a repetition is sealed.
        """
        return self.method == "POST" and not self.uploads and not {201, 202}.isdisjoint(self.statuses)

    @property
    def needs_body(self) -> bool:
        """Whether a request without a body is refused."""
        return self.has_body and not self.body_optional and self.takes is not Nothing

    @property
    def every_error(self) -> tuple[Code, ...]:
        """All codes this call may answer, those of every call included."""
        usual = [Code.INVALID, Code.INTERNAL]
        if not self.public:
            usual += [Code.UNAUTHENTICATED, Code.FORBIDDEN, Code.RATE_LIMITED, Code.UNAVAILABLE]
        if self.has_body:
            usual += [Code.TOO_LARGE, Code.REQUEST_TIMEOUT]
        if self.creates:
            usual.append(Code.CONFLICT)  # its Idempotency-Key may have been used for something else
        return tuple(dict.fromkeys([*usual, *self.errors]))
