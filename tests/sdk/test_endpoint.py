"""The daemon is found by argument, environment or data directory, in this order."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.errors import Code, InvalidInput
from hearth.sdk.endpoint import Endpoint, find_endpoint


def test_without_words_it_is_the_data_directorys_socket_and_key(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("hk_admin\n")
    endpoint = find_endpoint(environment={"HEARTH_DATA": str(tmp_path)})
    assert endpoint == Endpoint(socket_path=tmp_path / "hearth.sock", token="hk_admin")
    assert str(endpoint) == f"unix:{tmp_path}/hearth.sock"


def test_a_missing_key_is_no_error_yet(tmp_path: Path) -> None:
    assert find_endpoint(environment={"HEARTH_DATA": str(tmp_path)}).token == ""


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8080", Endpoint(host="127.0.0.1", port=8080, token="t")),
        ("http://[::1]:8080/", Endpoint(host="::1", port=8080, token="t")),
        ("http://hearth.example", Endpoint(host="hearth.example", port=80, token="t")),
        ("unix:/run/h.sock", Endpoint(socket_path=Path("/run/h.sock"), token="t")),
        ("unix:///run/h.sock", Endpoint(socket_path=Path("/run/h.sock"), token="t")),
    ],
)
def test_a_url_names_the_address(url: str, expected: Endpoint) -> None:
    assert find_endpoint(environment={"HEARTH_URL": url, "HEARTH_TOKEN": "t"}) == expected
    assert find_endpoint(url, "t", environment={"HEARTH_URL": "http://other", "HEARTH_TOKEN": "u"}) == expected


@pytest.mark.parametrize(
    "url",
    ["hearth", "https://h", "ftp://h", "http://", "http://h/prefix", "http://h:99999", "http://h?x=1", "http://u@h"],
)
def test_another_url_is_refused_naming_the_variable(url: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        find_endpoint(url, "t", environment={})
    assert refused.value.field == "HEARTH_URL"


def test_why_no_connection_came_about_is_said_with_the_next_step() -> None:
    endpoint = Endpoint(socket_path=Path("/run/h.sock"))
    nobody = endpoint.unreachable(ConnectionRefusedError(111, "Connection refused"))
    assert nobody.code is Code.UNAVAILABLE
    assert "hearth serve" in nobody.resolution
    assert "/run/h.sock" in nobody.details
    assert endpoint.unreachable(PermissionError(13, "Permission denied")).code is Code.FORBIDDEN
