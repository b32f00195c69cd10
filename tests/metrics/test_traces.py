"""A daemon's traces as a collector gets them, and that nothing of them is loaded where nobody asked."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPResponse

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.metrics.otlp import Collector, collecting
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.sockets import opened
from tests.server.test_app import UnixConnection

from hearth.sdk.client import Client

pytestmark = pytest.mark.daemon

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CANARY = "canary-5b2f9d"
UNTRACED = """
import sys
from hearth.server import observability, serve
from hearth.settings.options import read_words
with observability.traced(observability.read_options(read_words([], {}).arguments, {})):
    print([name for name in sys.modules if name.startswith("opentelemetry")])
"""


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[RunningDaemon]:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, "--otel-endpoint", collector.url) as running:
            yield running


def call(daemon: RunningDaemon, method: str, path: str, **headers: str) -> HTTPResponse:
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.request(method, path, headers={"Authorization": f"Bearer {daemon.token}", **headers})
        answer = connection.getresponse()
        answer.read()
        return answer
    finally:
        connection.close()


def of_trace(spans: list[Span], trace_id: str) -> list[Span]:
    return [span for span in spans if span.trace_id.hex() == trace_id]


def ancestry(spans: list[Span], span: Span) -> list[str]:
    """Name a span and what it is part of, the innermost first."""
    by_id = {each.span_id: each for each in spans}
    names = [span.name]
    while (parent := by_id.get(span.parent_span_id)) is not None:
        names.append(parent.name)
        span = parent
    return names


def test_a_callers_trace_goes_on_in_the_daemon_and_comes_back(traced: RunningDaemon, collector: Collector) -> None:
    answer = call(traced, "GET", "/api/v1/sandboxes", traceparent=f"00-{TRACE}-{PARENT}-01")
    version, trace_id, span_id, flags = (answer.headers["traceparent"] or "").split("-")
    assert (version, trace_id, flags) == ("00", TRACE, "01")
    spans = of_trace(collector.wait_for(lambda all_: any(each.span_id.hex() == span_id for each in all_)), TRACE)
    (request,) = [span for span in spans if span.span_id.hex() == span_id]
    assert request.parent_span_id.hex() == PARENT
    assert request.name == "GET /api/v1/sandboxes"
    assert request.kind == Span.SPAN_KIND_SERVER
    assert {"list_sandboxes", request.name} <= {span.name for span in spans}
    assert collector.services == {"hearth"}


def test_a_broken_traceparent_is_not_believed(traced: RunningDaemon) -> None:
    for broken in ("00-zz-1-01", f"00-{'0' * 32}-{PARENT}-01", "x" * 5000):
        answer = call(traced, "GET", "/health", traceparent=broken)
        assert answer.status == 200
        assert "0" * 32 not in answer.headers["traceparent"]


def test_a_creation_is_told_from_the_request_down_to_the_agent(traced: RunningDaemon, collector: Collector) -> None:
    with traced.client() as client, client.create(env={"SECRET": CANARY}) as sandbox:
        sandbox.run(["sh", "-c", f": {CANARY}"]).check()

        def has_run(spans: list[Span]) -> bool:
            return any(ancestry(spans, span)[-1].endswith("/exec") for span in spans if span.name == "agent exec")

        spans = collector.wait_for(has_run)
    steps = [ancestry(spans, span) for span in spans if span.name == "step vmm"]
    assert ["step vmm", "create_sandbox", "POST /api/v1/sandboxes"] in steps
    asked = [ancestry(spans, span) for span in spans if span.name == "agent configure"]
    assert ["agent configure", "step identity", "create_sandbox", "POST /api/v1/sandboxes"] in asked
    assert not any(CANARY.encode() in body for body in collector.raw)


def test_a_failure_shows_in_its_spans(traced: RunningDaemon, collector: Collector) -> None:
    answer = call(traced, "GET", "/api/v1/sandboxes/nobody")
    assert answer.status == 404
    span_id = (answer.headers["traceparent"] or "").split("-")[2]
    spans = collector.wait_for(lambda all_: any(each.span_id.hex() == span_id for each in all_))
    (operation,) = [span for span in spans if span.parent_span_id.hex() == span_id]
    assert (operation.status.code, operation.status.message) == (2, "NotFound")


def test_a_collector_that_is_gone_harms_nobody() -> None:
    with data_directory() as data:
        publish_images(data)
        with collecting() as gone:
            url = gone.url
        with running_daemon(data, "--otel-endpoint", url) as daemon, Client(daemon.url, daemon.token) as client:
            assert client.health().status == "healthy"


def test_without_a_collector_nothing_of_it_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", UNTRACED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_a_token_in_an_address_or_a_message_is_in_no_span(traced: RunningDaemon, collector: Collector) -> None:
    with traced.client() as client, client.create() as sandbox:
        with opened(traced, f"{sandbox.id}/exec/ws?token={traced.token}", token=None) as piped:
            piped.say(cmd=["true"])
            assert piped.end()[0]["type"] == "exit"
        with opened(traced, f"{sandbox.id}/exec/ws", token=None) as piped:
            piped.say(type="auth", token=traced.token)
            piped.say(cmd=["true"])
            assert piped.end()[0]["type"] == "exit"
    spans = collector.wait_for(lambda all_: [span.name for span in all_].count("open_piped") == 2)
    assert {span.name for span in spans} >= {"GET /api/v1/sandboxes/{ref}/exec/ws"}
    assert not any(traced.token.encode() in body for body in collector.raw)
