"""/api/v1/audit."""

from __future__ import annotations

from datetime import UTC

from hearth.api.audit_schemas import AuditList, AuditView, ListAudit
from hearth.api.user_operations import LIST_AUDIT
from hearth.server.resource import Call, bind
from hearth.store.base import PageRequest
from hearth.tenancy import AuditEntry


async def list_audit(call: Call[ListAudit]) -> AuditList:
    query = call.input
    since = query.since
    page = await call.daemon.audit.list(
        call.user,
        reference=query.user,
        action=query.action,
        since=since.replace(tzinfo=UTC) if since is not None and since.tzinfo is None else since,
        page=PageRequest(limit=query.limit, cursor=query.cursor),
    )
    return AuditList(items=[_view(entry) for entry in page.items], next_cursor=page.next_cursor)


def _view(entry: AuditEntry) -> AuditView:
    return AuditView(
        id=entry.id,
        at=entry.created_at,
        user=entry.user_name,
        user_id=entry.user_id,
        key=entry.key_id,
        action=entry.action,
        object=entry.object,
        status=entry.status,
        code=entry.code,
        remote=entry.remote,
        request_id=entry.request_id,
    )


BOUND = (bind(LIST_AUDIT, list_audit),)
