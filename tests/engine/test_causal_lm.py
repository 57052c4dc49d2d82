"""Language models: what is a target, what a token costs, and that a part of a text is as good as its whole."""

import json
from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from engine import models
from engine.errors import InvalidData
from engine.events import StepDone
from engine.inference import eager_answers
from engine.models import Base
from engine.parts import NO_TARGET, spans, token_bytes
from engine.ports import Batch
from engine.spec import Spec
from engine.tasks.causal_lm import CausalLM
from engine.token_loss import IGNORED, counted_hits, token_losses
from tests.engine.runs import trained
from tests.engine.tiny_lm import SENTENCES, llama_config, lm_rows, tiny_chat_rows, tiny_decoder, tiny_lm_run

ODD = "Größe 🎈 the\tend — ﬁn\n"


@pytest.fixture
def task(tmp_path: Path) -> CausalLM:
    return CausalLM(tiny_decoder(tmp_path / "base"), 32)


@pytest.mark.parametrize("text", [*SENTENCES, ODD, "a", "", "日本語の文"])
def test_the_bytes_of_the_targets_are_the_bytes_of_the_text(task: CausalLM, text: str) -> None:
    (example,) = task.encode([text])
    assert example.shape[0] == 2
    first = len(text[:1].encode())  # the first token is a byte of the first character, which stands for all of it
    assert example[1, 1:].sum() == max(0, len(text.encode()) - first)
    assert (example[1, :1] == NO_TARGET).all()
    assert (example[1, 1:] != NO_TARGET).all()


def test_bytes_go_to_the_token_that_ends_behind_them() -> None:
    offsets = np.array([[0, 0], [0, 1], [2, 4], [4, 5], [4, 5]])
    assert token_bytes("aébc🎈"[:5], offsets).tolist() == [0, 1, 4, 4, 0]


def test_parts_hold_every_token_and_make_each_a_target_once(task: CausalLM) -> None:
    text = " ".join(SENTENCES)
    (whole,) = task.encode([text])
    numbers, parts = task.cut([whole, task.encode(["x"])[0]])
    assert set(numbers.tolist()) == {0}  # a text of one token teaches nothing
    assert all(one.shape[1] <= 32 for one in parts)
    assert np.concatenate([parts[0][0], *(one[0, 1:] for one in parts[1:])]).tolist() == whole[0].tolist()
    assert sum(int((one[1] != NO_TARGET).sum()) for one in parts) == whole.shape[1] - 1
    assert all(one[1, 0] == NO_TARGET for one in parts)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 8, 9, 15, 16, 200])
def test_spans_cover_all_and_share_one_token(length: int) -> None:
    found = spans(length, 8)
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(stop - start <= 8 for start, stop in found)
    assert all(later[0] == earlier[1] - 1 for earlier, later in pairwise(found))
    assert all(stop - start >= 2 for start, stop in found) or length < 2


def reference_nats(model: nn.Module, ids: list[int]) -> float:
    """The loss that transformers itself computes for one row, summed over its targets."""
    with torch.no_grad():
        mean = model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss
    return float(mean) * (len(ids) - 1)


def test_losses_are_those_of_transformers_for_each_row(task: CausalLM) -> None:
    model = task.build().eval()
    examples = [one[:, :30] for one in task.encode([SENTENCES[0], "Go.", ODD])]
    batch = task.collate(examples, [0, 0, 0])
    assert "rows" not in batch
    losses = task.losses(task.forward(model, batch), batch)
    expected = [reference_nats(model, one[0].tolist()) for one in examples]
    assert losses.dtype == torch.float32
    assert losses.tolist() == pytest.approx(expected, abs=1e-3)
    assert task.items(batch) == sum(one.shape[1] - 1 for one in examples)


