"""Ids sort by the time they were made, and are never the same."""

import re

from app.ids import new_id


def test_ids_have_their_prefix_and_a_ulid() -> None:
    assert re.fullmatch(r"job_[0-7][0-9A-HJKMNP-TV-Z]{25}", new_id("job"))


def test_ids_of_one_process_sort_as_they_were_made() -> None:
    made = [new_id("ds") for _ in range(5_000)]

    assert made == sorted(made)
    assert len(set(made)) == len(made)
