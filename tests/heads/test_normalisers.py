"""What each loss is divided by, on one process and on several.

The other process is made up here; tests/heads/test_distributed.py has real ones.
"""

import copy

import pytest
import torch
from mmdet.models.dense_heads import atss_head

from mmdet_consistent.heads import first_stage
from tests.support.builders import SAMPLING, build_head, losses_of
from tests.support.other_heads import build_consistent

KEYS = ('loss_bbox', 'loss_bbox_s1', 'loss_cls', 'loss_cls_s1')


def losses_beside(monkeypatch, head, others):
    """The losses beside a process with these normalisers, and the own ones sent."""
    received = []

    def mean(own):
        received.append(own)
        return (own + torch.tensor(others[: len(own)])) / 2

    monkeypatch.setattr(first_stage, 'get_world_size', lambda: 2)
    monkeypatch.setattr(first_stage, 'reduce_mean', mean)
    return losses_of(head), received


@pytest.mark.parametrize('options', [{}, SAMPLING], ids=['fused', 'base head'])
def test_normalisers_stay_local_by_default(options, monkeypatch):
    head = build_head(**options)
    torch.manual_seed(0)
    alone = losses_of(copy.deepcopy(head))
    torch.manual_seed(0)
    beside, received = losses_beside(monkeypatch, head, [1001.0] * 4)
    assert received == []
    assert all(torch.equal(beside[key], alone[key]) for key in alone)


def test_sync_normalizer_averages_all_normalisers_in_one_exchange(monkeypatch):
    head = build_head(cls_normalizer='stage', sync_normalizer=True)
    alone = losses_of(head)
    others = [1001.0, 2002.0, 3003.0, 4004.0]
    shared, [own] = losses_beside(monkeypatch, head, others)
    assert own.dtype == torch.float32
    # An image without positives counts as one.
    assert own.tolist() == [float(alone[k]) + 1 for k in ('num_pos', 'num_pos_s1')] * 2
    for key, mine, other in zip(KEYS, own, others):
        expected = alone[key] * mine / ((mine + other) / 2)
        torch.testing.assert_close(shared[key], expected, msg=key)


def test_sync_normalizer_averages_the_first_normaliser_for_all_labels(monkeypatch):
    head = build_head(cls_normalizer='first', sync_normalizer=True)
    alone = losses_of(head)
    others = [1001.0, 2002.0, 1001.0, 2002.0]
    shared, [own] = losses_beside(monkeypatch, head, others)
    for key, place in zip(KEYS, (0, 1, 0, 0)):
        expected = alone[key] * own[place] / ((own[place] + others[place]) / 2)
        torch.testing.assert_close(shared[key], expected, msg=key)


def test_sync_normalizer_averages_the_base_heads_normaliser(monkeypatch):
    # The base head computes stage 0.
    options = dict(SAMPLING, cls_normalizer='stage', sync_normalizer=True)
    head = build_head(**options)
    torch.manual_seed(0)
    alone = losses_of(copy.deepcopy(head))
    torch.manual_seed(0)
    shared, received = losses_beside(monkeypatch, head, [500.0, 700.0])
    [first], [own, own_again] = received
    assert own == own_again
    for key, mine, other in (
        ('loss_cls', first, 500.0),
        ('loss_bbox', first, 500.0),
        ('loss_bbox_s1', own, 500.0),
        ('loss_cls_s1', own, 700.0),
    ):
        expected = alone[key] * mine / ((mine + other) / 2)
        torch.testing.assert_close(shared[key], expected, msg=key)


@pytest.mark.parametrize('mean', [0.0, 1.5])
def test_synced_normaliser_is_never_below_one(monkeypatch, mean):
    head = build_head(cls_normalizer='stage', sync_normalizer=True)
    alone = losses_of(head)
    monkeypatch.setattr(first_stage, 'get_world_size', lambda: 3)
    monkeypatch.setattr(first_stage, 'reduce_mean', lambda own: 0 * own + mean)
    shared = losses_of(head)
    for key in KEYS:
        own = alone['num_pos_s1' if key.endswith('s1') else 'num_pos'] + 1
        expected = alone[key] * own / max(mean, 1)
        torch.testing.assert_close(shared[key], expected, msg=key)


@pytest.mark.parametrize(
    ('name', 'syncs'),
    [
        *[(name, True) for name in ('ATSSHead', 'DDODHead', 'GFLHead', 'YOLOFHead')],
        *[(name, False) for name in ('RPNHead', 'FSAFHead', 'PISARetinaHead')],
        ('PISASSDHead', False),
    ],
)
def test_later_stages_sync_where_the_base_heads_own_loss_does(name, syncs):
    assert build_consistent(name).sync_normalizer is syncs


def test_synced_mean_is_mmdets_reduce_mean():
    assert first_stage.reduce_mean is atss_head.reduce_mean
