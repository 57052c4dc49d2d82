"""What a head alone reads: the mean of the tokens, by an architecture that others load."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from engine.apart import draw_nothing
from engine.frozen import in_scope, read_by_a_head, same_rows
from engine.prepare import begin
from tests.engine.private_runs import choice, private_run
from tests.engine.runs import trained
from tests.engine.test_deliver import delivered
from tests.engine.tiny import tiny_bert

pytestmark = pytest.mark.usefixtures("measured_here")


def model_of(folder: Path) -> Any:
    """A random BERT whose layers do something."""
    tiny_bert(folder, layers=3)
    return BertForSequenceClassification.from_pretrained(folder)


IDS = torch.tensor([[2, 5, 9, 11, 3], [2, 7, 3, 0, 0]])
MASK = (IDS != 0).long()


def averaged(model: Any, layer: int, scale: float) -> torch.Tensor:
    """Slow and obvious: the mean over what is no padding, its own mean taken off, a deviation put in."""
    with torch.no_grad():
        said = model.eval().bert(input_ids=IDS, attention_mask=MASK, output_hidden_states=True)
    rows = [states[: int(mask.sum())].mean(dim=0) for states, mask in zip(said.hidden_states[layer], MASK, strict=True)]
    return torch.tanh(scale * nn.functional.layer_norm(torch.stack(rows), (32,)))


@pytest.mark.parametrize(("length", "scale"), [(None, 1.0), (4.0, 4.0 / 32**0.5)])
def test_the_head_reads_the_mean_below_the_last_layer(tmp_path: Path, length: float | None, scale: float) -> None:
    model = model_of(tmp_path)
    expected = averaged(model, 2, scale)
    read_by_a_head(model, length)
    with torch.no_grad():
        found = model.bert(input_ids=IDS, attention_mask=MASK).pooler_output
    torch.testing.assert_close(found, expected, rtol=0.0, atol=5e-3)


def test_padding_changes_nothing_and_neither_does_training_mode(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    draw_nothing(model)
    read_by_a_head(model)
    model.train()
    with torch.no_grad():
        together = model(input_ids=IDS, attention_mask=MASK).logits
        alone = model(input_ids=IDS[1:, :3], attention_mask=MASK[1:, :3]).logits
    torch.testing.assert_close(together[1:], alone, rtol=1e-4, atol=1e-4)


def test_the_layers_below_and_the_head_stay_as_they_are(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    read_by_a_head(model)
    changed = {name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed
    assert all(".layer.2." in name or "pooler" in name for name in changed)
    head = {id(weight) for weight in in_scope(model, "head")}
    names = [name for name, weight in model.named_parameters() if id(weight) in head]
    assert names == ["classifier.weight", "classifier.bias"]


def test_a_net_of_one_layer_keeps_it() -> None:
    sizes: dict[str, Any] = {"vocab_size": 20, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    model: Any = BertForSequenceClassification(BertConfig(num_hidden_layers=1, **sizes))
    before = model.bert.encoder.layer[0].attention.self.query.weight.clone()
    read_by_a_head(model)
    assert torch.equal(model.bert.encoder.layer[0].attention.self.query.weight, before)
    assert torch.equal(model.bert.pooler.dense.weight, torch.eye(8))


@pytest.mark.parametrize("scope", ["head", "full"])
def test_a_private_head_reads_so_and_nothing_else_does(tmp_path: Path, scope: str) -> None:
    run = private_run(tmp_path, [choice(scope=scope)])
    begin(run, None)
    state = run.model.state_dict()
    averages = torch.equal(state["bert.pooler.dense.weight"], torch.eye(32))
    assert averages is (scope == "head")
    assert (not state["bert.encoder.layer.1.attention.self.query.weight"].any()) is averages


def test_others_load_the_checkpoint_and_the_file_answers_alike(tmp_path: Path) -> None:
    """The delivery itself holds the ONNX file against the model, row by row."""
    run = trained(private_run(tmp_path, [choice(scope="head")]), tmp_path)
    receipt = delivered(run, tmp_path)
    assert receipt["privacy"]["mechanism"] == "dp_sgd"
    folder = tmp_path / "checkpoint"
    with zipfile.ZipFile(tmp_path / "outputs" / "checkpoint.zip") as archive:
        assert "shapes.json" not in archive.namelist()
        archive.extractall(folder)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        said = loaded(input_ids=IDS, attention_mask=MASK).logits
        expected = run.model(input_ids=IDS, attention_mask=MASK).logits
    torch.testing.assert_close(said, expected)


def test_a_frozen_encoder_reads_the_rows_of_many_passes_once(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    draw_nothing(model)
    read_by_a_head(model)
    head = {id(weight) for weight in in_scope(model, "head")}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in head)
    model.train()
    seen: list[int] = []
    model.bert.encoder.register_forward_hook(lambda *_: seen.append(1))
    alone = model(input_ids=IDS, attention_mask=MASK).logits
    with same_rows(model):
        for _ in range(3):
            found = model(input_ids=IDS, attention_mask=MASK).logits
            assert torch.equal(found, alone)
            with torch.no_grad():
                model.classifier.weight.mul_(1.0)
    assert len(seen) == 2
    assert torch.autograd.grad(found.sum(), model.classifier.weight)[0].abs().sum() > 0
    other = model(input_ids=IDS.flip(0), attention_mask=MASK.flip(0)).logits
    assert torch.allclose(other.flip(0), alone, atol=1e-6)
    for weight in model.bert.parameters():
        weight.requires_grad_(True)
    with same_rows(model):
        model(input_ids=IDS, attention_mask=MASK)
        model(input_ids=IDS, attention_mask=MASK)
    assert len(seen) == 5, "what learns is read each time"