def test_a_long_row_costs_what_its_parts_cost(task: CausalLM) -> None:
    model = task.build().eval()
    texts = [" ".join(SENTENCES), "Go.", SENTENCES[1]]
    examples = task.encode(texts)
    answers = eager_answers(task, model, examples, batch_size=2)
    assert answers.shape == (3, 3)
    for example, (nats, tokens, sizes), text in zip(examples, answers.tolist(), texts, strict=True):
        parts = [example[0, start:stop].tolist() for start, stop in spans(example.shape[1], 32)]
        assert nats == pytest.approx(sum(reference_nats(model, ids) for ids in parts), rel=1e-4)
        assert tokens == example.shape[1] - 1
        assert sizes == len(text.encode()) - 1


@pytest.mark.parametrize("logit_bytes", [1, 4 * 261 * 3 * 5, 1 << 28])
def test_chunked_losses_and_their_gradients_are_the_whole_ones(logit_bytes: int) -> None:
    torch.manual_seed(0)
    head = nn.Linear(16, 261)
    states = torch.randn(3, 20, 16, requires_grad=True)
    # Some are the likeliest token by now, and some are no target.
    likeliest = head(states).argmax(dim=2).roll(1, dims=1)
    labels = torch.where(torch.rand(3, 20) < 0.4, likeliest, torch.randint(0, 261, (3, 20)))
    labels = labels.masked_fill(torch.rand(3, 20) < 0.3, IGNORED)
    weights = torch.rand(3, 19)

    def gradients(losses: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad((losses * weights).sum(), [states, *head.parameters()]))

    logits = head(states)[:, :-1]
    plain = nn.functional.cross_entropy(logits.transpose(1, 2), labels[:, 1:], ignore_index=IGNORED, reduction="none")
    ours = token_losses(head, states, labels, 261, logit_bytes)
    torch.testing.assert_close(ours, plain)
    assert (ours[labels[:, 1:] == IGNORED] == 0).all()
    for one, other in zip(gradients(ours), gradients(plain), strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad(), counted_hits() as hits:
        torch.testing.assert_close(token_losses(head, states, labels, 261, logit_bytes), plain)
    targets = labels[:, 1:]
    right = (logits.argmax(dim=2) == targets) & (targets != IGNORED)
    assert hits.share == int(right.sum()) / int((targets != IGNORED).sum())
    token_losses(head, states, labels.masked_fill(labels != IGNORED, 0), 261, logit_bytes)
    assert hits.share == int(right.sum()) / int((targets != IGNORED).sum()), "nobody counts any more"


def test_only_turns_of_the_assistant_are_targets(tmp_path: Path) -> None:
    task = CausalLM(tiny_decoder(tmp_path / "base"), 128, chat=True)
    messages = [
        {"role": "user", "content": "Hé?"},
        {"role": "assistant", "content": "Nö.", "weight": 0},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "content": "Ja 🎈"},
    ]
    (example,) = task.encode([json.dumps(messages)])
    ids, sizes = example
    learned = task.tokenizer.decode(ids[sizes != NO_TARGET])
    assert learned == "Ja 🎈<|im_end|>"
    assert sizes[sizes != NO_TARGET].sum() == len("Ja 🎈".encode())  # the end mark stands for no bytes
    whole = task.tokenizer.decode(ids)
    assert whole.startswith("<|im_start|>user\nHé?<|im_end|>\n<|im_start|>assistant\nNö.<|im_end|>")


def test_a_turn_that_the_template_writes_otherwise_later_is_no_target(tmp_path: Path) -> None:
    forgetful = "{% for m in messages %}{{ m['role'] }}:"
    forgetful += "{{ m['content'] if loop.last or m['role'] == 'user' else '...' }}\n{% endfor %}"
    forgetful += "{% if add_generation_prompt %}assistant:{% endif %}"
    task = CausalLM(tiny_decoder(tmp_path / "base", template=forgetful), 128, chat=True)
    turns = [("assistant", "zero"), ("user", "?"), ("assistant", "one"), ("user", "!"), ("assistant", "two")]
    messages = [{"role": role, "content": content} for role, content in turns]
    ids, sizes = task.encode([json.dumps(messages)])[0]
    assert task.tokenizer.decode(ids[sizes != NO_TARGET]) == "two"


