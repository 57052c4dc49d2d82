"""A model of ag_news' topics with a detector, and what is made of it: a smaller file, a score, verdicts on inputs.

The model is trained once a walk, by whichever step needs it first.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from benchmarks.acceptance.step import Finding, Step
from benchmarks.acceptance.walk import Done, Walk
from benchmarks.machine import has_bf16
from benchmarks.servers import upload
from benchmarks.shared_data import at_hand, joined
from client.http import Json

_TINY = {"train": 560, "valid": 110, "test": 40}
_FALSE_ALARMS = 0.10
"""Most of 189 clean texts that may be flagged where a twentieth is asked for: three standard errors beyond it."""
_DETECTION = "adversarial/adv_ag_news"
_TASK = "text_classification"


def trained(place: Walk) -> Done:
    """MiniLM on ag_news with attention_detection in its plan."""
    return place.once("topics", lambda: place.run(_training(place)))


def compressed(place: Walk) -> Done:
    """The same model in integers."""

    def run() -> Done:
        model = trained(place)
        chosen = {"number": 47, "calibration_rows": 16} if place.quick else 47
        limits = {"max_metric_loss": 1.0 if place.quick else 0.02, "max_size_ratio": 0.3}
        dataset = model.job["dataset"]
        return place.run(
            {"kind": "compress", "model": model.id, "dataset": dataset, "instructions": [chosen], "limits": limits}
        )

    return place.once("compressed topics", run)


def rows_file(place: Walk) -> Path:
    """The rows that the model was trained, validated and tested on."""
    return joined(place.scratch("topics"), "ag_news", _TINY if place.quick else None)


def _training(place: Walk) -> Json:
    detector: Json = {"number": 33, "attack_rows": 60}
    small: Json = {"mode": "fast", "target_fpr": 0.2, "calibration_rows": 100, "fit_rows": 500, "attack_rows": 5}
    training = {"epochs": 2, "batch_size": 32, "max_length": 64}
    return {
        "task": _TASK,
        "dataset": upload(place.client, rows_file(place), _TASK),
        "instructions": [11, *([26] if has_bf16() else []), {**detector, **small} if place.quick else detector],
        "training": {**training, "max_steps": 12} if place.quick else training,
    }


def walk_compress(place: Walk) -> Iterator[Finding]:
    """Train, compress, evaluate what was compressed."""
    yield _of_training(trained(place))
    small = compressed(place)
    quality, size, latency = (small.receipt[name] for name in ("quality", "size", "latency"))
    came = {
        "bytes over those of fp32": size["ratio"],
        "latency over PyTorch fp32's": latency["ratio"],
        "accuracy before": quality["reference"]["value"],
        "accuracy after": quality["exported"]["value"],
        "loss, 95 % interval": quality["loss"]["ci95"],
        "agreement": quality["agreement"],
        "warnings": small.receipt["warnings"],
    }
    yield Finding("`compress` of a finished job", small.sent, came, small.receipt["limits"]["passed"])
    judged = place.run({"kind": "evaluate", "model": small.artifact("model")["id"]})
    told = judged.receipt["quality"]
    recalls = {name: one["recall"] for name, one in told["classes"].items()}
    seen = {
        "accuracy": told["exported"]["value"],
        "its 95 % interval": told["exported"]["ci95"],
        "calibration error": told["calibration"]["error"],
        "recall by class": recalls,
        "latency in ms": judged.receipt["latency"]["exported_p50_ms"],
        "files": [one["kind"] for one in judged.job["artifacts"]],
    }
    same = told["exported"]["value"] == quality["exported"]["value"] and seen["files"] == ["receipt"]
    yield Finding("`evaluate` of its artifact gives the receipt's own score again", judged.sent, seen, same)


def _of_training(done: Done) -> Finding:
    exported = done.receipt["quality"]["exported"]
    effects = next(one["effects"] for one in done.receipt["plan"] if one["number"] == 33)
    came = {"accuracy": exported["value"], "test rows": exported["n"], "the detector's own test": effects}
    return Finding("a model trained on ag_news with 33", done.sent, came, "detector" in _kinds(done))


def _kinds(done: Done) -> set[str]:
    return {str(one["kind"]) for one in done.job["artifacts"]}


def walk_detect(place: Walk) -> Iterator[Finding]:
    """Screen attacks that were made against another model, with the carried detector and with one for these texts."""
    model, most = trained(place), 60 if place.quick else None
    yield _of_training(model)
    names = json.loads((at_hand(_DETECTION) / "labels.json").read_text(encoding="utf-8"))
    tested = _detection_rows("detect_test", most)
    screened = upload(place.client, _as_upload(place, "screened", tested), _TASK)
    asked: Json = {"kind": "detect", "model": model.id, "inputs": {"dataset": screened}}
    carried = place.run(asked | ({"target_fpr": 0.2} if place.quick else {}))
    came = _figures(place, carried, tested, names)
    whole = came["inputs"] == len(tested)
    chance = place.quick or came["AUROC"] > 0.5
    yield Finding(
        "`detect` on adv_ag_news, by the detector that the model carries", carried.sent, came, whole and chance
    )
    clean = [row for row in _detection_rows("detect_train", None) if row["label_name"] == "clean"]
    calibration = upload(place.client, _as_upload(place, "clean", clean[: 2 * most] if most else clean), _TASK)
    named: Json = {"calibration": calibration, "target_fpr": 0.2 if place.quick else 0.05}
    own = place.run(asked | named)
    came = _figures(place, own, tested, names)
    few = came["clean texts flagged"] <= _FALSE_ALARMS
    asks = "the same, calibrated on clean texts of this kind to a false-alarm rate of .05"
    yield Finding(asks, own.sent, came, place.quick or (few and came["AUROC"] > 0.5))


def _detection_rows(split: str, most: int | None) -> list[Json]:
    lines = (at_hand(_DETECTION) / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()[:most]
    return [json.loads(line) for line in lines]


def _as_upload(place: Walk, name: str, rows: Sequence[Json]) -> Path:
    """Texts under their class as the model knows it: what is screened is not told which ones were attacked."""
    path = place.scratch("screened") / f"{name}.jsonl"
    lines = (json.dumps({"text": row["text"], "label": str(row["class_label"])}) for row in rows)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _figures(place: Walk, done: Done, rows: Sequence[Json], names: Mapping[str, str]) -> dict[str, Any]:
    """What the verdicts are worth, over all texts, and over the attacks that fool this very model."""
    file = place.client.download(done.artifact("detections"), place.scratch("screened") / f"{done.id}.jsonl")
    told = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    attacked = np.array([row["label_name"] == "adversarial" for row in rows])
    flagged, scores = np.array([one["flagged"] for one in told]), np.array([one["score"] for one in told])
    wrong = np.array([one["prediction"] != names[str(row["class_label"])] for one, row in zip(told, rows, strict=True)])
    fooling = attacked & wrong
    told_apart = ~attacked | fooling
    summary = done.job["result"]["summary"]
    return {
        "inputs": len(told),
        "AUROC": round(float(roc_auc_score(attacked, scores)), 4),
        "attacks flagged": round(float(flagged[attacked].mean()), 4),
        "clean texts flagged": round(float(flagged[~attacked].mean()), 4),
        "attacks that fool this model": int(fooling.sum()),
        "of these flagged": round(float(flagged[fooling].mean()), 4) if fooling.any() else None,
        "AUROC over these": round(float(roc_auc_score(fooling[told_apart], scores[told_apart])), 4)
        if fooling.any()
        else None,
        "calibration rows": summary["calibration_rows"],
        "target": summary["target_fpr"],
        "warning": summary["shift_warning"],
        "one verdict": told[0],
    }


STEPS = (
    Step(
        "compress",
        "a smaller file, and its score",
        "`compress` of a finished job; `evaluate` of its artifact",
        walk_compress,
    ),
    Step(
        "detect",
        "inputs that look manipulated",
        "`detect` on adv_ag_news with a model trained on ag_news",
        walk_detect,
    ),
)
