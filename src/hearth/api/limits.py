"""The numbers of the HTTP contract, stated once for server, SDK and documentation."""

from __future__ import annotations

PREFIX = "/api/v1"
MAX_BODY_BYTES = 1_048_576
"""Longest request body in bytes; beyond it the answer is 413."""
MAX_BUFFERED_OUTPUT_BYTES = 8_388_608
"""Most bytes of stdout, and of stderr, that a buffered exec returns; what is beyond is dropped and `truncated` set."""
MIN_TIMEOUT_S = 1
DEFAULT_TIMEOUT_S = 300
MAX_LINGER_S = 86_400
"""Longest time, in seconds, that a command waits for its client to come back."""
EXEC_ID_HEADER = "X-Exec-ID"
MAX_LIST_LIMIT = 1000
DEFAULT_LIST_LIMIT = 100
MAX_ARGUMENTS = 4096
MAX_TTL_S = 315_360_000
"""Ten years: longest time to live, and longest time without use before sleep, in seconds."""
MAX_LABELS = 64
MAX_VOLUMES = 64
"""Of one sandbox in one request; engines have room for fewer."""
MAX_LABEL_LENGTH = 253
NDJSON = "application/x-ndjson"
JSON = "application/json"
SSE = "text/event-stream"
REQUEST_ID_HEADER = "X-Request-ID"
CORRELATION_HEADER = "correlation_id"
IDEMPOTENCY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
"""Set where an answer is that of an earlier request with the same key."""
