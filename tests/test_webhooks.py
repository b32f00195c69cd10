"""Signatures, secrets and pauses of webhooks."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest

from hearth.webhooks import Delivery, headers_of, origin_of, pause_s, read_secrets

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def test_a_signature_is_that_of_the_standards_example() -> None:
    """The example of the specification of Standard Webhooks."""
    delivery = Delivery(
        id="msg_p5jXN8AQM9LWM0D4loKWxJek",
        webhook_id="hook-1",
        number=0,
        kind="job.completed",
        body='{"test": 2432232314}',
        created_at=NOON,
        next_at=NOON,
    )
    secrets = read_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert headers_of(secrets, delivery, 1614265330) == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_a_secret_is_changed_both_sign() -> None:
    raw = [bytes([number]) * 24 for number in (1, 2)]
    secrets = read_secrets(" ".join(f"whsec_{base64.b64encode(each).decode()}" for each in raw))
    delivery = Delivery(id="evt", webhook_id="h", number=0, kind="k", body="{}", created_at=NOON, next_at=NOON)
    expected = [base64.b64encode(hmac.new(each, b"evt.7.{}", hashlib.sha256).digest()).decode() for each in raw]
    assert headers_of(secrets, delivery, 7)["webhook-signature"] == " ".join(f"v1,{each}" for each in expected)


@pytest.mark.parametrize("text", ["", "  ", "secret", "whsec_short", "whsec_" + "!" * 40, "whsec_QUJD", "QUJD" * 10])
def test_what_is_no_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        read_secrets(text)
    assert not text.strip() or text not in str(caught.value)


def test_pauses_grow_to_an_hour_and_keep_what_a_receiver_asks_for() -> None:
    for attempts, longest_s in ((1, 2.0), (2, 4.0), (5, 32.0), (12, 3600.0), (5000, 3600.0)):
        assert longest_s / 2 <= pause_s(attempts) <= longest_s
    assert pause_s(1, 120.0) == 120.0
    assert pause_s(1, 1e9) == 3600.0


def test_an_origin_is_a_server() -> None:
    assert origin_of("https://Example.org/a?b") == "https://example.org:443"
    assert origin_of("http://127.0.0.1:81") == "http://127.0.0.1:81"
