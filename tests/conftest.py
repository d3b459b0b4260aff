"""What tests of every kind may ask for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.s3 import S3Server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 store that checks signatures; every test makes a bucket of its own."""
    from tests.support.s3 import serving_s3  # noqa: PLC0415 - most sessions need no S3 library

    with serving_s3() as server:
        yield server
