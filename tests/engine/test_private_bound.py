"""One record or one client moves the sum by one bound, in training mode and through the loop's own closure.

Whoever is added also moves the others to other places of a chunk and to other chunks: nothing of what they add may
hang on that. Each of these fails where dropout is on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from engine.accounting import PrivacyBudget
from engine.apart import check_apart, draw_nothing, drawing_nothing
from engine.chunking import PASS_COSTS, cut_by_length
from engine.errors import InvalidPlan
from engine.federated import clients_in
from engine.feed import fed
from engine.inference import eager_answers
from engine.instruction import Window
from engine.instructions.privacy.i41_privacy_canaries import PrivacyCanaries
from engine.journal import Journal
from engine.plan import Plan
from engine.prepare import begin
from engine.run import Run
from engine.spec import Spec
from engine.terms import Terms
from engine.train import _Closure
from tests.engine.private_runs import BOUND, choice, flat_gradient, holder, private_run
from tests.engine.runs import tiny_run
from tests.engine.tiny import tiny_text_rows
from tests.engine.tiny_lm import llama_config, tiny_chat_rows, tiny_decoder, tiny_lm_run
from tests.engine.tiny_run import text_run, trained

LORA = {"number": 19, "rank": 2}
CLIENTS = {"name": "dp_gradient_aggregation", "client_rate": 0.5, "noise_multiplier": 1.0, "clip_norm": 0.05}


def begun(run: Run) -> Run:
    """The run at its first step; adapters say something, as they do after it."""
    begin(run, None)
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    return run


def total(run: Run, chunks: Sequence[Sequence[int]]) -> torch.Tensor:
    """What the loop sums up of these chunks before it adds noise."""
    run.model.train()
    run.model.zero_grad(set_to_none=True)
    for window in fed(run, [Window(tuple(map(tuple, chunks)), 8.0)]):
        for number, chunk in enumerate(window.chunks):
            holder(run).backward(run, _Closure(run, chunk.batch, number), 8.0)
    return flat_gradient(run).clone()


def cut(run: Run, rows: list[int]) -> list[list[int]]:
    """The chunks of a draw, as 37 makes them."""
    lengths, taken = run.data.lengths("train"), np.array(rows)
    taken = taken[np.argsort(-lengths[taken], kind="stable")]
    return [taken[one].tolist() for one in cut_by_length(lengths[taken], 8, PASS_COSTS["cpu"])]


@pytest.mark.parametrize(
    "chosen",
    [
        [choice(scope="head")],
        [choice(scope="bias")],
        [choice(scope="full")],
        [LORA, choice(scope="lora")],
        [LORA, {"number": 26}, choice()],
    ],
    ids=["head", "bias", "full", "lora", "bf16"],
)
def test_one_record_more_moves_the_sum_by_one_bound(tmp_path: Path, chosen: list[Any]) -> None:
    run = begun(private_run(tmp_path, chosen))
    rows = list(range(1, 20))
    without = total(run, cut(run, rows))
    moves = [float((total(run, cut(run, [*rows, one])) - without).norm()) / BOUND for one in (0, 26, 35)]
    assert max(moves) <= 1 + 1e-4
    assert max(moves) > 0.5, "somebody comes near the bound"


def test_one_record_more_of_a_language_model_moves_the_sum_by_one_bound(tmp_path: Path) -> None:
    """Its attention holds a probability of its own, which is no module."""
    base = tiny_decoder(tmp_path / "base", llama_config(attention_dropout=0.2))
    run = begun(tiny_lm_run(tmp_path, [LORA, choice()], base=base, batch_size=32))
    without = total(run, cut(run, list(range(1, 12))))
    assert float((total(run, cut(run, list(range(12)))) - without).norm()) <= BOUND * (1 + 1e-4)


@pytest.mark.parametrize("chosen", [[{"scope": "head"}], [{"scope": "full"}], [LORA, {}]], ids=["head", "full", "lora"])
def test_one_client_more_moves_the_sum_by_one_bound(tmp_path: Path, chosen: list[Any]) -> None:
    rows = replace(tiny_text_rows(300), groups=np.array([f"client-{i % 60:02d}" for i in range(300)]))
    run = begun(tiny_run(tmp_path, [*chosen[:-1], {**CLIENTS, **chosen[-1]}], rows, batch_size=32))
    clients = [one.tolist() for one in clients_in(run.data.train.groups).values()]
    whole = total(run, clients[:12])
    for gone in (0, 5, 11):
        others = total(run, clients[:gone] + clients[gone + 1 : 12])
        assert float((whole - others).norm()) == pytest.approx(0.05, rel=1e-3)


def test_which_rows_a_client_uses_hangs_on_no_other_client(tmp_path: Path) -> None:
    names = np.array([f"client-{i % 60:02d}" for i in range(300)])
    used: list[dict[str, set[str]]] = []
    for number, kept in enumerate((np.arange(300), np.flatnonzero(names != "client-00"))):
        rows = replace(tiny_text_rows(300), groups=names).take(kept)
        run = tiny_run(tmp_path / str(number), [{**CLIENTS, "client_rows": 2, "rounds": 8}], rows.loaded())
        begin(run, None)
        ids, groups = run.data.train.ids, run.data.train.groups
        assert groups is not None
        found = {}
        for turn, window in enumerate(holder(run).grouping(run, iter(()), 0)):
            for chunk in window.chunks:
                found[f"{turn} {groups[chunk[0]]}"] = {str(ids[row]) for row in chunk}
        used.append(found)
    both = used[0].keys() & used[1].keys()
    assert len(both) > 50
    assert all(used[0][one] == used[1][one] for one in both)


def test_a_text_with_another_label_is_another_record(tmp_path: Path) -> None:
    """In the place of the first it would take one away and add one: two bounds."""
    run = begun(private_run(tmp_path, [choice()]))
    rows = run.data.train
    assert len(rows.ids) == len(list(holder(run).order(run, 0)))
    rows.ids[0] = rows.ids[5]
    rows.labels[0] = 1 - rows.labels[5]
    assert {0, 5} <= set(holder(run).order(run, 0))
    rows.labels[0] = rows.labels[5]
    assert 5 not in set(holder(run).order(run, 0))


@pytest.mark.parametrize("kind", ["wrong_label", "random_tokens"])
def test_one_record_more_makes_no_other_row_a_canary(tmp_path: Path, kind: Any) -> None:
    run = private_run(tmp_path, [choice()])
    run.journal = Journal(budget=PrivacyBudget(rows=1000))
    canaries, whole = PrivacyCanaries(kind=kind, canaries=100), tiny_text_rows(1300)

    def planted(numbers: npt.NDArray[np.int64]) -> Counter[tuple[str, int, str]]:
        made = canaries.training_records(run, whole.take(numbers).loaded())
        return Counter(zip(made.ids.tolist(), made.labels.tolist(), map(str, made.payloads), strict=True))

    everybody = planted(np.arange(1300))
    assert 40 < len(run.state("privacy_canaries")["coins"]) < 220
    for gone in range(0, 1300, 100):
        others = planted(np.delete(np.arange(1300), gone))
        assert not others - everybody
        assert (everybody - others).total() <= 1


# Who draws is found out.


class _Draws(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Leave some out by no function of dropout."""
        return x * (torch.rand(x.shape) > 0.1)


