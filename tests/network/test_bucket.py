from __future__ import annotations

from hearth.network.bucket import Bucket


def test_a_bucket_gives_a_burst_at_once_and_then_its_rate() -> None:
    bucket = Bucket(per_s=10, burst=3)
    assert [bucket.take(100.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(100.125), bucket.take(100.125)] == [True, False]
    assert [bucket.take(200.0) for _ in range(4)] == [True, True, True, False]
