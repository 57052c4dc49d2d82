"""The Range header, held against a slow and obvious reading."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.artifacts.ranges import Span, Unsatisfiable, span_of


@given(st.integers(0, 30), st.one_of(st.none(), st.integers(0, 40)), st.one_of(st.none(), st.integers(0, 40)))
def test_spans_hold_the_bytes_that_were_asked_for(size: int, first: int | None, last: int | None) -> None:
    content = bytes(range(size))
    if first is None:
        wanted = content[max(0, size - last) :] if last else b""
    else:
        wanted = content[first:] if last is None else content[first : last + 1]
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    malformed = (first is None and last is None) or (first is not None and last is not None and last < first)
    try:
        span = span_of(header, size)
    except Unsatisfiable:
        assert not malformed
        assert wanted == b""
        return
    assert (span is None) == malformed
    assert span is None or content[span.start : span.stop] == wanted != b""


@pytest.mark.parametrize(
    "header",
    [None, "", "bytes", "bytes=", "bytes=a-b", "lines=0-1", "bytes=0-1,3-4", "bytes=" + "0-," * 10_000, "bytes=-"],
)
def test_what_is_no_single_range_gets_the_whole(header: str | None) -> None:
    assert span_of(header, 10) is None


def test_a_number_may_have_any_number_of_digits() -> None:
    assert span_of(f"bytes=2-{10**30}", 10) == Span(2, 10)
    assert span_of(f"bytes=-{10**30}", 10) == Span(0, 10)
    with pytest.raises(Unsatisfiable):
        span_of(f"bytes={10**30}-", 10)


def test_spaces_and_case_are_forgiven() -> None:
    assert span_of("Bytes = 2-3 ", 10) == Span(2, 4)
