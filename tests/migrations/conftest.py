"""A Postgres server for this folder's tests."""

from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server]:
    """One server for all of them."""
    with postgres.running() as server:
        yield server
