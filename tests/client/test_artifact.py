"""The reader of an exported model, on tiny models whose answers can be worked out by hand."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from client.archive import unpack
from client.artifact import Package
from client.errors import BadPackage, BadUsage
from tests.client.conftest import NORMALIZATION


def zipped(folder: Path, archive: Path) -> Path:
    """The folder's files as a package's ZIP."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        for path in sorted(folder.iterdir()):
            package.write(path, path.name)
    return archive


def rewrite(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_text_is_normalised_tokenised_and_scored(text_folder: Path) -> None:
    package = Package(text_folder)
    logits = package.answers(["hello", "free\u200b \u00a0prize", "cafe\u0301 hello"])
    np.testing.assert_allclose(logits, [[1, 0], [2, 6], [2, 0]])


def test_padding_never_reaches_the_answer_and_order_is_kept(text_folder: Path) -> None:
    package = Package(text_folder)
    texts = ["hello", "free prize hello café", "unknown words", "prize"]
    together = package.answers(texts, batch_size=3)
    alone = np.concatenate([package.answers([text]) for text in texts])
    np.testing.assert_array_equal(together, alone)


def test_a_long_text_is_cut_to_max_length_with_its_special_tokens(text_folder: Path) -> None:
    assert Package(text_folder).answers(["free " * 50])[0, 1] == 3 * (6 - 2)


def test_predictions_carry_every_label(text_folder: Path) -> None:
    (spam,) = Package(text_folder).predict(["free free"])
    assert spam.label == "spam"
    assert spam.scores == pytest.approx({"ham": 1 / (1 + np.exp(4)), "spam": 1 / (1 + np.exp(-4))})
    assert spam.score == max(spam.scores.values())


def test_a_language_model_is_told_what_runs_it(text_folder: Path) -> None:
    rewrite(text_folder / "config.json", task="causal_lm")
    with pytest.raises(BadPackage) as refused:
        Package(text_folder)
    assert "AutoModelForCausalLM" in refused.value.remedy


def test_no_inputs_give_no_rows(text_folder: Path) -> None:
    assert Package(text_folder).answers([]).shape == (0, 2)
    assert Package(text_folder).predict([]) == []


def test_a_text_may_come_as_a_file_or_as_bytes(text_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mail.txt"
    path.write_text("free prize\n")
    logits = Package(text_folder).answers([path, b"free prize"])
    np.testing.assert_array_equal(logits, [[2, 6], [2, 6]])


@pytest.mark.parametrize("given", [b"caf\xe9", "caf\udce9"])  # as bytes, and as a shell hands them on
def test_what_is_not_utf8_is_bad_usage(text_folder: Path, given: str | bytes) -> None:
    with pytest.raises(BadUsage, match="UTF-8"):
        Package(text_folder).answers([given])


def test_the_mark_that_an_editor_puts_before_a_text_is_none_of_it(text_folder: Path, tmp_path: Path) -> None:
    rewrite(text_folder / "config.json", preprocess=[])
    path = tmp_path / "mail.txt"
    path.write_text("\ufefffree prize", "utf-8")
    np.testing.assert_array_equal(Package(text_folder).answers([path]), [[2, 6]])


def test_a_picture_is_converted_resized_and_scored(image_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "white.png"
    Image.new("RGB", (20, 12), "white").save(path)
    black = io.BytesIO()
    Image.new("L", (8, 8), 0).save(black, "PNG")
    package = Package(image_folder)
    np.testing.assert_allclose(
        package.answers([path, str(path), black.getvalue()]), [[1, 0], [1, 0], [0, 1]], atol=1e-6
    )
    assert [one.label for one in package.predict([path, black.getvalue()])] == ["light", "dark"]


def test_what_is_no_picture_is_bad_usage(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "no.png").write_text("text")
    with pytest.raises(BadUsage, match="as a picture"):
        Package(image_folder).predict([tmp_path / "no.png"])


def test_the_zip_itself_can_be_read(text_folder: Path, tmp_path: Path) -> None:
    package = Package(zipped(text_folder, tmp_path / "model.zip"))
    np.testing.assert_array_equal(package.answers(["prize"]), [[1, 3]])


@pytest.mark.parametrize(
    "step",
    [
        {"name": "homoglyph_folding", "parameters": {}},
        {"name": "text_normalization", "parameters": {"emoji": "strip"}},
        {"parameters": {}},
    ],
)
def test_what_cannot_be_replayed_is_refused(text_folder: Path, step: dict[str, Any]) -> None:
    rewrite(text_folder / "config.json", preprocess=[step])
    with pytest.raises(BadPackage) as refused:
        Package(text_folder)
    assert "upgrade" in refused.value.remedy


def test_a_picture_model_with_text_steps_is_refused(image_folder: Path) -> None:
    rewrite(image_folder / "config.json", preprocess=[{"name": "text_normalization"}])
    with pytest.raises(BadPackage, match="on pictures"):
        Package(image_folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda folder: (folder / "labels.json").unlink(), "labels.json"),
        (lambda folder: (folder / "labels.json").write_text("{}"), "labels.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"none"), "ONNX Runtime"),
        (lambda folder: rewrite(folder / "config.json", task="causal_lm"), "language model"),
    ],
)
def test_a_damaged_package_says_what_is_wrong(text_folder: Path, damage: Callable[[Path], object], says: str) -> None:
    damage(text_folder)
    with pytest.raises(BadPackage, match=says):
        Package(text_folder)


def test_a_place_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(BadPackage, match="no model at"):
        Package(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["../out.txt", "/etc/out", "folder/in.txt", "a\\b", ".hidden", "C:x"])
def test_an_entry_outside_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "bad.zip"
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr("fine.txt", "fine")
        package.writestr(name, "bad")
    with pytest.raises(BadPackage, match="no package has"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "link.zip"
    link = zipfile.ZipInfo("model.onnx")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr(link, "/etc/passwd")
    with pytest.raises(BadPackage, match="no package has"):
        unpack(archive, tmp_path / "out")


def test_a_bomb_is_stopped_while_it_unpacks(tmp_path: Path) -> None:
    archive = tmp_path / "bomb.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("zeros", bytes(3_000_000))
    with pytest.raises(BadPackage, match="more than"):
        unpack(archive, tmp_path / "out", max_bytes=1_000_000)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_zip_with_damaged_bytes_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "model.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as package:
        package.writestr("a", b"many words " * 1000)
    content = bytearray(archive.read_bytes())
    content[36] ^= 0xFF  # inside the deflated stream: zlib says so before any checksum can
    archive.write_bytes(content)
    with pytest.raises(BadPackage, match="not a whole ZIP"):
        unpack(archive, tmp_path / "out")


def test_a_cut_zip_is_refused(text_folder: Path, tmp_path: Path) -> None:
    archive = zipped(text_folder, tmp_path / "model.zip")
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(BadPackage, match="not a whole ZIP"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", {"max_length": None}),
        ("config.json", {"max_length": "many"}),
        ("config.json", {"preprocess": [1]}),
        ("config.json", {"preprocess": [NORMALIZATION | {"parameters": {"form": "NFX"}}]}),
        ("tokenizer.json", {"model": {"type": "none"}}),
        ("tokenizer.json", {"version": 3}),
    ],
)
def test_a_malformed_package_is_one(text_folder: Path, name: str, change: dict[str, Any]) -> None:
    rewrite(text_folder / name, **change)
    with pytest.raises(BadPackage):
        Package(text_folder)


def test_a_package_without_a_length_is_malformed(text_folder: Path) -> None:
    path = text_folder / "config.json"
    content = json.loads(path.read_text())
    del content["max_length"]
    path.write_text(json.dumps(content))
    with pytest.raises(BadPackage, match="max_length"):
        Package(text_folder)


@pytest.mark.parametrize(
    "change", [{"size": None}, {"size": {"width": 8}}, {"do_normalize": True}, {"image_mode": "?"}]
)
def test_a_malformed_package_of_pictures_is_one(image_folder: Path, change: dict[str, Any]) -> None:
    rewrite(image_folder / "preprocessor_config.json", **change)
    with pytest.raises(BadPackage):
        Package(image_folder)
