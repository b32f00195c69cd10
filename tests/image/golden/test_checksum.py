"""Checksum files are bare digits or what sha256sum prints; anything else is an error and no reason to go on without."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hearth.image.golden.base import ImageRefused
from hearth.image.golden.checksum import check_checksum, parse_checksum_file

HEX = "0123456789abcdef" * 4
OTHER = "f" * 64


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        f"{HEX}\n",
        f" {HEX}\r\n",
        HEX.upper(),
        f"{HEX}  golden.img\n",
        f"{HEX} *golden.img\n",
        f"{HEX}  ./a/golden.img\r\n",
        f"{OTHER}  other.img\n{HEX}  golden.img\n",
    ],
)
def test_forms_that_are_known(text: str) -> None:
    assert parse_checksum_file(text.encode(), "golden.img") == HEX


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "hello",
        HEX[:-1],
        HEX + "0",
        f"sha256:{HEX}",
        f"{HEX} golden.img",
        f"{HEX}  other.img\n",
        f"\\{HEX}  golden\\n.img\n",
        f"SHA256 (golden.img) = {HEX}\n",
        f"{HEX}  golden.img\n{OTHER}  golden.img\n",
        f"{HEX}  golden.img\n# a remark\n",
        f"{HEX}\n{HEX}\n",
        "<html>404</html>",
    ],
)
def test_forms_that_are_errors(text: str) -> None:
    with pytest.raises(ImageRefused, match="checksum file") as caught:
        parse_checksum_file(text.encode(), "golden.img")
    assert caught.value.field == "checksum"


def test_bytes_that_are_no_text_are_an_error() -> None:
    with pytest.raises(ImageRefused):
        parse_checksum_file(b"\xff" * 64, "golden.img")


def test_what_sha256sum_prints_is_understood(tmp_path: Path) -> None:
    (tmp_path / "golden.img").write_bytes(b"golden")
    for option in ("--text", "--binary"):
        words = ["sha256sum", option, "golden.img"]
        said = subprocess.run(words, cwd=tmp_path, capture_output=True, check=True).stdout
        assert parse_checksum_file(said, "golden.img") == said[:64].decode()


def test_checksums_in_requests() -> None:
    assert check_checksum(HEX.upper()) == check_checksum(f"sha256:{HEX}") == HEX
    for text in ("", "x", HEX[1:], f"md5:{HEX}", f"{HEX}\n{HEX}"):
        with pytest.raises(ImageRefused) as caught:
            check_checksum(text)
        assert caught.value.field == "checksum"
