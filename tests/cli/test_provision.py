"""`hearth provision --follow` and `hearth jobs inspect`: what they draw and say, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest
from tests.cli.gate import gate_before
from tests.cli.pseudo_terminal import at_terminal
from tests.cli.test_sleep import run
from tests.image.golden.web import Web, web_server
from tests.metrics.scraping import scrape
from tests.server.daemon import RunningDaemon, data_directory, publish_images, running_daemon

from hearth.api.event_schemas import JobProgress
from hearth.cli.job_progress import line_of
from hearth.cli.show import duration

MIB = 1 << 20
WAIT_S = 60.0


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with web_server() as serving:
        for image in ("/a.raw", "/b.raw"):
            serving.objects[image] = os.urandom(2 * MIB)
        yield serving


@pytest.fixture
def held(web: Web) -> Iterator[Web]:
    """The same, sending nothing before it is let."""
    web.flows.clear()
    yield web
    web.flows.set()


@pytest.fixture(scope="module")
def filler(web: Web) -> Iterator[RunningDaemon]:
    words = ("--image-hosts", f"127.0.0.1:{web.port}", "--image-networks", "127.0.0.1/32")
    with data_directory() as data:
        publish_images(data)
        with running_daemon(data, *words) as running:
            yield running


def order(web: Web, name: str, *more: str, image: str = "/a.raw") -> tuple[str, ...]:
    return ("provision", web.url(image), name, "--type", "raw", "--size", "16M", *more)


def ordered(environment: Mapping[str, str], words: Sequence[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "hearth.cli", *words]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def jobs(daemon: RunningDaemon) -> list[dict[str, object]]:
    listed: list[dict[str, object]] = json.loads(run(daemon, "jobs", "--json")[1])
    return listed


@pytest.mark.daemon
def test_an_interruption_cancels_the_job_and_says_so(filler: RunningDaemon, held: Web) -> None:
    with ordered(filler.environment, order(held, "cut", "--follow")) as process:
        deadline_s = time.monotonic() + WAIT_S
        while (
            "hearth_event_subscribers 1.0" not in scrape(filler, filler.token)[1]
        ):  # it has its answer, and follows the job
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=WAIT_S)
    [job] = [job for job in jobs(filler) if job["subject"] == "cut"]
    assert (process.returncode, out, job["status"]) == (130, "", "cancelled")
    assert err == f"hearth: {job['job_id']} is being cancelled\n"


@pytest.mark.daemon
def test_an_interruption_before_the_answer_says_where_to_look(filler: RunningDaemon, web: Web) -> None:
    with gate_before(filler.data.api_socket, "/provision") as gate:
        environment = {**filler.environment, "HEARTH_URL": gate.url, "HEARTH_TOKEN": filler.token}
        with ordered(environment, order(web, "unheard", "--follow", image="/b.raw")) as process:
            assert gate.reached.wait(WAIT_S)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (130, "")
    assert err == "hearth: interrupted before the answer came: 'hearth jobs' tells whether it was begun\n"
    assert [job["subject"] for job in jobs(filler)].count("unheard") == 1


@pytest.mark.daemon
def test_at_a_terminal_how_far_it_is_is_drawn_in_one_line_and_erased(filler: RunningDaemon, held: Web) -> None:
    with at_terminal(filler.environment, *order(held, "drawn", "--follow"), cols=40) as terminal:
        terminal.wait_for("downloading")
        held.flows.set()
        shown = terminal.wait_for("/disk")
        assert terminal.wait() == 0
    frames = shown.split(b"\r\x1b[2K")
    assert len(frames) > 1
    assert all(len(frame.decode()) < 40 and b"\n" not in frame for frame in frames[:-1])


@pytest.mark.daemon
def test_piped_it_prints_the_path_alone(filler: RunningDaemon, web: Web) -> None:
    status, out, err = run(filler, *order(web, "piped", "--follow"))
    assert (status, Path(out.strip()).name, err) == (0, "disk", "")
    status, out, err = run(filler, *order(web, "piped", "--follow", "--json"))
    assert (status, json.loads(out)["status"], err) == (0, "completed", "")


@pytest.mark.daemon
def test_a_job_that_failed_is_shown_with_what_to_do(filler: RunningDaemon, web: Web) -> None:
    status, out, err = run(filler, "provision", web.url("/none"), "failing", "--size", "1G", "--follow")
    assert (status, out) == (1, "")
    [job] = [job for job in jobs(filler) if job["subject"] == "failing"]
    shown = run(filler, "jobs", "inspect", str(job["job_id"]))[1]
    for line in err.removeprefix("hearth: ").splitlines():
        assert line.strip() in shown
    assert "image_url" in shown


def test_a_line_tells_rate_and_what_is_left_where_they_are_known() -> None:
    bare = JobProgress(stage="downloading", percent=50.0)
    assert line_of(bare) == f"downloading  50 % {'█' * 12}{'░' * 12}"
    sized = JobProgress(
        stage="downloading", percent=50.0, bytes_processed=MIB, bytes_total=2 * MIB, rate_bps=512.0 * 1024, eta_s=2.0
    )
    assert line_of(sized).endswith("  1.0 MiB of 2.0 MiB  512.0 KiB/s  2.0 s left")
    unsized = JobProgress(stage="populating", bytes_processed=MIB, rate_bps=None, eta_s=None)
    assert line_of(unsized) == f"populating    0 % {'░' * 24}"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7325, "2 h 2 min")]
)
def test_durations_are_said_in_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_images_of_the_cache_are_chosen_by_something_that_is_said_and_clear(filler: RunningDaemon, web: Web) -> None:
    """A variable that is not set names nothing, and surely not the only image there is."""
    web.objects["/chosen.raw"] = os.urandom(MIB)
    status, _, _ = run(filler, "image", "cache", "fetch", web.url("/chosen.raw"), "--type", "raw")
    assert status == 0
    images = json.loads(run(filler, "image", "cache", "--json")[1])
    for words in (("delete", "", "--yes"), ("pin", ""), ("unpin", "")):
        status, said, error = run(filler, "image", "cache", *words)
        assert (status, said) == (1, "")
        assert "the key is empty" in error
    assert json.loads(run(filler, "image", "cache", "--json")[1]) == images
    status, said, _ = run(filler, "image", "cache", "pin", images[0]["key"][:12])
    assert (status, said.strip()) == (0, images[0]["key"])
    assert run(filler, "image", "cache", "unpin", images[0]["key"])[0] == 0


@pytest.mark.parametrize("words", [("provisioned", "show", ""), ("provisioned", "delete", ".", "--yes")])
def test_what_cannot_be_a_volume_is_said_to_be_none(filler: RunningDaemon, words: tuple[str, ...]) -> None:
    status, _, error = run(filler, *words)
    assert status == 1
    assert "invalid volume" in error
