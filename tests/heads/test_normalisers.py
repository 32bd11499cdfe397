"""What each loss is divided by: the mean over the processes, never below 1.

The other process is made up here; tests/heads/test_distributed.py has real ones.
"""

import copy

import pytest
import torch

from mmdet_consistent.heads import consistent_mixin
from tests.heads.helpers import SAMPLING, build_head, losses_of


def with_another(monkeypatch, head, other):
    """The losses beside a process with these normalisers, and what it was told."""
    told = []

    def mean(own):
        told.append(own)
        return (own + torch.tensor(other[: len(own)])) / 2

    monkeypatch.setattr(consistent_mixin, 'get_world_size', lambda: 2)
    monkeypatch.setattr(consistent_mixin, 'reduce_mean', mean)
    return losses_of(head), told


KEYS = ('loss_bbox', 'loss_bbox_s1', 'loss_cls', 'loss_cls_s1')


def test_normalisers_are_averaged_over_the_processes(monkeypatch):
    head = build_head()
    alone = losses_of(head)
    other = [1001.0, 2002.0, 3003.0, 4004.0]
    shared, [own] = with_another(monkeypatch, head, other)
    assert own.dtype == torch.float32
    assert own.shape == (4,)
    # An image without positives counts as one.
    assert own.tolist() == [float(alone[k]) + 1 for k in ('num_pos', 'num_pos_s1')] * 2
    for key, mine, others in zip(KEYS, own, other):
        expected = alone[key] * mine / ((mine + others) / 2)
        torch.testing.assert_close(shared[key], expected, msg=key)


def test_one_normaliser_for_all_labels(monkeypatch):
    head = build_head(cls_normalizer='first')
    alone = losses_of(head)
    shared, [own] = with_another(monkeypatch, head, [1001.0, 2002.0, 1001.0, 2002.0])
    for key, place in zip(KEYS, (0, 1, 0, 0)):
        others = (1001.0, 2002.0)[place]
        expected = alone[key] * own[place] / ((own[place] + others) / 2)
        torch.testing.assert_close(shared[key], expected, msg=key)


def test_the_base_heads_normaliser_is_averaged_too(monkeypatch):
    head = build_head(**SAMPLING)  # so stage 0 is the base head's
    torch.manual_seed(0)
    alone = losses_of(copy.deepcopy(head))
    torch.manual_seed(0)
    shared, told = with_another(monkeypatch, head, [500.0, 700.0])
    [first], [own, own_again] = told
    assert own == own_again
    for key, mine, others in (
        ('loss_cls', first, 500.0),
        ('loss_bbox', first, 500.0),
        ('loss_bbox_s1', own, 500.0),
        ('loss_cls_s1', own, 700.0),
    ):
        expected = alone[key] * mine / ((mine + others) / 2)
        torch.testing.assert_close(shared[key], expected, msg=key)


@pytest.mark.parametrize('mean', [0.0, 1.5])
def test_a_normaliser_is_never_below_one(monkeypatch, mean):
    head = build_head()
    alone = losses_of(head)
    monkeypatch.setattr(consistent_mixin, 'get_world_size', lambda: 3)
    monkeypatch.setattr(consistent_mixin, 'reduce_mean', lambda own: 0 * own + mean)
    shared = losses_of(head)
    for key in KEYS:
        own = alone['num_pos_s1' if key.endswith('s1') else 'num_pos'] + 1
        expected = alone[key] * own / max(mean, 1)
        torch.testing.assert_close(shared[key], expected, msg=key)
