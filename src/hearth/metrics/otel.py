"""The tracer of OpenTelemetry, by OTLP over HTTP; loaded only where a collector is named (the extra ``otel``).

What the standard says of the environment (OTEL_SERVICE_NAME, OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and the
like) holds, because the library reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import structlog
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hearth.metrics.tracing import Attributes, End, Headers
from hearth.version import VERSION

log = structlog.get_logger(__name__)

TRACES_PATH = "/v1/traces"
SERVER_ERROR = 500
UNNAMED = "unknown_service"
"""What the library calls a service that the environment gives no name."""
PROPAGATED = (b"traceparent", b"tracestate")


class OtelRequest:
    """Implements ``hearth.metrics.tracing.Request``."""

    def __init__(self, span: Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier)
        self.traceparent = carrier.get("traceparent", "")
        self.trace_id = trace.format_trace_id(span.get_span_context().trace_id)

    def answered(self, route: str, status: int) -> None:
        """Name the span by the route: a path has ids in it."""
        if not self._span.is_recording():
            return
        method = getattr(self._span, "attributes", {}).get("http.request.method", "")
        self._span.update_name(f"{method} {route}")
        self._span.set_attributes({"http.route": route, "http.response.status_code": status})
        if status >= SERVER_ERROR:
            self._span.set_status(Status(StatusCode.ERROR))


class OtelTracer:
    """Implements ``hearth.metrics.tracing.Tracer``: spans are kept, and sent in batches by a thread of the library's.

    Args:
        endpoint: the collector's address, such as http://127.0.0.1:4318; None takes that of the environment.
    """

    def __init__(self, endpoint: str | None) -> None:
        url = None if endpoint is None else endpoint.rstrip("/").removesuffix(TRACES_PATH) + TRACES_PATH
        resource = Resource.create({SERVICE_VERSION: VERSION})
        if str(resource.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: "hearth"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("hearth", VERSION)

    @contextlib.contextmanager
    def request(self, name: str, attributes: Attributes, headers: Headers) -> Iterator[OtelRequest]:
        context = TraceContextTextMapPropagator().extract(_carrier(headers))
        with self._tracer.start_as_current_span(
            name, context, kind=SpanKind.SERVER, attributes=dict(attributes)
        ) as span:
            yield OtelRequest(span)

    @contextlib.contextmanager
    def span(self, name: str, attributes: Attributes) -> Iterator[None]:
        # An error's words may quote a guest or a caller: its kind is enough here, the log has the rest.
        with self._tracer.start_as_current_span(
            name, attributes=dict(attributes), record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                yield
            except BaseException as error:
                span.set_status(Status(StatusCode.ERROR, type(error).__name__))
                raise

    def begin(self, name: str, attributes: Attributes) -> End:
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=dict(attributes))

        def end(failure: str | None) -> None:
            if failure is not None:
                span.set_status(Status(StatusCode.ERROR, failure))
            span.end()

        return end

    def close(self) -> None:
        self._provider.shutdown()


def _carrier(headers: Headers) -> dict[str, str]:
    found: Sequence[tuple[bytes, bytes]] = [each for each in headers if each[0] in PROPAGATED]
    return {name.decode("ascii"): value.decode("latin-1") for name, value in found}
