"""What the dashboard and the alert rules ask for is there to be asked for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.metrics.promql import faults, metrics_told_of
from tests.metrics.scraping import names_in, samples_in, scrape
from tests.server.daemon import data_directory, publish_images, running_daemon

PACKAGING = Path(__file__).parents[2] / "packaging"
DASHBOARD = PACKAGING / "grafana" / "hearth.json"
RULES = PACKAGING / "prometheus" / "hearth.rules.yml"
DOCUMENT = Path(__file__).parents[2] / "docs" / "observability.md"
METRIC = re.compile(r"\b(?:hearth|process)_[a-z0-9_]+")


@pytest.fixture(scope="module")
def scraped() -> Iterator[str]:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon:
            status, text = scrape(daemon, daemon.token)
            assert status == 200
            yield text


@pytest.fixture(scope="module")
def offered(scraped: str) -> set[str]:
    return names_in(scraped)


def expressions(node: Any) -> Iterator[str]:
    """Give every expression in a dashboard."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "query") and isinstance(value, str):
                yield value
            else:
                yield from expressions(value)
    elif isinstance(node, list):
        for value in node:
            yield from expressions(value)


@pytest.mark.daemon
def test_every_metric_of_the_dashboard_exists(offered: set[str]) -> None:
    asked = {name for text in expressions(json.loads(DASHBOARD.read_text())) for name in METRIC.findall(text)}
    assert len(asked) > 30
    assert asked <= offered, asked - offered


@pytest.mark.daemon
def test_every_metric_of_the_rules_exists(offered: set[str]) -> None:
    found = [line.split("expr:", 1)[1] for line in RULES.read_text().splitlines() if line.strip().startswith("expr:")]
    assert len(found) == RULES.read_text().count("- alert:")
    asked = {name for text in found for name in METRIC.findall(text)}
    assert asked
    assert asked <= offered, asked - offered


@pytest.mark.daemon
def test_every_metric_is_told_of_and_nothing_else(offered: set[str]) -> None:
    told = set(re.findall(r"^\| `(hearth_[a-z0-9_]+)`", DOCUMENT.read_text(), re.MULTILINE))
    ends = ("_bucket", "_count", "_sum")
    ours = {name for name in offered if name.startswith("hearth_") and not name.endswith(ends)}
    assert told == ours, told ^ ours


def test_panels_have_names_and_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(places)) == len(places)
    assert all(panel["targets"] for panel in panels if panel["type"] != "row")


def test_every_expression_of_rules_and_panels_can_find_something() -> None:
    known = metrics_told_of(DOCUMENT.read_text())
    rules = [
        (line.split("expr:", 1)[1].strip())
        for line in RULES.read_text().splitlines()
        if line.strip().startswith("expr:")
    ]
    panels = [
        target["expr"] for panel in json.loads(DASHBOARD.read_text())["panels"] for target in panel.get("targets", ())
    ]
    assert len(rules) > 10
    assert len(panels) > 30
    assert [fault for text in (*rules, *panels) for fault in faults(text, known)] == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("sum(rate(hearth_errors_total[5m])", "unclosed"),
        ("rate(hearth_no_such_total[5m])", "no metric hearth_no_such_total"),
        ('rate(hearth_errors_total{kind="x"}[5m])', "no label kind"),
        ("sum by (instance, kind) (rate(hearth_errors_total[5m]))", "no label kind to group by"),
        ("rate(hearth_sandboxes[5m]) > 1", "rate is for a counter"),
        ("delta(hearth_errors_total[5m])", "delta is for a gauge"),
        ("histogram_quantile(0.9, rate(hearth_job_seconds_sum[5m]))", "is for buckets"),
    ],
)
def test_an_expression_that_finds_nothing_is_noticed(text: str, fault: str) -> None:
    found = faults(text, metrics_told_of(DOCUMENT.read_text()))
    assert found and fault in " ".join(found)


@pytest.mark.daemon
def test_samples_have_the_labels_that_are_told_of(scraped: str) -> None:
    known = metrics_told_of(DOCUMENT.read_text())
    seen = {(name, label) for name, labels in samples_in(scraped) for label, _ in labels if name in known}
    assert len(seen) > 10
    assert {(name, label) for name, label in seen if label not in known[name].labels | {"quantile"}} == set()


def test_prometheus_takes_the_rules() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    done = subprocess.run(
        [promtool, "check", "rules", str(RULES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
