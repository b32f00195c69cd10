"""What users see of a sandbox and its end: everything but the values of its environment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from hearth.api.schemas import CreateSandbox
from hearth.api.sleep_schemas import ChangeSandbox
from hearth.errors import InvalidInput
from hearth.model import (
    Ending,
    ExitCause,
    ExitKind,
    Heat,
    Lifetime,
    Sandbox,
    SandboxChanges,
    SandboxSpec,
    SandboxState,
    Snapshot,
)
from hearth.server.drafts import Draft
from hearth.server.routes.lives import changes_of
from hearth.server.views import ending_view, sandbox_view, snapshot_view

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CAUSE = ExitCause(
    kind=ExitKind.GUEST_OOM, detail="the guest ran out of memory", at=NOW, process="python3", console=("a", "b")
)
SPEC = SandboxSpec(name="web", env={"TOKEN": "hunter2"}, labels={"a": "b"}, keep_hot=True, ttl_s=60, idle_pause_s=5)
SANDBOX = Sandbox(
    id="sb-1",
    owner="u-1",
    spec=SPEC,
    state=SandboxState.FAILED,
    created_at=NOW,
    parent="cp-1",
    expires_at=NOW + timedelta(seconds=60),
    exit_cause=CAUSE,
)


@pytest.mark.parametrize("heat", Heat)
def test_a_sandbox_is_shown_with_its_heat_and_why_its_machine_ended(heat: Heat) -> None:
    view = sandbox_view(SANDBOX, heat)
    assert (view.heat, view.state, view.parent, view.keep_hot) == (heat.value, "failed", "cp-1", True)
    assert (view.ttl_s, view.expires_at, view.idle_pause_s) == (60, SANDBOX.expires_at, 5)
    assert view.exit_cause is not None
    assert (view.exit_cause.kind, view.exit_cause.process, view.exit_cause.console) == (
        "guest_oom",
        "python3",
        ["a", "b"],
    )
    assert b"hunter2" not in msgspec.json.encode(view)


def test_lists_are_spared_the_console() -> None:
    ending = Ending(
        sandbox_id="sb-1",
        owner="u-1",
        name="web",
        image="debian",
        cpus=1,
        memory_mib=256,
        created_at=NOW,
        ended_at=NOW,
        exit_cause=CAUSE,
    )
    shown = sandbox_view(SANDBOX, Heat.COLD, with_console=False).exit_cause
    assert shown is not None and shown.console == []
    assert ending_view(ending, with_console=False).exit_cause.console == []
    assert ending_view(ending).exit_cause.console == ["a", "b"]


def test_a_checkpoint_is_shown_with_its_parent() -> None:
    snapshot = Snapshot(
        id="cp-2",
        owner="u-1",
        name="after",
        sandbox_id="sb-1",
        sandbox_name="web",
        parent="cp-1",
        created_at=NOW,
        image="debian",
        cpus=2,
        memory_mib=512,
        size_bytes=7,
    )
    view = snapshot_view(snapshot)
    assert (view.parent, view.state, view.cpus, view.memory_mb, view.size_bytes) == ("cp-1", "creating", 2, 512, 7)


CHANGES: list[tuple[ChangeSandbox, SandboxChanges]] = [
    (ChangeSandbox(), SandboxChanges()),
    (ChangeSandbox(name="b", keep_hot=False), SandboxChanges(name="b", keep_hot=False)),
    (
        ChangeSandbox(labels_add={"a": "b"}, labels_remove=["c"]),
        SandboxChanges(labels_add={"a": "b"}, labels_remove=("c",)),
    ),
    (ChangeSandbox(ttl_s=None), SandboxChanges(lifetime=Lifetime())),
    (
        ChangeSandbox(ttl_s=60),
        SandboxChanges(lifetime=Lifetime(ttl_s=60, expires_at=NOW + timedelta(seconds=60))),
    ),
]


@pytest.mark.parametrize(("body", "changes"), CHANGES, ids=lambda value: str(value)[:60])
def test_a_body_asks_for_its_changes_and_no_others(body: ChangeSandbox, changes: SandboxChanges) -> None:
    assert changes_of(body, NOW) == changes


def test_what_is_not_said_of_a_new_sandbox_is_as_usual() -> None:
    assert Draft(body=CreateSandbox()).spec("web") == SandboxSpec(name="web")
    said = CreateSandbox(image="alpine", cpus=2, memory_mb=512, keep_hot=True, ttl_s=9, idle_pause_s=1, idle_stop_s=2)
    assert Draft(body=said).spec("web") == SandboxSpec(
        name="web", image="alpine", cpus=2, memory_mib=512, keep_hot=True, ttl_s=9, idle_pause_s=1, idle_stop_s=2
    )


@pytest.mark.parametrize("body", [{"image": "debian"}, {"cpus": 1}, {"memory_mb": 256}])
def test_what_a_source_brings_may_not_be_said_beside_it(body: dict[str, object]) -> None:
    given = msgspec.convert({"from": "before", **body}, CreateSandbox)
    with pytest.raises(InvalidInput) as refused:
        Draft(body=given).spec("web")
    assert refused.value.field == next(iter(body))