@pytest.mark.parametrize(
    ("template", "message"), [(None, "no chat template"), ("{{ raise_exception('odd roles') }}", "odd roles")]
)
def test_a_base_that_cannot_write_a_conversation_is_refused(tmp_path: Path, template: str | None, message: str) -> None:
    base = tiny_decoder(tmp_path / "base", template=template)
    with pytest.raises(InvalidData, match=message):
        CausalLM(base, 32, chat=True).encode(tiny_chat_rows(1).payloads)


def test_a_template_runs_in_a_sandbox(tmp_path: Path) -> None:
    escape = "{{ messages.__class__.__mro__[1].__subclasses__() }}"
    with pytest.raises(InvalidData, match=r"unsafe|__mro__"):
        CausalLM(tiny_decoder(tmp_path / "base", template=escape), 32, chat=True).encode(tiny_chat_rows(1).payloads)


def test_rows_are_trained_on_in_parts_and_the_loss_falls(tmp_path: Path) -> None:
    run = tiny_lm_run(tmp_path, epochs=3)
    rows = len(set(run.data.train.ids.tolist()))
    assert len(run.data.train) == len(run.data.examples["train"]) > rows
    assert len(run.data.test) == 6
    before = eager_answers(run.task, run.task.build(), run.data.examples["test"])
    trained(run, tmp_path)
    after = eager_answers(run.task, run.model, run.data.examples["test"])
    assert run.task.mean_loss(after, run.data.test.labels) < 0.7 * run.task.mean_loss(before, run.data.test.labels)
    scores = [event.values["valid_score"] for event in told(run) if "valid_score" in event.values]
    assert scores == sorted(scores, reverse=True)
    shares = [event.values["valid_token_accuracy"] for event in told(run) if "valid_token_accuracy" in event.values]
    assert len(shares) == len(scores)
    with counted_hits() as hits:
        eager_answers(run.task, run.model, run.data.examples["valid"])
    assert shares[-1] == hits.share
    assert 0 < shares[0] < shares[-1] < 1


def test_conversations_are_learned_and_texts_are_changed_message_by_message(tmp_path: Path) -> None:
    keeps = {"name": "text_normalization", "whitespace": "keep_lines"}
    rows = tiny_chat_rows(20).map(lambda text: str(text).replace("the", "THE"))
    assert json.loads(str(rows.payloads[0]))[1]["content"] == SENTENCES[0].replace("the", "THE")
    run = trained(tiny_lm_run(tmp_path, [keeps], tiny_chat_rows(40), max_length=128), tmp_path)
    losses = [event.values.get("train_loss") for event in told(run) if "train_loss" in event.values]
    assert len(losses) == run.clock.total


def told(run: Any) -> list[StepDone]:
    return [event for event in run.sink.events if isinstance(event, StepDone)]


def test_rows_without_a_target_are_left_out_and_none_at_all_is_a_fault(tmp_path: Path) -> None:
    run = tiny_lm_run(tmp_path, rows=lm_rows(["x", "A row with words.", *SENTENCES, "y", "z", *SENTENCES]))
    assert run.data.left_out == 3
    with pytest.raises(InvalidData, match="token to learn"):
        tiny_lm_run(tmp_path, rows=lm_rows(["x"] * 10))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_held_out_rows_without_a_target_have_no_score(tmp_path: Path, split: str) -> None:
    rows = tiny_chat_rows(60)
    said = json.dumps([{"role": "assistant", "content": "Nobody asked."}])
    silent = [said if mine == split else one for one, mine in zip(rows.payloads, rows.splits, strict=True)]
    with pytest.raises(InvalidData, match="no test row") if split == "test" else nullcontext():
        assert not len(tiny_lm_run(tmp_path, rows=replace(rows, payloads=silent)).data.valid)


