"""Every block of the pages for which the development engine suffices is run, in the order of its page, as shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.docs.pages import GOLDEN, LOCAL, Page, every_page
from tests.docs.running import golden_daemon, golden_images, local_daemon, namespace_of, run_page

from hearth.bench.row import Skipped
from hearth.bench.s3_server import S3Server, configured

PAGES = [page for page in every_page() if page.runs_on == LOCAL and page.is_run]
GOLDEN_PAGES = [page for page in every_page() if page.runs_on == GOLDEN]

pytestmark = [pytest.mark.daemon, pytest.mark.slow, pytest.mark.root]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.path)
def test_a_page_does_what_it_says(page: Page, tmp_path: Path) -> None:
    with local_daemon(page) as daemon:
        assert run_page(page, daemon, tmp_path, prefix=namespace_of(daemon)) > 0


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if configured():
        pytest.skip("TEST_MINIO_ENDPOINT is set: the page's bucket there may be somebody's")
    try:
        with golden_images(tmp_path_factory.mktemp("golden")) as serving:
            yield serving
    except Skipped as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("page", GOLDEN_PAGES, ids=lambda page: page.path)
def test_a_page_with_golden_images_does_what_it_says(page: Page, storage: S3Server, tmp_path: Path) -> None:
    with golden_daemon(page, storage) as daemon:
        assert run_page(page, daemon, tmp_path) > 0
