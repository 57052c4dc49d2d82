"""The kind `aggregate`: what one client can do to the result, what the noise is, and what a retry gives."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.stats import chi2

from engine import aggregate
from engine.aggregate import AggregateFile, aggregate_updates, clipped_sum
from engine.errors import BudgetExhausted, InvalidData
from engine.events import FileWritten, Listed, PrivacyDrawn
from engine.interrupt import Interrupt
from engine.tensorfile import Layout, Unreadable, as_floats, packed, read_layout
from tests.engine.documented import undocumented

SHAPES = {"head.weight": (3, 4), "head.bias": (3,)}
VALUES = 15
CLIP, SIGMA, EXPECTED = 0.5, 1.0, 20


def write(folder: Path, name: str, scale: float = 0.01, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """One update of random values."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = torch.Generator().manual_seed(seed)
    tensors = {one: (scale * torch.randn(shape, generator=drawn)).to(dtype) for one, shape in SHAPES.items()}
    save_file(tensors, folder / name)
    return folder / name


def spec_of(**changes: Any) -> AggregateFile:
    tensors = {name: {"shape": list(shape), "dtype": "F32"} for name, shape in SHAPES.items()}
    fields = {
        "population": "pop_1",
        "round": "rnd_1",
        "format": "delta",
        "clip_norm": CLIP,
        "noise_multiplier": SIGMA,
        "delta": 1e-5,
        "expected_clients": EXPECTED,
        "min_clients": 10,
        "sampling_rate": 1.0,
        "tensors": tensors,
    }
    return AggregateFile.model_validate_json(json.dumps(fields | changes))


def run(folder: Path, **changes: Any) -> Listed:
    sink = Listed()
    aggregate_updates(spec_of(**changes), folder, sink, job="job_1", interrupt=Interrupt())
    return sink


def result(folder: Path) -> np.ndarray[Any, Any]:
    tensors = load_file(folder / "outputs" / aggregate.AGGREGATE)
    assert {name: tuple(one.shape) for name, one in tensors.items()} == SHAPES
    return np.concatenate([tensors[name].numpy().ravel() for name in sorted(tensors)])


