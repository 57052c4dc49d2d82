"""The loop that somebody would write by hand: no plan, no hooks, no events. What the engine's loop is held against."""

from collections.abc import Sequence

import torch
from torch import nn

from engine.dropout import cheap_draws
from engine.optimizer import decay_groups
from engine.ports import device_of
from engine.run import Run

WEIGHT_DECAY = 0.01
WARM_SHARE = 0.06


def train_by_hand(run: Run, model: nn.Module, batches: Sequence[Sequence[int]], learning_rate: float) -> None:
    """The arithmetic of an empty plan: its dropout, fused AdamW, linear rate, loss and gradient norm of each step."""
    examples, labels = run.data.examples["train"], run.data.train.labels
    optimizer = torch.optim.AdamW(decay_groups(model, WEIGHT_DECAY), lr=learning_rate, fused=True)
    warm = max(1, round(WARM_SHARE * len(batches)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, (len(batches) - step) / max(1, len(batches) - warm))
    )
    model.train()
    for rows in batches:
        batch = run.task.collate([examples[i] for i in rows], [int(labels[i]) for i in rows])
        optimizer.zero_grad(set_to_none=True)
        with cheap_draws(device_of(model)):
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        loss = nn.functional.cross_entropy(logits, batch["labels"])
        loss.backward()
        norm = torch.nn.utils.get_total_norm([one.grad for one in model.parameters() if one.grad is not None])
        optimizer.step()
        schedule.step()
        loss.item(), norm.item()
