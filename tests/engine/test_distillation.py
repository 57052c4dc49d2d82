"""The soft loss of tokens against the logits of whole sequences, whichever stretches it is made in."""

import pytest
import torch
from torch import Tensor, nn

from engine.distillation import overheard, soft_losses, soft_token_losses
from engine.token_loss import IGNORED

WORDS = 11


@pytest.fixture
def sides() -> tuple[tuple[nn.Module, Tensor], tuple[nn.Module, Tensor]]:
    """Output layers and states (3, 9, width) of a student and of a teacher who is wider."""
    torch.manual_seed(0)
    mine, its = nn.Linear(6, WORDS, bias=False), nn.Linear(8, WORDS, bias=False)
    return (mine, torch.randn(3, 9, 6, requires_grad=True)), (its, torch.randn(3, 9, 8))


def labels() -> Tensor:
    found = torch.randint(0, WORDS, (3, 9), generator=torch.Generator().manual_seed(1))
    found[0, 5:] = IGNORED
    found[2, 3] = IGNORED
    return found


@pytest.mark.parametrize("logit_bytes", [1 << 20, 8 * WORDS * 3 * 2, 1])
def test_each_token_is_judged_from_its_predecessors_alone(
    sides: tuple[tuple[nn.Module, Tensor], tuple[nn.Module, Tensor]], logit_bytes: int
) -> None:
    student, teacher = sides
    targets = labels()
    found = soft_token_losses(student, teacher, targets, WORDS, 2.0, logit_bytes)
    assert found.shape == (3, 8)
    for row in range(3):
        for place in range(8):
            said = student[0](student[1][row, place]).detach()
            taught = teacher[0](teacher[1][row, place]).detach()
            expected = float(soft_losses(said, taught, 2.0)) if targets[row, place + 1] != IGNORED else 0.0
            assert float(found[row, place].detach()) == pytest.approx(expected, abs=1e-5)
    found.sum().backward()
    assert student[1].grad is not None
    assert student[1].grad[0, 4:].abs().max() == 0  # what stands before no target
    assert student[1].grad[1, :8].abs().min() > 0
    assert teacher[0].weight.grad is None, "a teacher does not learn"


def test_gradients_do_not_depend_on_the_stretches(
    sides: tuple[tuple[nn.Module, Tensor], tuple[nn.Module, Tensor]],
) -> None:
    student, teacher = sides
    found: list[Tensor] = []
    for logit_bytes in (1 << 20, 1):
        student[1].grad = None
        soft_token_losses(student, teacher, labels(), WORDS, 3.0, logit_bytes).sum().backward()
        assert student[1].grad is not None
        found.append(student[1].grad.clone())
    assert torch.allclose(found[0], found[1], atol=1e-6)


def test_states_are_overheard_for_a_while() -> None:
    class Said:
        last_hidden_state = torch.ones(2)

    class Decoder(nn.Module):
        def forward(self) -> Said:
            return Said()

    decoder: nn.Module = Decoder()
    notes: dict[str, object] = {}
    with overheard(decoder, notes):
        decoder()
        assert notes["states"] is Said.last_hidden_state
    assert notes == {}
    decoder()
    assert notes == {}
