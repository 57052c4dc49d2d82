"""Detection of manipulated texts: 33's default on attacks that succeed against the very model, beside an L2 detector.

One seed of MiniLM on ag_news. Thresholds come from clean validation rows, counts from training rows, figures from test
rows and attacks on them; nothing is tuned on either. The L2 detector is the distance to the centroid of the answered
class in the encoder's pooled output, held to the same rate by the same rows.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.benchmark import Benchmark, Setting
from benchmarks.pairs import Line, Pair
from benchmarks.runs import packaged, ready
from benchmarks.shared_data import joined
from benchmarks.texts import ROOT, canonical
from client.artifact import Package
from client.conformal import Calibration, Scores
from client.detector import Detector
from engine.checkpoint import Snapshots
from engine.conformal import CONFIDENT, Figures, drawn_payloads, figures
from engine.interrupt import Interrupt
from engine.ports import Payload
from engine.robustness import ATTACKS, Outcome, attack_rows
from engine.robustness import Setting as Budget
from engine.run import Run
from engine.train import train

TRANSFERRED = ROOT.parent / "shared" / "data" / "adversarial" / "adv_ag_news" / "pairs.jsonl"
RATE = 0.05
SEED = 7


def trained_run(file: Path, folder: Path, *, quick: bool, attacked: int) -> Run:
    """MiniLM on ag_news with 33 in its plan; a few rows and no attack where figures only need to exist."""
    chosen = {"name": "attention_detection", "calibration_rows": 700, "fit_rows": 20_000, "attack_rows": attacked}
    small = {"target_fpr": 0.2, "calibration_rows": 100, "mode": "fast", "fit_rows": 500}
    training = {"epochs": 1 if quick else 2, "batch_size": 32, "max_length": 64, "seed": SEED}
    body = {
        "task": "text_classification",
        "dataset": str(file),
        "instructions": [{**chosen, **small}] if quick else [11, 26, {**chosen, "target_fpr": RATE}],
        "training": {**training, "max_steps": 12} if quick else training,
    }
    run = ready(body)
    train(run, Snapshots(folder, run.sink), Interrupt())
    return run


def ingested(folder: Path, *, quick: bool) -> Path:
    """Ag_news as a canonical file with its own splits."""
    most = {"train": 512, "valid": 110, "test": 30} if quick else None
    return canonical(joined(folder, "ag_news", most), "text_classification")


class Centroids:
    """The L2 detector: how far a text lies from the middle of the class that it is answered as."""

    def __init__(self, run: Run, texts: Sequence[Payload]) -> None:
        self._run = run
        run.model.eval()
        pooled, answered = self._pooled(texts)
        self._middles = np.stack([pooled[answered == label].mean(axis=0) for label in range(len(run.task.labels))])

    def scores(self, texts: Sequence[Payload]) -> npt.NDArray[np.float32]:
        """Distances, (n, 1)."""
        pooled, answered = self._pooled(texts)
        found: npt.NDArray[np.float32] = np.linalg.norm(pooled - self._middles[answered], axis=1)[:, None]
        return found

    @torch.no_grad()
    def _pooled(self, texts: Sequence[Payload]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The first token's last hidden state, (n, width), and the answered classes."""
        task: Any = self._run.task
        states, answers = [], []
        for start in range(0, len(texts), 32):
            batch = task.collate(task.encode(texts[start : start + 32]), [0] * len(texts[start : start + 32]))
            said = self._run.model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True
            )
            states.append(said.hidden_states[-1][:, 0].numpy())
            answers.append(said.logits.argmax(dim=1).numpy())
        return np.concatenate(states), np.concatenate(answers)


def l2_figures(run: Run, attacks: Sequence[Payload], clean: Sequence[Payload], rate: float, rows: int) -> Figures:
    """The L2 detector's figures on the same attacks and rows."""
    centroids = Centroids(run, drawn_payloads(run.data.train, 2000, SEED, "fit"))
    calibration = Calibration(("l2",), centroids.scores(drawn_payloads(run.data.valid, rows, SEED, "calibration")))
    return figures(
        calibration.scores(centroids.scores(attacks)),
        calibration.scores(centroids.scores(clean)),
        calibration.threshold(rate),
    )


