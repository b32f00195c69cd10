"""The Compose file holds the services that tests can be pointed at, on loopback, by implicit names alone."""

from __future__ import annotations

import re
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # its stubs are no dependency of ours
from tests.lab.site import read_settings

FILE = Path(__file__).parents[2] / "packaging/integration-compose.yaml"
PORT = re.compile(r"127\.0\.0\.1:\d+:\d+")
IMAGE = re.compile(r"[a-z0-9]+(/[a-z0-9]+)?(:[0-9]+)?")


def test_it_has_each_service_on_loopback_with_a_check_of_its_health() -> None:
    services = yaml.safe_load(FILE.read_text())["services"]
    assert set(services) == {"s3", "postgresql", "redis"}
    for service in services.values():
        assert IMAGE.fullmatch(service["image"]), "a host's name in an image"
        assert all(PORT.fullmatch(port) for port in service["ports"])
        assert service["healthcheck"]["test"][0] == "CMD"
    ports = [port for service in services.values() for port in service["ports"]]
    assert len(ports) == len({port.split(":")[1] for port in ports})


def test_it_says_that_it_needs_docker_and_what_to_do_without() -> None:
    words = FILE.read_text()
    assert "cannot be run where there is no Docker" in words
    assert "make integration-up" in words


def test_an_environment_file_names_services(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("# ours\nexport TEST_LVM_VG=fast\nTEST_REDIS_URL='redis://127.0.0.1:1/0?a=b'\nPATH=/nowhere\n")
    assert read_settings(file) == {"TEST_LVM_VG": "fast", "TEST_REDIS_URL": "redis://127.0.0.1:1/0?a=b"}
    assert read_settings(tmp_path / "none") == {}
