"""Instruction 40: a linear head on frozen sentence embeddings trained on clients; noise of ours and the article's."""

from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.article.embedded import Texts, texts_of
from benchmarks.article.section import Figures, Section
from engine import accounting
from engine.federated import clipped
from engine.noise import drawn, privatise, source
from engine.terms import Terms, terms_of

_ROWS, _TEST_ROWS = 2000, 500
_CLIENTS = (1000, 100)
_RATE, _BOUND, _ROUNDS, _LOCAL_STEPS, _LOCAL_RATE = 0.2, 0.5, 30, 3, 1.0
Way: TypeAlias = Literal["no noise", "article"] | float

_WAYS: dict[str, Way] = {
    "no noise, no guarantee": "no noise",
    "the article's, said to be epsilon 1": "article",
    "ours, epsilon 8": 8.0,
    "ours, epsilon 1": 1.0,
}


def aggregating(seed: int, quick: bool) -> Figures:
    """Accuracy with many clients and with few that hold the same rows between them."""
    data = texts_of("sst2", "train", 200 if quick else _ROWS)
    test = texts_of("sst2", "test", 50 if quick else _TEST_ROWS)
    found: dict[str, dict[str, float | None]] = {}
    for name, way in _WAYS.items():
        found[name] = {}
        for clients in (100, 20) if quick else _CLIENTS:
            head = _trained(data, clients, way, seed, rounds=2 if quick else _ROUNDS)
            said = (_with_one(torch.from_numpy(test.embedded)) @ head.T).argmax(dim=1).numpy()
            found[name][f"accuracy, {clients:,} clients"] = float((said == test.labels).mean())
        spent = None
        if isinstance(way, float):
            terms = _terms(_CLIENTS[0], way)
            spent = accounting.epsilon([terms.plan], terms.delta)
        found[name][f"epsilon by the account, {_CLIENTS[0]:,} clients"] = spent
    return found


@cache
def _terms(clients: int, epsilon: float) -> Terms:
    expected = round(_RATE * clients)
    return terms_of(clients, expected, _RATE, _ROUNDS, epsilon=epsilon, noise_multiplier=None, delta=None, at="")


def _trained(data: Texts, clients: int, way: Way, seed: int, rounds: int) -> Tensor:
    """The head, (2, 385), after some rounds; the seed deals the rows, and noise of ours comes from the system."""
    dealt = np.random.default_rng(seed).permutation(len(data.labels))
    per_client = len(dealt) // clients
    dealt = dealt[: clients * per_client].reshape(clients, per_client)
    shown, labels = _with_one(torch.from_numpy(data.embedded[dealt])), torch.from_numpy(data.labels[dealt])
    head = torch.zeros(2, shown.shape[-1])
    torch.manual_seed(seed)  # of the article's noise and draws
    for _ in range(rounds):
        present = torch.from_numpy(drawn(clients, _RATE))
        if len(present):
            updates = _updates(head, shown[present], labels[present])
            head = head - (_article_mean(updates) if way == "article" else _our_mean(updates, clients, way))
    return head


def _updates(head: Tensor, shown: Tensor, labels: Tensor) -> Tensor:
    """What each client moves by plain steps on its own rows, (clients, 2, width)."""
    own = head.expand(len(shown), *head.shape).clone()
    target = F.one_hot(labels, 2).float()
    for _ in range(_LOCAL_STEPS):
        off = torch.softmax(shown @ own.transpose(1, 2), dim=2) - target
        own -= _LOCAL_RATE * off.transpose(1, 2) @ shown / shown.shape[1]
    return head - own


def _our_mean(updates: Tensor, clients: int, way: Way) -> Tensor:
    """Each clipped, summed, noised once, over a fixed count."""
    total, expected = torch.zeros_like(updates[0]), _RATE * clients
    for one in updates:
        total += clipped([one], _BOUND)[0]
    if not isinstance(way, float):
        return total / expected
    privatise([total], _BOUND, _terms(clients, way).sigma, expected, source("os"))
    return total


def _article_mean(updates: Tensor, epsilon: float = 1.0) -> Tensor:
    """Noise for each client, as large as the largest norm that came, over the number present."""
    scale = updates.flatten(1).norm(dim=1).max() / epsilon
    mean: Tensor = (updates + torch.randn_like(updates) * scale).mean(dim=0)
    return mean


def _with_one(shown: Tensor) -> Tensor:
    return torch.cat([shown, torch.ones(*shown.shape[:-1], 1)], dim=-1)


SECTIONS = (
    Section(
        40,
        "Differentially private aggregation of clients' updates",
        "adds noise to each client's gradients before averaging them, and claims a loss of 3.7 % at epsilon 1.",
        (
            "The comment says Laplace, the code draws Gaussian noise; Laplace noise would need a bound in L1, and the"
            " code takes norms in L2.",
            "The sensitivity is the largest norm that came: it is read off the private data, and the scale of the noise"
            " then tells it. No finite epsilon holds.",
            "Nothing is clipped, so no bound exists, and one client can move the mean anywhere.",
            "Noise is added to each client and then averaged: far more noise for the same purpose than one draw on the"
            " sum.",
            "`delta` is an argument that nothing uses, and S / epsilon is not the scale of a Gaussian mechanism.",
            "Rounds are not composed: thirty rounds of a true epsilon of 1 make 37.6.",
            "It divides by the number present, which is private too; an empty list fails, and one NaN spoils all.",
            "The generator is seeded and global: whoever knows the seed subtracts the noise.",
            "That it meets the GDPR follows from no epsilon.",
        ),
        "clips each update as one vector, adds Gaussian noise once to the sum, divides by the expected count, and"
        " composes all rounds in an account; draws and noise come from the operating system.",
        f"{_ROWS:,} rows of sst2 dealt to clients, a linear head on frozen MiniLM, {_ROUNDS} rounds at rate {_RATE:g},"
        f" {_LOCAL_STEPS} local steps, clipping at {_BOUND:g}, {_TEST_ROWS} test rows. Noise of ours cannot be seeded:"
        " the seeds deal the rows. At this rate 100 clients are the fewest that a job accepts.",
        "The article's row has no guarantee at all, so its accuracy is no competitor's. A thousand clients of two rows"
        " each leave the head undertrained after so few rounds, with noise or without it: intervals that overlap show"
        " no cost of privacy there. Longer runs were not measured here.",
        aggregating,
    ),
)
