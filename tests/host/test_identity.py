"""Ids and keys: their form, and that they do not repeat."""

from __future__ import annotations

import hashlib
import re

import pytest

from hearth.errors import Unauthenticated
from hearth.host.identity import api_key_prefix, hash_api_key, new_api_key, new_job_id, new_sandbox_id


def test_ids_have_their_kind_and_twelve_safe_characters() -> None:
    assert re.fullmatch(r"sb-[0-9a-hjkmnp-tv-z]{12}", new_sandbox_id())
    assert re.fullmatch(r"job-[0-9a-hjkmnp-tv-z]{12}", new_job_id())


def test_ids_and_keys_do_not_repeat() -> None:
    assert len({new_sandbox_id() for _ in range(10_000)}) == 10_000
    assert len({new_api_key() for _ in range(1_000)}) == 1_000


def test_a_key_is_known_by_its_sha256() -> None:
    key = new_api_key()
    assert re.fullmatch(r"hk_[0-9a-f]{64}", key)
    assert hash_api_key(key) == hashlib.sha256(key.encode()).hexdigest()
    assert key.startswith(api_key_prefix(key))
    assert len(api_key_prefix(key)) == 11


@pytest.mark.parametrize("key", ["", "hk_", "hk_" + "g" * 64, "hk_" + "A" * 64, "hk_" + "a" * 64 + "\n", "é" * 67])
def test_what_is_no_key_is_refused_without_being_repeated(key: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        hash_api_key(key)
    assert len(key) < 4 or key not in str(caught.value)