def test_the_answers_mean_bits_and_perplexity(task: CausalLM) -> None:
    answers = np.array([[8 * np.log(2), 4, 8], [2 * np.log(2), 1, 2]], dtype=np.float32)
    labels = np.zeros(2, dtype=np.int64)
    figures = task.figures("bits_per_byte", answers, labels)
    np.testing.assert_allclose(figures, answers[:, [0, 2]])
    told = task.quality(answers, answers, labels)
    assert told["perplexity"]["exported"] == pytest.approx(4.0)  # 2 bits a token
    assert (told["target_tokens"], told["target_bytes"]) == (5, 10)
    assert task.contradicted(answers, answers) == (0, 2)
    assert task.contradicted(answers, answers + np.array([[3, 0, 0], [0, 0, 0]], np.float32)) == (1, 2)
    assert task.same(answers, answers) is None


def test_no_end_of_the_interval_of_a_perplexity_lies_below_one(task: CausalLM) -> None:
    answers = np.array([[1, 3, 9], [2, 3, 9], [30, 3, 9], [1, 3, 9], [12, 3, 9]], dtype=np.float32)
    perplexity = task.quality(answers, answers, np.zeros(5, dtype=np.int64))["perplexity"]
    low, high = perplexity["ci95"]
    assert 1 <= low < perplexity["exported"] < high


def test_a_decoder_folder_serves_language_models_alone(tmp_path: Path) -> None:
    tiny_decoder(tmp_path / "decoder")
    assert models.fault("decoder", "causal_lm", tmp_path) is None
    assert {one["id"]: one["task"] for one in models.describe(tmp_path)}["decoder"] == "causal_lm"
    config = tmp_path / "decoder" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "gemma2"}))
    for name in ("decoder", "minilm-l6"):
        fault = models.fault(name, "causal_lm", tmp_path)
        assert fault is not None
        assert (fault.pointer, fault.code) == ("/model", "wrong_task")
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "llama", "auto_map": {"x": "y"}}))
    refused = models.fault("decoder", "causal_lm", tmp_path)
    assert refused is not None
    assert "code of its own" in refused.detail


def test_a_spec_names_format_and_metric_and_refuses_a_floor_for_what_should_be_low() -> None:
    spec = Spec.model_validate({"task": "causal_lm", "dataset": "x"})
    assert (spec.metric, spec.export.format, spec.base_model) == ("bits_per_byte", "safetensors", "smollm2-135m")
    for limit, reason in (("min_metric", "less is better"), ("min_agreement", "neither right nor wrong")):
        with pytest.raises(ValueError, match=reason):
            Spec.model_validate({"task": "causal_lm", "dataset": "x", "limits": {limit: 0.5}})


def test_the_cost_is_read_off_the_configuration(tmp_path: Path) -> None:
    base = tiny_decoder(tmp_path / "base")
    (tmp_path / "base" / "model.safetensors").unlink()
    cost = CausalLM.cost(base, 64)
    model = LlamaForCausalLM(llama_config())
    assert cost.parameters == sum(weight.numel() for weight in model.parameters())
    assert cost.operations == 2.0 * cost.parameters * 64
    assert cost.activation_bytes > 0


def test_packed_documents_cost_what_each_costs_alone(task: CausalLM) -> None:
    model = task.build().eval()
    first, second = task.encode([SENTENCES[0][:14], SENTENCES[1][:14]])
    packed: Batch = {
        "input_ids": torch.from_numpy(np.concatenate([first[0], second[0]])[None].astype(np.int64)),
        "labels": torch.from_numpy(np.concatenate([first[0], second[0]])[None].astype(np.int64)),
        "position_ids": torch.cat([torch.arange(first.shape[1]), torch.arange(second.shape[1])])[None],
    }
    packed["labels"][0, first.shape[1]] = IGNORED
    packed["labels"][0, 0] = IGNORED
    alone = [task.collate([one], [0]) for one in (first, second)]
    with torch.no_grad():
        expected = sum(float(task.losses(task.forward(model, one), one)) for one in alone)
        whole = float(task.losses(task.forward(model, packed), packed))
    assert whole == pytest.approx(expected, rel=1e-5)


def test_a_base_without_a_folder_is_refused() -> None:
    with pytest.raises(InvalidData, match="writes no text"):
        CausalLM(Base("resnet-small", None), 32)
