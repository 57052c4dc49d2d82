"""The texts of the text benchmarks: the first 2,000 rows of ag_news, or texts made by code where it is not at hand.

Made texts have ag_news' distribution of lengths (mean 50.8 tokens of MiniLM), which is what speed depends on.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
AG_NEWS = ROOT.parent / "shared" / "data" / "text" / "ag_news"
TRAIN_ROWS = 2000
OTHER_ROWS = 64
_LABELS = ("World", "Sports", "Business", "Sci/Tech")
# Words that are one token each to MiniLM.
COMMON = """
    the of and to in a is that for it was on are as with his they at be this from have or by one had not but what all
    were when we there can an your which their said if do will each about how up out them then she many some so these
    would other into has more her two like him see time could no make than first been its who now people my made over
    market game world team oil software court win bank share deal season phone space vote police price league network
"""


def source() -> str:
    """Where the texts come from, in words for the page."""
    if AG_NEWS.is_dir():
        return f"the first {TRAIN_ROWS:,} rows of ag_news"
    return f"{TRAIN_ROWS:,} texts made by code with ag_news' distribution of lengths (ag_news was not at hand)"


def prepared(folder: Path) -> Path:
    """The canonical data file: 2,000 rows of train, a few of valid and test."""
    raw = folder / "texts.jsonl"
    with raw.open("w", encoding="utf-8") as file:
        for split, count in (("train", TRAIN_ROWS), ("valid", OTHER_ROWS), ("test", OTHER_ROWS)):
            for text, label in islice(_rows(split), count):
                file.write(json.dumps({"text": text, "label": label, "split": split}) + "\n")
    return canonical(raw, "text_classification")


def canonical(raw: Path, task: str) -> Path:
    """The canonical data file of rows with a column `split`, beside them, made by the product's own ingest."""
    out, report = raw.with_suffix(".parquet"), raw.with_suffix(".report.json")
    command = [sys.executable, "-m", "engine.ingest", str(raw), "--task", task, "--out", str(out)]
    rest = ["--report", str(report), "--split-column", "split"]
    subprocess.run([*command, *rest], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return out


def _rows(split: str) -> Iterator[tuple[str, str]]:
    if not AG_NEWS.is_dir():
        drawn = np.random.default_rng([*split.encode()])
        while True:
            # As ag_news' but for its longest hundredth: median 50 tokens, quartiles 42 and 58.
            yield made_text(drawn, 48, 0.25), str(drawn.choice(_LABELS))
    with (AG_NEWS / f"{split}.jsonl").open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield row["text"], row["label_name"]


def made_text(drawn: np.random.Generator, words: float, spread: float) -> str:
    """Common words, log-normal in number: their median, and the standard deviation of the logarithm."""
    length = max(8, round(drawn.lognormal(np.log(words), spread)))
    return " ".join(drawn.choice(COMMON.split(), length))
