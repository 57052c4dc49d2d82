"""answers.jsonl: what the exported file says of each test row, and the row's part in the score. Knows no task.

One JSON object a line, in the order of the test rows. Rows are named by id and hash, never by their text. Both follow
from the content, so where no row may be told of by itself the file is for whoever runs the job, and is not handed out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.handover import Output
from engine.ports import Answers
from engine.run import Run
from engine.spec import Spec

KEPT = "kept_answers"
"""The kind of the file where it is not to be handed out."""
_DIGITS = 6


def output(spec: Spec) -> Output:
    """The file, of the kind that says who may have it."""
    return Output(KEPT if spec.answers == "kept" else "answers", "application/x-ndjson", Path("answers.jsonl"))


def answer_lines(run: Run, answers: Answers, found: Mapping[str, Any]) -> bytes:
    """The content of the file.

    Args:
        run: whose test rows and metric they are.
        answers: (n, k), what the exported file says of them.
        found: what the fresh process wrote: hashes of the rows, and how a language model goes on from some of them.
    """
    test = run.data.test
    figures = run.task.figures(run.spec.metric, answers, test.labels)
    told = run.task.row_answers(answers, test.labels)
    lines = [
        {
            "id": str(test.ids[i]),
            "sha256": found["sha256"][i],
            "figures": [round(float(x), _DIGITS) for x in figures[i]],
            **told[i],
            **found["continued"].get(str(i), {}),
        }
        for i in range(len(test))
    ]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