def transferred(detector: Detector, clean: Scores, most: int | None) -> Mapping[str, float]:
    """Figures on attacks that were made against another model and fool this one too, where they are at hand."""
    if not TRANSFERRED.is_file():
        return {}
    pairs = [json.loads(line) for line in TRANSFERRED.read_text(encoding="utf-8").splitlines()[:most]]
    names = {name: number for number, name in enumerate(detector.package.labels)}
    labels = json.loads((TRANSFERRED.parent / "labels.json").read_text(encoding="utf-8"))
    truth = np.array([names[labels[str(one["label"])]] for one in pairs])
    was, now = (detector.package.answers([one[key] for one in pairs]).argmax(1) for key in ("original", "perturbed"))
    fooling = [one["perturbed"] for one, fell in zip(pairs, (was == truth) & (now != truth), strict=True) if fell]
    if not fooling:
        return {}
    found = figures(detector.scores(fooling), clean, detector.calibration.threshold(detector.target_fpr))
    return {"transferred": float(found.n), "transferred AUROC": found.auroc, "transferred TPR": found.tpr}


def measured(run: Run, package: Package, outcome: Outcome, most: int | None = None) -> dict[str, float]:
    """Every figure of one seed; `most` bounds the attacks of others that are tried."""
    detector = Detector.read(package)
    clean = [run.data.test.payloads[int(row)] for row in outcome.rows]
    scores, threshold = detector.scores(clean), detector.calibration.threshold(detector.target_fpr)
    found = figures(detector.scores(outcome.fooling), scores, threshold)
    beside = l2_figures(run, outcome.fooling, clean, detector.target_fpr, detector.calibration.rows)
    sure = [one for one in outcome.confident if one is not None]
    told = {
        "AUROC": found.auroc,
        "TPR": found.tpr,
        "F1": found.f1,
        "F1 above L2": found.f1 - beside.f1,
        "false alarms": found.fpr,
        "attacks": float(found.n),
        "L2 AUROC": beside.auroc,
        "L2 F1": beside.f1,
    }
    if sure:
        confident = figures(detector.scores(sure), scores, threshold)
        told |= {"sure attacks": float(confident.n), "sure AUROC": confident.auroc, "sure TPR": confident.tpr}
    return {**told, **transferred(detector, scores, most)}


@contextmanager
def _detection(setting: Setting, attacked: int = 700) -> Iterator[Pair]:
    """Train, attack and judge once: every pair tells the same figures."""
    folder = setting.scratch("detection")
    torch.set_num_threads(setting.cores)
    rows = 16 if setting.quick else attacked
    run = trained_run(ingested(folder, quick=setting.quick), folder, quick=setting.quick, attacked=0)
    package = packaged(run, setting.scratch("package"), setting.cores)
    run.plan.instructions[-1].audit(run, package, run.model)
    attack = ATTACKS["text_classification"][0]
    budget = Budget(rows=rows, confidence=CONFIDENT)
    outcome = attack_rows(run, package, run.model, [attack], budget)[attack]
    told = measured(run, package, outcome, 20 if setting.quick else None)
    yield lambda number: told


BENCHMARKS = (
    Benchmark(
        "detection",
        "detection of manipulated texts, 5 % false alarms",
        "33's default on word substitutions that succeed against MiniLM on ag_news, one seed; beside an L2 detector",
        (
            Line("AUROC", 0.90, 0.95, exact=True),
            Line("TPR", 0.50, 0.75, exact=True),
            Line("F1", 0.70, 0.85, exact=True),
            Line("F1 above L2", 0.05, 0.10, exact=True),
            Line("false alarms", 0.07, 0.07, more_is_better=False, exact=True),
            Line("attacks", 200, 200, exact=True),
        ),
        _detection,
        seconds=0,
    ),
)
