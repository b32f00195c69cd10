"""CONFIGURE's newer fields and its gate in test mode; what they do to a machine stands in test_wake_in_machine.py."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from tests.agent.client import AgentError, Client
from tests.agent.conftest import running_agent
from tests.agent.services.test_system import TEST_MODE, config

from hearth.wire.frames import FrameType
from hearth.wire.messages import FileContent

ENTROPY = base64.b64encode(bytes(64)).decode()


def configure(client: Client, **fields: Any) -> Any:
    return client.ask(FrameType.CONFIGURE, config(**fields), FrameType.CONFIGURED)


@TEST_MODE
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"generation": 1, "entropy": ""}, "entropy has 0 bytes, a generation needs at least 32"),
        ({"generation": 1, "entropy": "AAAA"}, "entropy has 3 bytes"),
        ({"generation": -1, "entropy": ENTROPY}, r"MachineConfig\.generation: outside 0\.\."),
        ({"entropy": "?"}, "entropy: "),
        ({"machine_id": ""}, "machine_id is not 32 hex"),
        ({"machine_id": "a" * 31}, "machine_id is not 32 hex"),
        ({"machine_id": "A" * 32}, "machine_id is not 32 hex"),
        ({"machine_id": "a" * 31 + "\n"}, "machine_id is not 32 hex"),
        ({"machine_id": "0" * 32}, "machine_id is not 32 hex"),
    ],
)
def test_an_identity_that_makes_no_sense_is_refused_and_changes_nothing(
    client: Client, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(AgentError, match=f"^invalid: {words}"):
        configure(client, token="never", **fields)
    assert client.run("true").exit_code == 0


def test_a_configuration_that_fails_closes_the_gate_keeps_the_token_and_may_be_tried_again(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    impossible = {str(tmp_path / "file" / "below"): FileContent(content="")}
    with running_agent(token="old") as agent:
        client = agent.client
        told = configure(client, token="new", files=impossible)
        assert told["status"] == "error"
        assert told["message"].startswith("files: ")
        closed = r"^internal: the machine's last configuration failed"
        with pytest.raises(AgentError, match=closed):
            client.run("true")
        with pytest.raises(AgentError, match=closed):
            client.ask(FrameType.EXEC_LIST_REQ, None, FrameType.EXEC_LIST_RESP)
        client.ask(FrameType.ACTIVITY_REQ, None, FrameType.ACTIVITY_RESP)
        client.ask(FrameType.THAW_REQ, None, FrameType.THAW_RESP)
        assert configure(client, token="new", generation=4, entropy=ENTROPY) == {"status": "ok"}
        client.token = "new"
        assert client.run("true").exit_code == 0
    assert b"not configured: files: " in agent.said


def test_what_was_refused_as_senseless_closes_nothing(tmp_path: Path) -> None:
    with running_agent() as agent:
        with pytest.raises(AgentError, match=r"^invalid: machine_id"):
            configure(agent.client, machine_id="x")
        assert agent.client.run("true").exit_code == 0


@TEST_MODE
@pytest.mark.parametrize(
    ("request_type", "reply"),
    [(FrameType.FREEZE_REQ, FrameType.FREEZE_RESP), (FrameType.LAST_WORDS_REQ, FrameType.LAST_WORDS_RESP)],
)
def test_what_is_a_machines_is_denied_without_one(client: Client, request_type: FrameType, reply: FrameType) -> None:
    with client.connect() as wire:
        wire.send(request_type, b"{}")
        with pytest.raises(AgentError, match=r"^denied: this agent does not run a machine of its own"):
            wire.expect(reply)
