"""Servers that images come from: a real S3 server for the folder, a web server for each test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from ipaddress import ip_network

import obstore
import pytest
from tests.image.golden.web import Web, web_server

from hearth.bench.row import Skipped
from hearth.bench.s3_server import S3Server, s3_server
from hearth.image.golden.settings import GoldenSettings, S3Settings, SourcePolicy


@pytest.fixture(scope="package", autouse=True)
def storage() -> Iterator[S3Server | str]:
    """A real S3 server, the configured one or one of the run's own; or why there is none."""
    try:
        with s3_server() as server:
            # Starts the client library's own threads, which stay.
            with server.own_bucket("warm-up") as name, contextlib.suppress(FileNotFoundError):
                obstore.head(server.store(name), "nothing")
            yield server
    except Skipped as error:
        yield str(error)


@pytest.fixture
def s3(storage: S3Server | str) -> S3Server:
    if isinstance(storage, str):
        pytest.skip(storage)
    return storage


@pytest.fixture
def bucket(s3: S3Server) -> Iterator[str]:
    """A bucket of the test's own."""
    with s3.own_bucket("golden") as name:
        yield name


@pytest.fixture
def with_s3(s3: S3Server, bucket: str) -> GoldenSettings:
    """Settings for that bucket alone."""
    settings = S3Settings(endpoint=s3.endpoint, access_key=s3.access_key, secret_key=s3.secret_key, buckets=(bucket,))
    return GoldenSettings(s3=settings)


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server() as serving:
        yield serving


@pytest.fixture
def with_web(web: Web) -> GoldenSettings:
    """Settings that allow that web server, and a host that is private in the same way but not listed."""
    policy = SourcePolicy(http_hosts=(f"127.0.0.1:{web.port}",), private_networks=(ip_network("127.0.0.1/32"),))
    return GoldenSettings(policy=policy)
