"""The kinds of problem, and the only list of them: everything else asks a task by the protocol in `engine.ports`."""

from collections.abc import Mapping
from typing import TypeAlias

from engine.tasks.image_classification import ImageClassification
from engine.tasks.text_classification import TextClassification

AnyTask: TypeAlias = type[TextClassification] | type[ImageClassification]

TASKS: Mapping[str, AnyTask] = {one.name: one for one in (TextClassification, ImageClassification)}