class _Mixes(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Say of each example what all say."""
        return x - x.mean(0, keepdim=True) + x.abs().sum() / 10


class _Remembers(nn.Module):
    longest = 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Say what was longest so far."""
        self.longest = max(self.longest, float(len(x)))
        return x + self.longest * torch.arange(x.shape[-1])


@pytest.mark.parametrize(
    ("module", "code"),
    [(_Draws, "draws_in_the_model"), (_Mixes, "mixes_examples"), (_Remembers, "mixes_examples")],
)
@pytest.mark.parametrize("instruction", [choice(), CLIENTS], ids=["37", "40"])
def test_a_model_that_draws_or_mixes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: type[nn.Module], code: str, instruction: dict[str, Any]
) -> None:
    rows = replace(tiny_text_rows(300), groups=np.array([f"client-{i % 60:02d}" for i in range(300)]))
    run = tiny_run(tmp_path, [instruction], rows, batch_size=32)
    build = run.task.build

    def odd() -> Any:
        model: Any = build()
        model.bert.pooler.activation = module()
        return model

    monkeypatch.setattr(run.task, "build", odd)
    with pytest.raises(InvalidPlan) as caught:
        begin(run, None)
    assert [fault.code for fault in caught.value.faults] == [code]


@pytest.mark.parametrize("instruction", [choice(), CLIENTS], ids=["37", "40"])
def test_a_draw_in_training_stops_the_run_before_its_sum_is_told(tmp_path: Path, instruction: dict[str, Any]) -> None:
    rows = replace(tiny_text_rows(300), groups=np.array([f"client-{i % 60:02d}" for i in range(300)]))
    run = begun(tiny_run(tmp_path, [instruction], rows, batch_size=32))
    head: Any = run.model.classifier
    head.register_forward_hook(lambda _module, _given, output: output + torch.rand(1))
    with pytest.raises(InvalidPlan, match="draws random numbers"):
        total(run, [[0, 1, 2]])


