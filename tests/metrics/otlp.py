"""An OpenTelemetry collector for tests: takes traces by OTLP over HTTP on the loopback and keeps their spans."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

WAIT_S = 60.0


@dataclass(kw_only=True)
class Collector:
    """What came so far, as the protocol's own messages."""

    url: str
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)
    raw: list[bytes] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, enough: Callable[[list[Span]], bool]) -> list[Span]:
        """Give the spans once there are enough of them."""
        with self.changed:
            assert self.changed.wait_for(lambda: enough(self.spans), WAIT_S), [span.name for span in self.spans]
            return list(self.spans)

    def take(self, body: bytes) -> None:
        request = ExportTraceServiceRequest.FromString(body)
        with self.changed:
            self.raw.append(body)
            for of_resource in request.resource_spans:
                attributes = {each.key: each.value.string_value for each in of_resource.resource.attributes}
                self.services.add(attributes["service.name"])
                for of_scope in of_resource.scope_spans:
                    self.spans += of_scope.spans
            self.changed.notify_all()


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """Collect as long as the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            assert self.headers["Content-Encoding"] is None
            collector.take(self.rfile.read(int(self.headers["Content-Length"])))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(url=f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join(WAIT_S)
        server.server_close()
