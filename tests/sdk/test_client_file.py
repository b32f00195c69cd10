"""What a client remembers, who may read it, and to whom its token goes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hearth.errors import InvalidInput
from hearth.sdk.client_file import client_file
from hearth.sdk.endpoint import Endpoint, Tls, find_endpoint

URL = "http://192.0.2.7:8080"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hearth" / "client.toml"
    path.parent.mkdir()
    path.touch(mode=0o600)
    return path


def find(file: Path, **environment: str) -> Endpoint:
    return find_endpoint(environment={"XDG_CONFIG_HOME": str(file.parents[1]), "HOME": "/nope", **environment})


def test_the_file_says_where_the_daemon_is_and_with_which_token(file: Path) -> None:
    file.write_text(f'url = "{URL}"\ntoken = "hk_stored"\n')
    assert find(file) == Endpoint(host="192.0.2.7", port=8080, token="hk_stored")
    assert find(file, HEARTH_TOKEN="hk_said").token == "hk_said"


def test_the_environment_comes_first_and_the_stored_token_goes_to_no_other_daemon(file: Path, tmp_path: Path) -> None:
    file.write_text(f'url = "{URL}"\ntoken = "hk_stored"\n')
    assert find(file, HEARTH_URL="http://192.0.2.9").token == ""
    (tmp_path / "admin.key").write_text("hk_admin")
    local = find(file, HEARTH_DATA=str(tmp_path))
    assert (local.socket_path, local.token) == (tmp_path / "hearth.sock", "hk_admin")


def test_a_token_may_lie_in_a_file_of_its_own(file: Path, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("hk_of_file\n")
    file.write_text(f'url = "{URL}"\ntoken_file = "{token}"\n')
    assert find(file).token == "hk_of_file"
    assert find(file, HEARTH_URL="http://192.0.2.9", HEARTH_TOKEN_FILE=str(token)).token == "hk_of_file"
    with pytest.raises(InvalidInput) as caught:
        find(file, HEARTH_TOKEN_FILE=str(tmp_path / "nope"))
    assert caught.value.field == "HEARTH_TOKEN_FILE"


def test_certificates_may_be_named_too(file: Path) -> None:
    file.write_text('url = "https://hearth.example.org"\ntoken = "t"\nca_file = "/tls/ca.pem"\n')
    assert find(file).tls == Tls(ca=Path("/tls/ca.pem"))
    assert find(file, HEARTH_CA_FILE="/other.pem").tls == Tls(ca=Path("/other.pem"))


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ('uri = "http://127.0.0.1"', "uri"),
        ("url = 80", "url"),
        ('url = ""', "url"),
        ("url =", "HEARTH_CLIENT_CONFIG"),
        ('token = "a\\nb"', "token"),
    ],
)
def test_what_is_wrong_in_it_is_named(file: Path, text: str, field: str) -> None:
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        find(file)
    assert caught.value.field == field
    assert str(file) in caught.value.details


def test_a_token_that_others_can_read_is_refused(file: Path) -> None:
    file.write_text(f'url = "{URL}"\ntoken = "hk_stored"\n')
    file.chmod(0o640)
    with pytest.raises(InvalidInput, match="chmod 0600"):
        find(file)
    file.write_text(f'url = "{URL}"\n')
    assert find(file).token == ""


def test_there_may_be_one_file_a_daemon(tmp_path: Path) -> None:
    assert client_file({"HOME": "/home/ada"}) == Path("/home/ada/.config/hearth/client.toml")
    assert client_file({"HEARTH_CLIENT_CONFIG": str(tmp_path / "lab.toml")}) == tmp_path / "lab.toml"
