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
MAX_PATH_BYTES = 4096
MAX_FILE_BYTES = 2**50
"""Beyond any disk of a sandbox; what fits is for its own file system to say."""
MAX_TERMINAL_SIZE = 10_000
"""Most rows, and most columns, of a terminal."""
MAX_MESSAGE_BYTES = 1_048_576
"""Longest message of a WebSocket, from either side."""
AUTH_S = 10
"""How long a WebSocket that brought no token has for its first message, in seconds."""
FIRST_MESSAGE_S = 30
"""How long a piped session's client has to say what to run, in seconds."""
PING_S = 30
"""So often the daemon pings a WebSocket, in seconds; who neither answers nor takes anything by the next one is gone."""
FILE_SIZE_HEADER = "X-File-Size"
FILE_MODE_HEADER = "X-File-Mode"
FILE_IS_DIR_HEADER = "X-File-IsDir"
TAR = "application/x-tar"
BYTES = "application/octet-stream"
NDJSON = "application/x-ndjson"
JSON = "application/json"
SSE = "text/event-stream"
TAR = "application/x-tar"
REQUEST_ID_HEADER = "X-Request-ID"
CORRELATION_HEADER = "correlation_id"
IDEMPOTENCY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotent-Replayed"
"""Set where an answer is that of an earlier request with the same key."""
