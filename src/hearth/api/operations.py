"""The table of operations: every call of the API, once, for the server's routes, the SDK and OpenAPI alike."""

from __future__ import annotations

from typing import Any

from hearth.api import (
    event_operations,
    exec_operations,
    file_operations,
    health_operations,
    image_operations,
    life_operations,
    port_operations,
    provision_operations,
    sandbox_operations,
    secret_operations,
    session_operations,
    snapshot_operations,
    stats_operations,
    template_operations,
    user_operations,
    volume_operations,
)
from hearth.api.operation import Operation

OPERATIONS: tuple[Operation[Any, Any], ...] = (
    *sandbox_operations.OPERATIONS,
    *life_operations.OPERATIONS,
    *exec_operations.OPERATIONS,
    *file_operations.OPERATIONS,
    *session_operations.OPERATIONS,
    *port_operations.OPERATIONS,
    *snapshot_operations.OPERATIONS,
    *template_operations.OPERATIONS,
    *volume_operations.OPERATIONS,
    *image_operations.OPERATIONS,
    *provision_operations.OPERATIONS,
    *stats_operations.OPERATIONS,
    *user_operations.OPERATIONS,
    *event_operations.OPERATIONS,
    *secret_operations.OPERATIONS,
    *health_operations.OPERATIONS,
)
