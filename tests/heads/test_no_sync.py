"""Training must not make the host wait for a GPU.

There may be no GPU here, so the head is told not to select rows, as on one, and
every operation that would have to bring a value to the host is noted.
"""

import pytest
import torch

from tests.support.builders import (
    as_scalars,
    build_head,
    features,
    ground_truth,
    metas,
    total_loss,
)
from tests.support.ssd_builders import build_ssd_head, ssd_features
from tests.support.waits import Waits

HEADS = {
    'retina': (build_head, features, {}),
    'retina_3_2': (build_head, features, dict(label_stages=3)),
    'retina_cascade': (build_head, features, dict(variant='cascade')),
    'ssd': (build_ssd_head, ssd_features, {}),
}


@pytest.mark.parametrize('name', HEADS)
def test_training_step_without_row_selection_waits_for_nothing(name):
    build, inputs, options = HEADS[name]
    head = build(**options)
    head.select_rows = False
    outputs = head(inputs())
    with Waits() as waits:
        losses = as_scalars(head.loss_by_feat(*outputs, ground_truth(), metas()))
        total_loss(losses).backward()
    assert waits.found == []


def test_waits_notes_operations_that_read_values():
    with Waits() as waits:
        torch.ones(3).nonzero()
        torch.ones(3)[torch.ones(3).bool()]
        torch.ones(3).sum().item()
    assert len(waits.found) >= 3


@pytest.mark.parametrize('name', HEADS)
def test_losses_and_gradients_do_not_depend_on_row_selection(name):
    build, inputs, options = HEADS[name]
    results = []
    for select_rows in (True, False):
        head = build(**options)
        head.select_rows = select_rows
        results.append(train_once(head, inputs()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def train_once(head, inputs):
    losses = as_scalars(head.loss_by_feat(*head(inputs), ground_truth(), metas()))
    total_loss(losses).backward()
    losses = {key: value.detach() for key, value in losses.items()}
    return losses, {name: p.grad for name, p in head.named_parameters()}
