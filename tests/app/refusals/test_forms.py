"""No fault of an upload hides another: of the form's fields, of the rows in its file, of the headers."""

from typing import Any

import pytest

from tests.app.refusals.asking import BAD_KEY, OF_THE_KEY, Place, told

CSV = b"text,label\na,\nx,b\n"


@pytest.mark.parametrize(
    ("path", "content", "fields", "faults"),
    [
        (
            "/v1/datasets",
            CSV,
            {"task": "text_classification", "name": "\u202e", "nominal_rows": "-1"},
            {("/name", "hidden_character"), ("/nominal_rows", "greater_than_equal"), ("/file", "missing_label")},
        ),
        # A field that nobody knows may be the one that names the column.
        (
            "/v1/datasets",
            CSV,
            {"task": "text_classification", "label_colum": "kind"},
            {("/label_colum", "unknown_field")},
        ),
        # Whether such a row refuses the file is left open.
        (
            "/v1/datasets",
            CSV,
            {"task": "text_classification", "max_invalid_fraction": "0.5"},
            {("/max_invalid_fraction", "not_applicable")},
        ),
        (
            "/v1/datasets",
            CSV,
            {"task": "x", "max_invalid_fraction": "3"},
            {("/task", "literal_error")}
            | {("/max_invalid_fraction", code) for code in ("not_applicable", "less_than_equal")},
        ),
        (
            "/v1/files",
            b"{no json",
            {"purpose": "fine-tune", "expires_after[seconds]": "3"},
            {
                ("/expires_after/anchor", "missing"),
                ("/expires_after/seconds", "greater_than_equal"),
                ("/file", "malformed_row"),
            },
        ),
        (
            "/v1/files",
            b"",
            {"purpose": "batch", "colour": "red"},
            {("/colour", "unknown_field"), ("/file", "no_rows")},
        ),
    ],
)
def test_a_form_is_told_all_of_its_faults_and_those_of_the_file(
    place: Place, path: str, content: bytes, fields: dict[str, str], faults: set[tuple[str, str]]
) -> None:
    found = told(
        place,
        path,
        None,
        files={"file": (f"rows.{'csv' if content == CSV else 'jsonl'}", content)},
        data=fields,
        headers=BAD_KEY,
    )
    assert set(found) == {*faults, OF_THE_KEY}


def test_what_is_too_large_and_has_another_fault_is_told_both(place: Place) -> None:
    sent: dict[str, Any] = {"files": {"data": ("part", b"x" * 100)}}
    assert told(place, "/v1/uploads/<upload>/parts", None, status=413, **sent) == [("", "too_large")]
    both = told(place, "/v1/uploads/<upload>/parts", None, **sent, headers=BAD_KEY)
    assert both == [("", "too_large"), OF_THE_KEY]