def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise of next to nothing, to see the sum."""
    monkeypatch.setattr(aggregate, "source", lambda _: lambda count: torch.zeros(count, dtype=torch.float64))


def oracle(files: list[Path], bound: float) -> np.ndarray[Any, Any]:
    """Slow and obvious: each update as one vector, clipped, added."""
    total = np.zeros(VALUES)
    for file in files:
        tensors = load_file(file)
        update = np.concatenate([tensors[name].double().numpy().ravel() for name in sorted(tensors)])
        total += update * min(1.0, bound / np.linalg.norm(update))
    return total


def test_the_sum_is_that_of_whole_vectors_clipped_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)
    files = [write(tmp_path / "updates", f"{i:02d}", scale=10.0 ** (i - 8), seed=i) for i in range(12)]
    run(tmp_path)
    np.testing.assert_allclose(result(tmp_path), oracle(files, CLIP) / EXPECTED, rtol=1e-5, atol=1e-6)


def test_one_client_moves_the_result_by_the_bound_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)
    found = []
    for name, scale in (("honest", 0.01), ("huge", 1e9)):
        folder = tmp_path / name
        for i in range(12):
            write(folder / "updates", f"{i:02d}", scale=scale if i == 3 else 0.01, seed=i)
        run(folder)
        found.append(result(folder))
    without = oracle([tmp_path / "honest" / "updates" / f"{i:02d}" for i in range(12) if i != 3], CLIP) / EXPECTED
    assert np.linalg.norm(found[1] - without) == pytest.approx(CLIP / EXPECTED, rel=1e-4)
    assert np.linalg.norm(found[0] - without) < CLIP / EXPECTED


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_counts_as_zero(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    silent(monkeypatch)
    files = [write(tmp_path / "updates", f"{i:02d}", seed=i) for i in range(12)]
    tensors = load_file(files[5])
    tensors["head.bias"][1] = value
    save_file(tensors, files[5])
    run(tmp_path)
    np.testing.assert_allclose(
        result(tmp_path), oracle([one for one in files if one != files[5]], CLIP) / EXPECTED, rtol=1e-5, atol=1e-6
    )


def test_noise_is_drawn_once_and_has_its_variance(tmp_path: Path) -> None:
    """Of zero updates nothing is left but the noise: chi-square on many values; noise a client would be 10 times it."""
    shape, clients = (40_000,), 10
    for i in range(clients):
        (tmp_path / "updates").mkdir(exist_ok=True)
        save_file({"w": torch.zeros(shape)}, tmp_path / "updates" / f"{i:02d}")
    run(tmp_path, tensors={"w": {"shape": list(shape), "dtype": "F32"}})
    noise = load_file(tmp_path / "outputs" / aggregate.AGGREGATE)["w"].double().numpy()
    statistic = float((noise**2).sum() / (SIGMA * CLIP / EXPECTED) ** 2)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], shape[0])
    # The grid's own share of the sensitivity makes the noise 0.04 % larger here.
    assert low < statistic / 1.0004 < high
    assert abs(float(noise.mean())) < 5 * SIGMA * CLIP / EXPECTED / math.sqrt(shape[0])


def test_the_divisor_is_the_public_number_whoever_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)
    for count in (10, 15):
        for i in range(count):
            write(tmp_path / str(count) / "updates", f"{i:02d}", seed=0)
        run(tmp_path / str(count))
    np.testing.assert_allclose(result(tmp_path / "15"), 1.5 * result(tmp_path / "10"), rtol=1e-4, atol=1e-7)


def test_the_draw_is_written_down_before_the_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(10):
        write(tmp_path / "updates", f"{i:02d}", seed=i)

    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(aggregate, "privatise", killed)
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert len((tmp_path / "privacy.jsonl").read_text().splitlines()) == 1
    monkeypatch.undo()
    # Nobody draws a second noise over the same sum unaccounted for.
    with pytest.raises(BudgetExhausted, match="before its result was stored"):
        run(tmp_path)


def test_a_run_that_was_lost_before_the_draw_begins_anew_and_one_after_it_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(10):
        write(tmp_path / "updates", f"{i:02d}", seed=i)

    def killed(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(aggregate, "clipped_sum", killed)
    with pytest.raises(SystemExit):
        run(tmp_path)
    assert not (tmp_path / "privacy.jsonl").exists()
    monkeypatch.undo()
    first = run(tmp_path)
    content = (tmp_path / "outputs" / aggregate.AGGREGATE).read_bytes()
    again = run(tmp_path)
    assert (tmp_path / "outputs" / aggregate.AGGREGATE).read_bytes() == content
    assert [event.drawn for event in first.events if isinstance(event, PrivacyDrawn)] == [1]
    assert not any(isinstance(event, PrivacyDrawn) for event in again.events)
    assert [event.kind for event in again.events if isinstance(event, FileWritten)] == ["aggregate", "receipt"]


def test_uploads_in_another_order_give_the_same_sum(tmp_path: Path) -> None:
    layout = read_layout(write(tmp_path, "one"))
    files = [write(tmp_path / "updates", f"{i:02d}", scale=10.0 ** (i - 6), seed=i) for i in range(12)]
    turned = files[::-1]
    sums = [clipped_sum(sorted(files), layout, CLIP), clipped_sum(sorted(turned), layout, CLIP)]
    assert sums[0].tobytes() == sums[1].tobytes()


def test_weights_are_measured_from_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    silent(monkeypatch)
    base = load_file(write(tmp_path, "base", scale=1.0, seed=99))
    deltas = [load_file(write(tmp_path / "deltas", f"{i:02d}", seed=i)) for i in range(10)]
    (tmp_path / "updates").mkdir()
    for i, delta in enumerate(deltas):
        save_file({name: base[name] + delta[name] for name in base}, tmp_path / "updates" / f"{i:02d}")
    run(tmp_path, format="weights")
    expected = oracle(sorted((tmp_path / "deltas").iterdir()), CLIP) / EXPECTED
    flat = np.concatenate([base[name].double().numpy().ravel() for name in sorted(base)])
    np.testing.assert_allclose(result(tmp_path), flat + expected, atol=1e-6)


def test_too_few_clients_are_refused_without_their_number(tmp_path: Path) -> None:
    for i in range(9):
        write(tmp_path / "updates", f"{i:02d}", seed=i)
    with pytest.raises(InvalidData) as caught:
        run(tmp_path)
    assert "fewer than 10" in caught.value.detail
    assert "9" not in caught.value.detail
    assert not (tmp_path / "privacy.jsonl").exists()


def test_the_receipt_has_the_release_and_nothing_of_who_came(tmp_path: Path) -> None:
    for i in range(13):
        write(tmp_path / "updates", f"{i:02d}", seed=i)
    spent = [{"mechanism": "gaussian", "q": 1.0, "sigma": 1.0, "count": 1, "sampling": "none"}]
    run(tmp_path, privacy_budget={"spent": spent, "delta": 1e-5})
    text = (tmp_path / "outputs" / "receipt.json").read_text()
    assert undocumented(json.loads(text)) == []
    privacy = json.loads(text)["privacy"]
    # The analytic Gaussian at delta 1e-5: 4.38 for one release of noise multiplier 1.
    assert privacy["epsilon"] == pytest.approx(4.38, abs=0.01)
    assert privacy["dataset_total_epsilon"] > privacy["epsilon"]
    assert (privacy["unit"], privacy["noise_multiplier"], privacy["max_grad_norm"]) == ("client", SIGMA, CLIP)
    assert "13" not in json.dumps({**privacy, "accountant": ""})


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values_are_read_and_written_in_every_dtype(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {"b": torch.tensor([1.5, -2.0, 0.1, 3e4]).to(dtype), "a": torch.arange(6.0).view(2, 3).to(dtype)}
    save_file(tensors, tmp_path / "file")
    layout = read_layout(tmp_path / "file")
    raw = np.fromfile(tmp_path / "file", np.uint8)
    values = np.concatenate(
        [
            as_floats(raw[one.start : one.start + one.size], one.dtype).astype(np.float64)
            for one in layout.tensors.values()
        ]
    )
    assert values.tolist() == [*tensors["a"].double().ravel().tolist(), *tensors["b"].double().tolist()]
    (tmp_path / "again").write_bytes(packed(values, layout))
    for name, one in load_file(tmp_path / "again").items():
        assert torch.equal(one, tensors[name])
        assert one.dtype is dtype


def broken(tmp_path: Path, change: Any) -> Path:
    content = bytearray(write(tmp_path, "sound").read_bytes())
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    header, data = change(header, data)
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (tmp_path / "broken").write_bytes(len(text).to_bytes(8, "little") + text + data)
    return tmp_path / "broken"


def moved(header: dict[str, Any], data: bytes) -> tuple[Any, bytes]:
    header["head.bias"]["data_offsets"] = [4, 16]
    return header, data


@pytest.mark.parametrize(
    "change",
    [
        lambda header, data: (header, data[:-1]),
        lambda header, data: (header, data + b"\0"),
        lambda header, data: (b"{" * 5_000, data),
        lambda header, data: (b"[]", data),
        lambda header, data: ({**header, "head.bias": {**header["head.bias"], "dtype": "I32"}}, data),
        lambda header, data: ({**header, "head.bias": {**header["head.bias"], "shape": [-3]}}, data),
        lambda header, data: ({**header, "head.bias": {**header["head.bias"], "shape": [4]}}, data),
        lambda header, data: ({name: one for name, one in header.items() if name != "head.bias"}, data),
        moved,
    ],
)
def test_a_file_that_lies_about_itself_is_refused(tmp_path: Path, change: Any) -> None:
    with pytest.raises(Unreadable):
        read_layout(broken(tmp_path, change))


def test_short_files_are_refused(tmp_path: Path) -> None:
    for content in (b"", b"1234", (10**9).to_bytes(8, "little") + b"{}", (1).to_bytes(8, "little") + b"{"):
        (tmp_path / "short").write_bytes(content)
        with pytest.raises(Unreadable):
            read_layout(tmp_path / "short")
    assert Layout({}).count == 0
