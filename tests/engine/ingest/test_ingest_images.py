"""What the check of a ZIP of pictures finds, and what it stores."""

import hashlib
import io
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from engine.ingest.__main__ import ingest, report
from engine.ingest.findings import Choices, Limits

Check = Callable[..., dict[str, Any]]


def picture(colour: int = 0, size: tuple[int, int] = (8, 6), kind: str = "PNG", mode: str = "L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, kind)
    return stream.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


PLAIN = {f"{label}/{i}.png": picture(i + 10 * len(label)) for label in ("cat", "horse") for i in range(3)}


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Checks bytes as a ZIP of pictures; gives the report, and the file's path under `out`."""

    def run(content: bytes, limits: Limits | None = None, **choices: Any) -> dict[str, Any]:
        source = tmp_path / "upload"
        source.write_bytes(content)
        out = tmp_path / "rows.parquet"
        chosen = Choices(choices.pop("columns", {}), **choices)
        found = report(*ingest(source, "a.zip", "image_classification", out, chosen, limits or Limits()))
        left = {path.name for path in tmp_path.iterdir()} - {"upload"}
        assert left == (set() if found["problems"] else {"rows.parquet"})
        return found | {"out": out}

    return run


def codes(found: dict[str, Any]) -> list[str]:
    return [problem["code"] for problem in found["problems"]]


def test_a_folder_a_class(check: Check) -> None:
    found = check(zipped({**PLAIN, "cat/.DS_Store": b"x", "__MACOSX/cat/0.png": b"x"}))
    table = pq.read_table(found["out"])

    assert (found["rows"], found["labels"], found["splits"]) == (6, ["cat", "horse"], {})
    assert table["image"].to_pylist() == list(PLAIN.values())
    assert table["id"].to_pylist() == [hashlib.sha256(content).hexdigest()[:16] for content in PLAIN.values()]
    assert table["label"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert set(zip(*(table[name].to_pylist() for name in ("width", "height", "mode")), strict=True)) == {(8, 6, "L")}
    assert "split" not in table.schema.names


@pytest.mark.parametrize("root", ["", "pictures/"])
def test_splits_and_a_folder_around_everything(check: Check, root: str) -> None:
    members = {
        f"{root}{split}/{name}": content for split in ("train", "val", "test") for name, content in PLAIN.items()
    }
    found = check(zipped(members))

    assert found["splits"] == {"train": 6, "valid": 6, "test": 6}
    assert set(pq.read_table(found["out"])["split"].to_pylist()) == {"train", "valid", "test"}


def test_a_folder_around_the_classes(check: Check) -> None:
    assert check(zipped({f"train/{name}": content for name, content in PLAIN.items()}))["splits"] == {"train": 6}
    assert check(zipped({f"all/{name}": content for name, content in PLAIN.items()}))["splits"] == {}


@pytest.mark.parametrize("name", ["../cat/x.png", "/etc/x.png", "cat/../../x.png", "..\\cat\\x.png", "C:/cat/x.png"])
def test_names_that_lead_out_are_refused(check: Check, name: str) -> None:
    assert codes(check(zipped({**PLAIN, name: picture()}))) == ["unsafe_path"]


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({}, "no_rows"),
        ({"README": b"x"}, "bad_layout"),
        ({**PLAIN, "stray.png": picture()}, "bad_layout"),
        ({**PLAIN, "train/cat/1.png": picture()}, "bad_layout"),
        ({f"{part}/{name}": content for part in ("train", "rest") for name, content in PLAIN.items()}, "unknown_split"),
        ({"cat/1.png": picture(1), "cat/2.png": picture(2)}, "single_class"),
        ({**PLAIN, "cat/notes.txt": b"no picture"}, "not_an_image"),
        ({**PLAIN, "cat/empty.png": b""}, "empty_file"),
        ({**PLAIN, "cat/cut.png": picture(3, (64, 64), "PNG", "RGB")[:90]}, "broken_image"),
        ({**PLAIN, "cat/big.png": picture(0, (5_000, 5_000))}, "image_too_large"),
    ],
)
def test_faults(check: Check, members: dict[str, bytes], code: str) -> None:
    found = check(zipped(members), limits=Limits(max_pixels=1_000_000))
    assert codes(found) == [code]


def test_a_name_may_stand_once(check: Check) -> None:
    stream = io.BytesIO()
    members = [*PLAIN.items(), ("cat/0.png", picture(99)), ("cat/notes.txt", b"x"), ("./cat//1.png", picture(98))]
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Duplicate name")
        for name, content in members:
            archive.writestr(name, content)
    found = check(stream.getvalue())

    doubled = [problem for problem in found["problems"] if problem["code"] == "duplicate_member"]
    assert [problem["line"] for problem in doubled] == [7, 9]
    assert ["member 1 " in doubled[0]["detail"], "member 2 " in doubled[1]["detail"]] == [True, True]
    assert all(problem["remedy"] for problem in doubled)
    assert "not_an_image" in codes(found)


def test_animations_are_no_pictures(check: Check) -> None:
    stream = io.BytesIO()
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 99)]
    frames[0].save(stream, "GIF", save_all=True, append_images=frames[1:])
    assert codes(check(zipped({**PLAIN, "cat/a.gif": stream.getvalue()}))) == ["animated"]


def test_a_picture_of_fractions_is_refused(check: Check) -> None:
    floats = b"Pf\n2 2\n-1.0\n" + bytes(16)
    assert codes(check(zipped({**PLAIN, "cat/a.pfm": floats}))) == ["not_an_image"]


def test_caps_count_what_is_unpacked(check: Check) -> None:
    bomb = zipped({**PLAIN, "cat/zeros.png": bytes(50_000_000)})
    assert len(bomb) < 100_000
    assert codes(check(bomb, limits=Limits(max_cell_bytes=1_000_000))) == ["cell_too_large"]
    assert codes(check(zipped(PLAIN), limits=Limits(max_bytes=100))) == ["decompressed_too_large"]
    assert codes(check(zipped(PLAIN), limits=Limits(max_rows=5))) == ["too_many_rows"]


def test_broken_and_encrypted_archives(check: Check) -> None:
    assert codes(check(zipped(PLAIN)[:-30])) == ["broken_zip"]
    flagged = bytearray(zipped({"cat/1.png": picture(1), "dog/1.png": picture(2)}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        flagged[flagged.find(magic) + offset] |= 1
    assert codes(check(bytes(flagged))) == ["encrypted"]


def test_text_files_and_column_choices_do_not_apply(check: Check) -> None:
    assert codes(check(b'{"text": "x", "label": 1}')) == ["unknown_format"]
    assert codes(check(zipped(PLAIN), columns={"label": "class"})) == ["not_applicable"]


def test_invalid_pictures_may_be_left_out(check: Check) -> None:
    found = check(zipped({**PLAIN, "cat/notes.txt": b"no picture"}), skip_invalid=True, max_invalid_fraction=0.5)
    assert found["rows"] == 6
    assert "cat/notes.txt" in found["skipped"][0]["detail"]


@pytest.mark.parametrize("name", [".", "./."])
def test_a_member_that_names_no_file(check: Check, name: str) -> None:
    (problem,) = check(zipped(PLAIN | {name: b"x"}))["problems"]
    assert (problem["code"], problem["line"]) == ("unsafe_path", len(PLAIN) + 1)


def test_the_folder_itself_as_a_member_is_nothing(check: Check) -> None:
    assert check(zipped({"./": b"", **PLAIN}))["rows"] == len(PLAIN)
