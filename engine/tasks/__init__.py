"""The kinds of problem, and the only list of them: everything else asks a task by the protocol in `engine.ports`."""

from collections.abc import Mapping
from typing import TypeAlias

from engine.tasks.causal_lm import CausalLM
from engine.tasks.image_classification import ImageClassification
from engine.tasks.text_classification import TextClassification
from engine.tasks.text_image_pairs import TextImagePairs

AnyTask: TypeAlias = type[TextClassification] | type[CausalLM] | type[ImageClassification] | type[TextImagePairs]

TASKS: Mapping[str, AnyTask] = {
    one.name: one for one in (TextClassification, CausalLM, ImageClassification, TextImagePairs)
}
