"""What tests of every kind may ask for, and in which order they run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

# How long an example takes, or the making of one, depends on what else the machine does.
# Where CI is set, as in .ci/run, the examples are those of every such run: a change is not judged by luck. Others look
# for new ones.
settings.register_profile(
    "all", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize="CI" in os.environ
)
settings.register_profile("few", parent=settings.get_profile("all"), max_examples=20)
settings.load_profile("all")  # --hypothesis-profile=few is for where all examples run elsewhere too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest and mostly wait: run last, they would leave other workers without work."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """An S3 store that checks signatures; every test makes a bucket of its own."""
    from tests.support.s3 import serving_s3  # noqa: PLC0415 - most sessions need no S3 library

    with serving_s3() as server:
        yield server
