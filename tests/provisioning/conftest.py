"""The servers that images come from, shared with the tests of the cache."""

from tests.image.golden.conftest import bucket, s3, storage, web

__all__ = ["bucket", "s3", "storage", "web"]
