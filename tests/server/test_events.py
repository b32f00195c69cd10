"""GET /events and the streams of jobs over the daemon's real socket: what is told, to whom, and from which place on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import pytest
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon
from tests.server.event_stream import WAIT_S, Following, Told, following
from tests.server.test_app import ask

from hearth.sdk.client import Client

EVENTS = "/api/v1/events"
LIFE = ["sandbox.creating", "sandbox.running", "sandbox.destroying", "sandbox.destroyed"]


@pytest.fixture
def ada(client: Client, daemon: RunningDaemon) -> Iterator[Client]:
    """The client of a plain user, who is gone afterwards."""
    with Client(daemon.url, client.users.create("ada").secret) as made:
        yield made
    client.users.delete("ada")


def test_the_life_of_a_sandbox_is_told_in_order(daemon: RunningDaemon, client: Client) -> None:
    with following(daemon, f"{EVENTS}?type=sandbox") as stream:
        with client.create(name="told") as sandbox:
            client.update("told", labels_add={"a": "b"})
        seen = [told for told in stream.until("sandbox.destroyed", name="told") if told.data["name"] == "told"]
    kinds = [told.kind for told in seen]
    assert [kind for kind in kinds if kind in LIFE] == LIFE
    assert kinds.index("sandbox.running") < kinds.index("sandbox.changed") < kinds.index("sandbox.destroying")
    assert {told.data["subject"] for told in seen} == {sandbox.id}
    assert all(told.id == told.data["id"] for told in seen)


def test_a_job_is_told_from_its_beginning_to_its_end(daemon: RunningDaemon, client: Client) -> None:
    with following(daemon, f"{EVENTS}?type=job.*") as stream:
        with client.create(name="worked") as sandbox:
            pass
        seen = stream.until("job.completed", name="sandbox.create")
    mine = [told for told in seen if told.data["data"].get("subject") == sandbox.id]
    assert [mine[0].kind, mine[1].kind, mine[-1].kind] == ["job.pending", "job.running", "job.completed"]
    percents = [told.data["data"]["percent"] for told in mine if told.kind == "job.progress"]
    assert percents == sorted(percents)
    assert percents[0] == 0.0
    assert 0 < percents[-1] < 100


def test_whoever_comes_back_gets_what_came_meanwhile_once(daemon: RunningDaemon, client: Client) -> None:
    with following(daemon, f"{EVENTS}?type=sandbox.running") as stream, client.create(name="first"):
        last = stream.until("sandbox.running", name="first")[-1].id
    with client.create(name="second"), client.create(name="third"):
        path = f"{EVENTS}?type=sandbox.running&follow=false"
        with following(daemon, path, last=last) as stream:
            assert [told.data["name"] for told in stream] == ["second", "third"]
        with following(daemon, f"{path}&after={last}") as stream:
            assert [told.data["name"] for told in stream] == ["second", "third"]


@pytest.mark.parametrize("place", ["daemon-of-before.17", None])
def test_a_place_that_is_gone_is_told(daemon: RunningDaemon, client: Client, place: str | None) -> None:
    if place is None:  # of this run, and from the future
        with following(daemon, f"{EVENTS}?after=oldest&follow=false") as stream:
            place = next(iter(stream)).id
        assert place is not None
        place = f"{place.rpartition('.')[0]}.{10**15}"
    with client.create(name="after-the-gap"), following(daemon, f"{EVENTS}?follow=false", last=place) as stream:
        seen = list(stream)
    assert (seen[0].kind, seen[0].id) == ("gap", None)
    assert "after-the-gap" in {told.data["name"] for told in seen}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("after=x", "after"),
        ("type=Sandbox", "type"),
        ("type=sandbox.runing", "type"),
        ("kind=sandbox", "kind"),
        ("follow=maybe", "follow"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused(daemon: RunningDaemon, query: str, field: str) -> None:
    status, _, problem = ask(daemon, "GET", f"{EVENTS}?{query}", token=daemon.token)
    assert (status, problem["code"]) == (400, "invalid")
    assert field in problem["details"] or field in problem["error"] or "place" in problem["error"]


def test_everybody_hears_of_his_own_and_administrators_of_all(
    daemon: RunningDaemon, client: Client, ada: Client
) -> None:
    token = ada._transport.endpoint.token
    assert token is not None
    with following(daemon, f"{EVENTS}?type=sandbox.destroyed") as all_of_it, following(daemon, token=token) as hers:
        with client.create(name="of-admin"), ada.create(name="of-ada"):
            pass
        client.create(name="of-admin-again").destroy()
        ada.create(name="last-of-ada").destroy()
        assert {told.data["name"] for told in hers.until("sandbox.destroyed", name="last-of-ada")} <= {
            *("of-ada", "last-of-ada"),
            *("sandbox.create", ""),
        }
        seen = [told.data["name"] for told in all_of_it.until("sandbox.destroyed", name="last-of-ada")]
    assert set(seen) == {"of-admin", "of-ada", "of-admin-again", "last-of-ada"}


def test_one_sandbox_alone_may_be_followed(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="watched") as sandbox:
        with following(daemon, f"{EVENTS}?sandbox=watched") as stream, client.create(name="not-watched"):
            sandbox.update(labels_add={"x": "y"})
            assert [told.data["name"] for told in stream.until("sandbox.changed")] == ["watched"]
        status, _, _ = ask(daemon, "GET", f"{EVENTS}?sandbox=unknown", token=daemon.token)
        assert status == 404


def test_a_hundred_readers_lose_nothing(daemon: RunningDaemon, client: Client, shared: str) -> None:
    count, changes = 100, 20
    with contextlib.ExitStack() as open_streams:
        streams: list[Following] = [
            open_streams.enter_context(following(daemon, f"{EVENTS}?type=sandbox.changed&sandbox={shared}"))
            for _ in range(count)
        ]
        for number in range(changes):
            client.update(shared, labels_add={"round": str(number)})
        first = [told.id for told in _take(streams[0], changes)]
        assert len(set(first)) == changes
        assert all([told.id for told in _take(stream, changes)] == first for stream in streams[1:])


def _take(stream: Following, count: int) -> list[Told]:
    told = iter(stream)
    return [next(told) for _ in range(count)]


def test_a_jobs_stream_begins_with_how_it_is_and_ends_with_it(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="with-a-job") as sandbox:
        _, _, page = ask(daemon, "GET", "/api/v1/jobs?limit=1000", token=daemon.token)
        (job,) = [each for each in page["items"] if each["subject"] == sandbox.id]
        assert (job["status"], job["progress"]["percent"], job["attempts"]) == ("completed", 100.0, 1)
        with following(daemon, f"/api/v1/jobs/{job['job_id']}/events") as stream:
            (only,) = list(stream)
        assert (only.kind, only.data["data"]["job_id"]) == ("job.completed", job["job_id"])
        _, _, shown = ask(daemon, "GET", f"/api/v1/status/{job['job_id']}", token=daemon.token)
        assert shown == job
        status, _, problem = ask(daemon, "DELETE", f"/api/v1/cancel/{job['job_id']}", token=daemon.token)
        assert (status, problem["error"]) == (400, "the job has ended already")


def test_jobs_are_listed_by_status_and_page(daemon: RunningDaemon, client: Client) -> None:
    with client.create(name="one"), client.create(name="two"):
        _, _, first = ask(daemon, "GET", "/api/v1/jobs?status=completed&limit=1", token=daemon.token)
        assert len(first["items"]) == 1
        path = f"/api/v1/jobs?status=completed&limit=1&cursor={first['next_cursor']}"
        _, _, second = ask(daemon, "GET", path, token=daemon.token)
        assert first["items"][0]["job_id"] != second["items"][0]["job_id"]
        assert ask(daemon, "GET", "/api/v1/jobs?status=done", token=daemon.token)[0] == 400


def test_jobs_of_others_are_not_there(daemon: RunningDaemon, client: Client, ada: Client) -> None:
    token = ada._transport.endpoint.token
    with client.create(name="not-adas") as sandbox:
        _, _, page = ask(daemon, "GET", "/api/v1/jobs?limit=1000", token=daemon.token)
        job = next(each["job_id"] for each in page["items"] if each["subject"] == sandbox.id)
        for method, path in (
            ("GET", f"/api/v1/status/{job}"),
            ("GET", f"/api/v1/jobs/{job}/events"),
            ("DELETE", f"/api/v1/cancel/{job}"),
        ):
            status, _, problem = ask(daemon, method, path, token=token)
            assert (status, problem["code"]) == (404, "not_found"), path
        assert ask(daemon, "GET", "/api/v1/jobs", token=token)[2]["items"] == []


def test_a_reader_whose_key_ends_is_let_go_and_the_daemons_end_ends_the_streams() -> None:
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data) as daemon, following(daemon) as stream:
            ended = threading.Event()

            def read() -> None:
                for _ in stream:
                    pass
                ended.set()

            reading = threading.Thread(target=read)
            reading.start()
            assert daemon.stop() == 0
            assert ended.wait(WAIT_S)
            reading.join(WAIT_S)
