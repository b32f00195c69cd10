"""How much one owner may have."""

from __future__ import annotations

import pytest

from hearth.errors import Code, QuotaExceeded
from hearth.volume.base import MEBIBYTE
from hearth.volume.quota import VolumeQuota, check_quota

QUOTA = VolumeQuota(count=3, total_mib=100)
TEN = 10 * MEBIBYTE


@pytest.mark.parametrize(
    ("held", "added", "grown", "field"),
    [
        ([], [TEN], 0, None),
        ([TEN, TEN], [TEN], 0, None),
        ([TEN, TEN], [TEN, TEN], 0, "volumes"),
        ([TEN] * 3, [TEN], 0, "volumes"),
        ([TEN], [9 * TEN], 0, None),
        ([TEN], [9 * TEN + 1], 0, "size_mb"),
        ([TEN], [5 * TEN, 5 * TEN], 0, "size_mb"),
        ([TEN], [], 9 * TEN, None),
        ([TEN], [], 9 * TEN + 1, "size_mb"),
        ([11 * TEN], [], 0, None),
        ([TEN] * 5, [], 0, None),
        ([TEN] * 5, [], 1, None),
    ],
)
def test_count_and_bytes_are_bounded_only_when_more_is_asked_for(
    held: list[int], added: list[int], grown: int, field: str | None
) -> None:
    if field is None:
        check_quota(QUOTA, held, added_bytes=added, grown_bytes=grown)
        return
    with pytest.raises(QuotaExceeded) as caught:
        check_quota(QUOTA, held, added_bytes=added, grown_bytes=grown)
    assert (caught.value.field, caught.value.code) == (field, Code.QUOTA_EXCEEDED)
    assert str(QUOTA.count if field == "volumes" else QUOTA.total_mib) in caught.value.details
