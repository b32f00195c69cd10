"""`hearth attack` as its user meets it; what it does to real machines is for tests/machines."""

from __future__ import annotations

import json

import pytest
from tests.server.daemon import RunningDaemon, run_cli

from hearth.attack.model import Report, Row, Verdict
from hearth.cli.commands import attack
from hearth.errors import InvalidInput
from hearth.sdk.client import Sandbox

ROWS = tuple(
    Row(id=verdict.value, probe="frames", target="a neighbour", tried="x", outcome="sent", verdict=verdict, proof="y")
    for verdict in Verdict
)
REPORT = Report(sandbox="dev", policy="deny", observed="yes", rows=ROWS)


@pytest.mark.parametrize("text", ["", "192.0.2.1", "192.0.2.1:0", "192.0.2.1:70000", "300.1.1.1:80", "host:80", ":80"])
def test_what_is_no_address_with_a_port_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        attack.read_target(text)
    assert caught.value.field == "--also"


def test_an_address_with_a_port_is_read() -> None:
    assert attack.read_target("192.0.2.1:22") == ("192.0.2.1", 22)


def test_a_report_is_a_table_and_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    attack.show(REPORT)
    heading, *rows, counts, observed = capsys.readouterr().out.splitlines()
    assert heading.split() == ["PROBE", "TARGET", "TRIED", "OUTCOME", "VERDICT", "PROOF"]
    assert [row.split()[5] for row in rows] == ["held", "BROKEN", "allowed", "not", "unproven"]
    assert counts == "5 probes from dev (policy deny): 1 held, 1 BROKEN, 1 allowed, 1 not tried, 1 unproven"
    assert observed == "observed on the host: yes"
    document = json.loads(json.dumps(attack.as_json(REPORT)))
    assert (document["held"], document["counts"]["BROKEN"]) == (False, 1)
    assert [each["verdict"] for each in document["probes"]] == [verdict.value for verdict in Verdict]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ((), 1, "attacking needs your word"),
        (("--yes",), 1, "the sandbox has no network to attack"),
        (("--yes", "--also", "nowhere"), 1, "invalid --also"),
        (("--yes", "--time-limit", "5"), 1, "invalid --time-limit"),
        (("--yes", "--other-key", "/nonexistent"), 1, "the other owner's key cannot be read"),
        (("--yes", "--only", "paint"), 2, "invalid choice"),
    ],
)
def test_what_cannot_be_is_refused_with_words(
    daemon: RunningDaemon, sandbox: Sandbox, words: tuple[str, ...], status: int, said: str
) -> None:
    done = run_cli(daemon.environment, "attack", sandbox.name, *words)
    assert (done.returncode, done.stdout) == (status, b"")
    assert said in done.stderr.decode()
