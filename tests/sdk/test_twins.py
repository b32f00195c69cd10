"""The blocking half of the SDK is what is made of the asynchronous one, and nothing else."""

from __future__ import annotations

import pytest
from tests.sdk.twins import MADE, SDK, blocking


@pytest.mark.parametrize("name", MADE)
def test_a_blocking_module_is_what_is_made_of_its_twin(name: str) -> None:
    made = blocking((SDK / f"async_{name}.py").read_text(), name)
    assert (SDK / f"{name}.py").read_text() == made, "run 'make twins'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = await b\n", "a = b\n"),
        ("a = (await b(c)).d\n", "a = b(c).d\n"),
        ("f(await b)\n", "f(b)\n"),
        ("async def f(self: AsyncOne) -> AsyncIterator[int]: ...\n", "def f(self: One) -> Iterator[int]: ...\n"),
        ("await asyncio.sleep(1)\n", "time.sleep(1)\n"),
        ("x: Callable[[int], Awaitable[list[int]]]\n", "x: Callable[[int], list[int]]\n"),
    ],
)
def test_what_is_asynchronous_is_taken_out_of_a_text(text: str, expected: str) -> None:
    assert blocking(text, "any").partition("\n")[2] == expected
