"""What the operations of volumes send, without a daemon."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hearth.errors import InvalidInput
from hearth.sdk import calls, volume_calls
from hearth.sdk.call import Call

VOLUMES = "/api/v1/volumes"
MOUNTED = {"name": "data", "mount": "/srv/data"}
NEW = {"name": "new", "size_mb": 16, "mount": "/srv/new"}
SENT: list[tuple[Call[Any], str, str, object]] = [
    (volume_calls.create("data", 16), "POST", VOLUMES, {"name": "data", "size_mb": 16}),
    (volume_calls.page("c="), "GET", f"{VOLUMES}?limit=1000&cursor=c%3D", None),
    (volume_calls.get("a+b"), "GET", f"{VOLUMES}/a%2Bb", None),
    (volume_calls.delete("data"), "DELETE", f"{VOLUMES}/data", None),
    (volume_calls.resize("data", 32), "POST", f"{VOLUMES}/data/resize", {"size_mb": 32}),
    (volume_calls.clone("data", "copy"), "POST", f"{VOLUMES}/data/clone", {"name": "copy"}),
    (
        volume_calls.attach("web", "data", "/srv/data", read_only=True),
        "POST",
        "/api/v1/sandboxes/web/volumes",
        {**MOUNTED, "read_only": True},
    ),
    (volume_calls.detach("web", "a/b"), "DELETE", "/api/v1/sandboxes/web/volumes/a%2Fb", None),
    (
        calls.create({"volumes": [{"name": "data", "mount": "/srv/data"}], "new_volumes": [NEW]}),  # type: ignore[list-item]
        "POST",
        "/api/v1/sandboxes",
        {"volumes": [MOUNTED], "new_volumes": [NEW]},
    ),
]


@pytest.mark.parametrize(("call", "method", "target", "body"), SENT, ids=lambda value: str(value)[:50])
def test_a_call_travels_as_the_contract_says(call: Call[Any], method: str, target: str, body: object) -> None:
    assert (call.request.method, call.request.target) == (method, target)
    assert (json.loads(call.request.body) if call.request.body else None) == body


def test_what_cannot_be_never_travels_and_names_its_field() -> None:
    for make, field in (
        (lambda: volume_calls.create("-x", 16), "name"),
        (lambda: volume_calls.create("x", 15), "size_mb"),
        (lambda: volume_calls.attach("web", "x", "srv", read_only=False), "mount"),
        (lambda: volume_calls.detach("web", ".."), "volume"),
        (lambda: calls.create({"volumes": [{"name": "x", "mount": ""}]}), "volumes[0].mount"),
    ):
        with pytest.raises(InvalidInput) as refused:
            make()
        assert refused.value.field == field
