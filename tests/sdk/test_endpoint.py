"""The daemon is found by argument, environment or data directory, in this order."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

import pytest

from hearth.errors import Code, InvalidInput
from hearth.sdk.endpoint import Endpoint, Tls, find_endpoint


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
        ("https://hearth.example", Endpoint(host="hearth.example", port=443, token="t", tls=Tls())),
        ("https://10.0.0.1:8443", Endpoint(host="10.0.0.1", port=8443, token="t", tls=Tls())),
        ("unix:/run/h.sock", Endpoint(socket_path=Path("/run/h.sock"), token="t")),
        ("unix:///run/h.sock", Endpoint(socket_path=Path("/run/h.sock"), token="t")),
    ],
)
def test_a_url_names_the_address(url: str, expected: Endpoint) -> None:
    assert find_endpoint(environment={"HEARTH_URL": url, "HEARTH_TOKEN": "t"}) == expected
    assert find_endpoint(url, "t", environment={"HEARTH_URL": "http://other", "HEARTH_TOKEN": "u"}) == expected


@pytest.mark.parametrize(
    "url",
    [
        "hearth",
        "ftp://h",
        "http://",
        "https://",
        "https://h/prefix",
        "http://h/prefix",
        "http://h:99999",
        "http://h?x=1",
        "http://u@h",
    ],
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


def test_a_daemon_without_tls_is_told_from_one_that_is_not_there() -> None:
    here, there = socket.socketpair()
    with here, there:
        there.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(ssl.SSLError) as refused:
            ssl.create_default_context().wrap_socket(here, server_hostname="h")
    error = find_endpoint("https://h:8443", "t", environment={}).unreachable(refused.value)
    assert "TLS" in error.brief
    assert "http://h:8443" in error.resolution


def test_the_key_of_this_hosts_daemon_goes_to_no_other_host(tmp_path: Path) -> None:
    (tmp_path / "admin.key").write_text("hk_admin\n")
    for url, token in (
        ("http://127.0.0.1:8080", "hk_admin"),
        ("http://localhost", "hk_admin"),
        ("http://10.0.0.1:8080", ""),
        ("https://hearth.example", ""),
        ("https://127.0.0.1:8443", ""),
    ):
        assert find_endpoint(environment={"HEARTH_URL": url, "HEARTH_DATA": str(tmp_path)}).token == token


def test_files_of_https_come_from_the_environment_and_are_named_when_they_cannot_be_used(tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    environment = {
        "HEARTH_URL": "https://h",
        "HEARTH_CA_FILE": str(missing),
        "HEARTH_CERT_FILE": "c",
        "HEARTH_KEY_FILE": "k",
    }
    endpoint = find_endpoint(environment=environment)
    assert endpoint.tls == Tls(ca=missing, certificate=Path("c"), key=Path("k"))
    with pytest.raises(InvalidInput) as refused:
        _ = endpoint.context
    assert refused.value.field == "HEARTH_CA_FILE"
    assert str(missing) in refused.value.details
    assert find_endpoint("http://h", "t", environment=environment).context is None
