"""What the terms of instruction 7 do on real pairs: recall both ways, and whether the space collapses.

`python -m benchmarks.alignment PAIRS.zip [--seeds 3] [--epochs 12]` prints a table of means over the seeds, with the
least and the largest. Knows no server: the engine's own loop, without export.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from engine.checkpoint import Snapshots
from engine.data import Source, read_rows
from engine.events import Listed
from engine.ingest.__main__ import ingest
from engine.ingest.findings import Choices, Limits
from engine.interrupt import Interrupt
from engine.job import facts_of, load
from engine.models import find
from engine.plan import Plan
from engine.run import Run
from engine.spec import Spec
from engine.train import train

# What each weighs: text to picture, picture to text, distance of a pair, spread. The spread of "attraction alone" is
# there because the instruction refuses to train without anything that pushes apart; it is too little to do so.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "contrastive alone": {},
    "the article's .6 : .3 : .1, contrastive": {"text_weight": 0.6, "image_weight": 0.3, "alignment_weight": 0.1},
    "half of it attraction": {"text_weight": 0.25, "image_weight": 0.25, "alignment_weight": 0.5},
    "with spread": {"alignment_weight": 0.1, "uniformity_weight": 0.1},
    "attraction alone": {"text_weight": 0.0, "image_weight": 0.0, "alignment_weight": 1.0, "uniformity_weight": 1e-9},
    "contrastive, 128 dimensions": {"dimension": 128},
}
COLUMNS = {
    "image_to_text_recall_at_1": "picture to text, 1",
    "image_to_text_recall_at_10": "10",
    "text_to_image_recall_at_1": "text to picture, 1",
    "text_to_image_recall_at_10": "10",
    "mean_cosine_between_images": "cosine of pictures",
}


def prepared(pairs: Path, folder: Path) -> Path:
    """The canonical file of a ZIP of pairs."""
    rows = folder / "pairs.parquet"
    findings, _ = ingest(pairs, pairs.name, "text_image_pairs", rows, Choices({}), Limits())
    if findings.problems:
        raise SystemExit(findings.problems[0].detail)
    return rows


def effects(rows_file: Path, parameters: Mapping[str, Any], seed: int, epochs: int) -> Mapping[str, float]:
    """What one trained run reports of itself on the test rows."""
    spec = Spec.model_validate(
        {
            "task": "text_image_pairs",
            "dataset": str(rows_file),
            "instructions": [{"name": "multimodal_alignment", **parameters}],
            "training": {"epochs": epochs, "max_length": 32, "seed": seed},
        }
    )
    source = Source.open(rows_file)
    rows, base = read_rows([(source, "")], source.labels), find(spec.base_model, None)
    run = Run(spec, Plan.of(spec, facts_of(rows, [source], pretrained=base.pretrained)), Listed())
    run.task, run.data = load(run, rows, base, source.labels)
    with tempfile.TemporaryDirectory() as folder:
        train(run, Snapshots(Path(folder), run.sink), Interrupt())
    (one,) = run.plan.on("report")
    return one.report(run)


def line(name: str, found: Sequence[Mapping[str, float]]) -> str:
    """A row of the table: means, and the least and the largest of the seeds."""
    cells = []
    for column in COLUMNS:
        values = [one[column] for one in found]
        cells.append(f"{sum(values) / len(values):.3f} ({min(values):.3f} to {max(values):.3f})")
    return f"| {name} | {' | '.join(cells)} |"


def main(words: Sequence[str] | None = None) -> int:
    """Measure every variant with every seed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.alignment", description=__doc__)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--only", action="append", choices=sorted(VARIANTS))
    given = parser.parse_args(words)
    torch.set_num_threads(2)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print(f"| loss | {' | '.join(COLUMNS.values())} |\n|{'---|' * (len(COLUMNS) + 1)}")
    with tempfile.TemporaryDirectory() as folder:
        rows = prepared(given.pairs, Path(folder))
        for name in given.only or VARIANTS:
            found = [effects(rows, VARIANTS[name], seed, given.epochs) for seed in range(1, given.seeds + 1)]
            print(line(name, found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
