"""Reads /metrics as Prometheus does."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from tests.server.daemon import RunningDaemon
from tests.server.test_app import UnixConnection

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(daemon: RunningDaemon, token: str | None) -> tuple[int, str]:
    """Ask for /metrics by the API's socket."""
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.request("GET", "/metrics", headers={} if token is None else {"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def names_in(text: str) -> set[str]:
    """Give the names that can be asked for, of metrics without a sample, too."""
    found: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            parts = {"histogram": ("_bucket", "_count", "_sum"), "summary": ("_count", "_sum")}.get(kind, ())
            found |= {name, *(name + part for part in parts)}
    return found


def samples_in(text: str) -> Samples:
    """Give all samples by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(samples: Samples, name: str, labels: Mapping[str, str] | None = None) -> float:
    """Give one sample, 0 where there is none yet."""
    return samples.get((name, frozenset((labels or {}).items())), 0.0)
