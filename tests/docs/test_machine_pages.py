"""Pages about sleep, copies and what else takes real machines are run as shown, one after the other on one daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.boot import DATA, boot_files
from tests.docs.pages import MACHINES, Page, every_page
from tests.docs.running import clear, run_page
from tests.server.daemon import IMAGES, RunningDaemon, data_directory, running_daemon

from hearth.config import DataDirectory

PAGES = [page for page in every_page() if page.runs_on == MACHINES and page.is_run]

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.root, pytest.mark.vm]


def borrow_images(data: DataDirectory) -> None:
    """Let a data directory see the images of the set-up, and keep what is saved to itself."""
    names = data.images / "names"
    names.mkdir(parents=True)
    for _, name in IMAGES:
        image = (DATA.images / "names" / name).read_text()
        (names / name).write_text(image)
        (data.images / image.strip()).symlink_to(DATA.images / image.strip())


@pytest.fixture(scope="module")
def house() -> Iterator[RunningDaemon]:
    boot_files()
    with data_directory() as data:
        borrow_images(data)
        with running_daemon(data, "--engine", "qemu", "--pool", "0") as running:
            yield running


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_page_does_what_it_says(page: Page, house: RunningDaemon, tmp_path: Path) -> None:
    assert not page.serve, "the daemon of these pages is everybody's"
    try:
        assert run_page(page, house, tmp_path) > 0
    finally:
        clear(house)