def test_every_probability_to_drop_is_zero_and_nothing_else_changes() -> None:
    model: Any = nn.ModuleDict({"lstm": nn.LSTM(2, 2, 2, dropout=0.3), "attention": nn.MultiheadAttention(4, 2, 0.2)})
    model["deep"] = nn.Sequential(nn.Dropout(0.1), nn.AlphaDropout(0.1), nn.Dropout2d(0.1))
    config = llama_config(attention_dropout=0.2)
    vars(model)["config"] = config
    width = config.hidden_size
    draw_nothing(model)
    assert (model["lstm"].dropout, model["attention"].dropout, config.attention_dropout) == (0.0, 0.0, 0.0)
    assert [one.p for one in model["deep"]] == [0.0, 0.0, 0.0]
    assert config.hidden_size == width
    model.train()
    with drawing_nothing(nn.Linear(1, 1)):
        model["lstm"](torch.ones(3, 1, 2))
        model["attention"](*[torch.ones(3, 1, 4)] * 3)
        model["deep"](torch.ones(1, 2, 3, 4))


def test_conversations_are_looked_at_too(tmp_path: Path) -> None:
    run = tiny_lm_run(tmp_path, [LORA, choice()], tiny_chat_rows(40), max_length=64, batch_size=32)
    begin(run, None)
    was_training = run.model.training
    check_apart(run, run.model)
    assert run.model.training is was_training


@pytest.mark.parametrize("private", [37, 40])
def test_adapters_that_draw_or_whose_gradients_are_not_known_are_refused_beside_privacy(private: int) -> None:
    def faults(dropout: float, *others: Any, variant: str = "lora") -> list[str]:
        chosen = [{"number": 19, "dropout": dropout, "variant": variant}, *others]
        body = {"task": "text_classification", "dataset": "none", "instructions": chosen}
        try:
            Plan.of(Spec.model_validate(body), {"pretrained"})
        except InvalidPlan as refused:
            return [f"{fault.pointer} {fault.code}" for fault in refused.faults]
        return []

    assert faults(0.1, private) == ["/instructions/0/dropout private_dropout"]
    assert faults(0.0, private) == faults(0.1) == faults(0.0, variant="dora") == []
    of_examples = ["/instructions/0/variant no_own_gradients"] if private == 37 else []  # 40 clips those of clients
    assert faults(0.0, private, variant="dora") == of_examples


# 26: the weights of a forward pass are those of now.


def test_what_learns_is_read_as_it_stands_and_what_is_frozen_from_its_copy(tmp_path: Path) -> None:
    run = begun(private_run(tmp_path, [{"number": 26}, choice(scope="head")]))
    linear = {name: one for name, one in run.model.named_modules() if type(one) is nn.Linear}
    seen: dict[str, torch.dtype] = {}
    for name, one in linear.items():
        one.register_forward_pre_hook(lambda module, _, name=name: seen.update({name: module.weight.dtype}))
    for _ in range(2):
        total(run, [[0, 1, 2]])
    assert {name for name, dtype in seen.items() if dtype == torch.float32} == {"classifier"}
    assert len(seen) == len(linear) > 1


def _without_noise(sums: Sequence[torch.Tensor], bound: float, sigma: float, divisor: float, normal: Any) -> None:
    for one in sums:
        one.div_(divisor)


def test_a_private_run_in_bf16_learns_as_one_in_fp32(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Terms, "spent_by", lambda *_: 0.0)  # which takes longer than the training
    monkeypatch.setattr("engine.releases.privatise", _without_noise)  # no seed makes noise repeat itself
    right = {}
    for number, cast in enumerate(([], [26])):
        private = choice(scope="lora", steps=30, expected_batch=60, max_grad_norm=1.0)
        chosen = [*cast, {"number": 19, "rank": 4}, private]
        run = text_run(tmp_path / str(number), chosen, count=200, batch_size=32, learning_rate=2e-2)
        trained(run, tmp_path / f"run-{number}")
        answers = eager_answers(run.task, run.model, run.data.examples["train"])
        right[number] = float((answers.argmax(1) == run.data.train.labels).mean())
    assert right[0] > 0.75
    assert right[1] > right[0] - 0.1
