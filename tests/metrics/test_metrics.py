"""/metrics and the stats of sandboxes, asked of a real daemon with bare agents."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from tests.metrics.scraping import Samples, samples_in, scrape, value
from tests.server.daemon import RunningDaemon, data_directory, publish_images, run_cli, running_daemon
from tests.server.test_app import UnixConnection

from hearth.errors import Forbidden, HearthError, NotFound
from hearth.sdk.client import Client, Sandbox

pytestmark = pytest.mark.daemon

BURN = ["python3", "-c", "import time\nwhile time.process_time() < 0.5: pass"]
CANARY = "canary-7e1c4a90"
WAIT_S = 60.0
ODD_METHODS = ("PROPFIND", "MKCOL", "PURGE")


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    with data_directory() as data:
        publish_images(data)
        words = ("--metrics-listen", "127.0.0.1:0", "--log-level", "debug", "--log-level", "hearth.network=warning")
        with running_daemon(data, *words) as running:
            yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


@pytest.fixture
def sandbox(client: Client) -> Iterator[Sandbox]:
    with client.create(env={"TOKEN": CANARY}) as made:
        yield made


def scraped(daemon: RunningDaemon) -> Samples:
    status, text = scrape(daemon, daemon.token)
    assert status == 200
    return samples_in(text)


def metrics_url(daemon: RunningDaemon) -> str:
    (listening,) = [entry for entry in daemon.log() if entry["event"] == "listening"]
    return next(str(address) for address in listening["addresses"] if address.endswith("/metrics"))


def test_metrics_are_for_administrators(daemon: RunningDaemon, client: Client) -> None:
    made = client.users.create("mallory")
    assert scrape(daemon, None)[0] == 401
    status, text = scrape(daemon, made.secret)
    assert (status, json.loads(text)["code"]) == (403, "forbidden")
    assert scrape(daemon, daemon.token)[0] == 200


def test_a_listener_of_its_own_needs_no_key_and_offers_nothing_else(daemon: RunningDaemon) -> None:
    url = metrics_url(daemon)
    with urllib.request.urlopen(url, timeout=WAIT_S) as answer:
        assert answer.headers["content-type"].startswith("text/plain; version=")
        assert b"hearth_build_info" in answer.read()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url.removesuffix("/metrics") + "/api/v1/sandboxes", timeout=WAIT_S)
    assert caught.value.code == 404
    caught.value.close()


def test_requests_are_counted_by_route_not_by_path(daemon: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    get = {"method": "GET", "route": "/api/v1/sandboxes/{ref}"}
    before = scraped(daemon)
    client.get(sandbox.id)
    for name in ("nobody-1", "nobody-2"):
        with pytest.raises(NotFound):
            client.get(name)
    after = scraped(daemon)

    def grown(name: str, labels: dict[str, str]) -> float:
        return value(after, name, labels) - value(before, name, labels)

    assert grown("hearth_http_requests_total", {**get, "status": "200"}) == 1
    assert grown("hearth_http_requests_total", {**get, "status": "404"}) == 2
    assert grown("hearth_http_request_seconds_count", get) == 3
    assert grown("hearth_errors_total", {"code": "not_found"}) == 2
    assert grown("hearth_store_seconds_count", {"lane": "store-reads"}) >= 3


def test_nobody_makes_series_by_asking_for_odd_things(daemon: RunningDaemon) -> None:
    base = metrics_url(daemon).removesuffix("/metrics")
    for number in range(20):
        request = urllib.request.Request(f"{base}/odd-{number}", method=ODD_METHODS[number % len(ODD_METHODS)])
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=WAIT_S)
        caught.value.close()
    routes = {dict(labels)["route"] for name, labels in scraped(daemon) if name == "hearth_http_requests_total"}
    methods = {dict(labels)["method"] for name, labels in scraped(daemon) if name == "hearth_http_requests_total"}
    assert not any("odd-" in route for route in routes)
    assert "OTHER" in methods
    assert methods.isdisjoint(ODD_METHODS)


def test_commands_steps_and_agents_are_counted(daemon: RunningDaemon, sandbox: Sandbox) -> None:
    before = scraped(daemon)
    sandbox.run(["true"])
    sandbox.run(["false"])
    sandbox.run(["sh", "-c", "kill -9 $$"])
    after = scraped(daemon)
    for outcome in ("zero", "nonzero", "signal"):
        labels = {"outcome": outcome}
        assert value(after, "hearth_execs_ended_total", labels) > value(before, "hearth_execs_ended_total", labels)
    asked = {"request": "exec"}
    name = "hearth_agent_request_seconds_count"
    assert value(after, name, asked) >= value(before, name, asked) + 3
    step = {"kind": "sandbox.create", "step": "vmm", "phase": "do"}
    assert value(after, "hearth_job_step_seconds_count", step) >= 1
    assert value(after, "hearth_jobs_ended_total", {"kind": "sandbox.create", "outcome": "completed"}) >= 1


def test_a_sandboxs_cpu_time_moves_when_it_works(client: Client, sandbox: Sandbox) -> None:
    before = sandbox.stats()
    assert before.cpu_s is not None
    sandbox.run(BURN).check()
    deadline_s = time.monotonic() + WAIT_S
    while (sandbox.stats().cpu_s or 0.0) < before.cpu_s + 0.3:  # counted in ticks
        assert time.monotonic() < deadline_s, "the figure did not move"
        time.sleep(0.1)
    now = sandbox.stats()
    assert now.memory_unique_bytes is not None
    assert now.memory_unique_bytes > 1024 * 1024
    assert now.memory_shared_bytes is not None
    assert now.disk_bytes is not None
    assert now.net_sent_bytes is None  # the development engine connects nobody


def test_series_of_a_sandbox_end_with_it(daemon: RunningDaemon, client: Client) -> None:
    def series(sandbox_id: str) -> set[str]:
        return {name for name, labels in scraped(daemon) if ("sandbox", sandbox_id) in labels}

    with client.create() as made:
        assert {"hearth_sandbox_info", "hearth_sandbox_cpu_seconds_total"} <= series(made.id)
    assert series(made.id) == set()


def test_a_tenant_sees_figures_of_his_own_alone(daemon: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    made = client.users.create("tenant")
    with Client(daemon.url, made.secret) as tenant:
        with pytest.raises(NotFound):
            tenant.stats(sandbox.id)
        assert list(tenant.all_stats()) == []
        glance = tenant.daemon()
        assert (glance.sandboxes.hot, glance.host) == (0, None)
    mine = client.daemon()
    assert mine.sandboxes.hot >= 1
    assert mine.host is not None
    assert mine.host.memory_total_bytes > mine.host.memory_available_bytes > 0


def test_a_key_for_one_sandbox_reads_its_figures_and_no_others(
    daemon: RunningDaemon, client: Client, sandbox: Sandbox
) -> None:
    key = client.users.create_key("me", scope="read", sandbox=sandbox.id)
    with Client(daemon.url, key.secret) as narrow:
        assert narrow.stats(sandbox.id).id == sandbox.id
        with pytest.raises(Forbidden):
            narrow.all_stats()
        with pytest.raises(Forbidden):
            narrow.daemon()
    assert scrape(daemon, key.secret)[0] == 403


def test_listeners_to_events_are_counted(daemon: RunningDaemon) -> None:
    before = value(scraped(daemon), "hearth_event_subscribers")
    connection = UnixConnection(str(daemon.data.api_socket))
    try:
        connection.request("GET", "/api/v1/events", headers={"Authorization": f"Bearer {daemon.token}"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert value(scraped(daemon), "hearth_event_subscribers") == before + 1
        answer.close()
    finally:
        connection.close()
    deadline_s = time.monotonic() + WAIT_S
    while value(scraped(daemon), "hearth_event_subscribers") > before:
        assert time.monotonic() < deadline_s, "it still counts"
        time.sleep(0.1)


def test_one_line_a_request_names_caller_and_sandbox(daemon: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    client.get(sandbox.name)
    deadline_s = time.monotonic() + WAIT_S
    path = f"/api/v1/sandboxes/{sandbox.name}"
    while not (lines := [entry for entry in daemon.log() if entry.get("path") == path]):
        assert time.monotonic() < deadline_s, "the line did not come"
        time.sleep(0.05)
    (line,) = lines
    assert line["sandbox"] == sandbox.id
    assert line["user_id"].startswith("user-")
    assert line["request_id"].startswith("req-")
    assert (line["method"], line["status"], line["level"]) == ("GET", 200, "info")
    assert line["logger"].startswith("hearth.")


def test_no_secret_is_logged_even_at_debug_level(daemon: RunningDaemon, client: Client, sandbox: Sandbox) -> None:
    sandbox.run(["cat"], stdin=CANARY, env={"SECRET": CANARY}).check()
    sandbox.run(["echo", CANARY]).check()
    with pytest.raises(HearthError), Client(daemon.url, f"hk_{CANARY}") as stranger:
        stranger.list()
    made = client.users.create("keeper")
    log = daemon.log_file.read_text()
    assert '"level": "debug"' in log
    for secret in (CANARY, daemon.token, made.secret):
        assert secret not in log
    assert not [entry for entry in daemon.log() if "logger" in entry and entry["logger"].startswith("hearth.network")]


def test_top_shows_what_works_hardest_first(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="idle"), client.create(name="busy") as busy:
        with busy.stream(["python3", "-c", "while True: pass"], timeout_sec=60):
            done = run_cli(daemon.environment, "top", "--once", "--json", "--interval", "2", timeout_s=60)
            assert done.returncode == 0, done.stderr
            found = json.loads(done.stdout)
        assert found["daemon"]["sandboxes"]["hot"] >= 2
        names = [each["name"] for each in found["sandboxes"]]
        assert {"busy", "idle"} <= set(names)
        table = run_cli(
            daemon.environment, "top", "--once", "--sort", "name", "--interval", "1", "idle"
        ).stdout.decode()
    head, _, rows = table.partition("\nNAME ")
    assert head.startswith("hearth ")
    assert "load" in head
    assert rows.splitlines()[1].startswith("idle ")


def test_top_refuses_what_it_cannot_do(daemon: RunningDaemon) -> None:
    done = run_cli(daemon.environment, "top", "--once", "--interval", "0")
    assert done.returncode != 0
    assert b"--interval" in done.stderr
