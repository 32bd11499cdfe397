"""Training must not make the host wait for a GPU.

There may be no GPU here, so the head is told that its tensors are on one, and
every operation that would have to bring a value to the host is noted.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmdet_consistent.heads import consistent_mixin
from mmdet_consistent.losses import focal, softmax
from mmdet_consistent.task_modules import max_iou
from tests.heads.helpers import as_scalars, build_head, features, ground_truth, metas
from tests.heads.ssd_helpers import build_ssd_head, ssd_features

aten = torch.ops.aten
MODULES = (consistent_mixin, focal, softmax, max_iou)
WAITS = {
    aten.nonzero.default,
    aten._local_scalar_dense.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.unique_dim.default,
    aten._unique2.default,
}


class Waits(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func.overloadpacket in (aten.index, aten.index_put, aten.index_put_)
        if by_mask:
            indices = args[1]
            by_mask = any(i is not None and i.dtype == torch.bool for i in indices)
        if func in WAITS or by_mask:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    for module in MODULES:
        monkeypatch.setattr(module, 'is_on_cpu', lambda _: False)


HEADS = {
    'retina': (build_head, features, {}),
    'retina_3_2': (build_head, features, dict(label_stages=3)),
    'retina_cascade': (build_head, features, dict(variant='cascade')),
    'ssd': (build_ssd_head, ssd_features, {}),
}


@pytest.mark.parametrize('name', HEADS)
def test_a_training_step_waits_for_nothing(name, as_on_a_gpu):
    build, inputs, options = HEADS[name]
    head = build(**options)
    outputs = head(inputs())
    with Waits() as waits:
        losses = as_scalars(head.loss_by_feat(*outputs, ground_truth(), metas()))
        sum(v.sum() for k, v in losses.items() if 'loss' in k).backward()
    assert waits.found == []


def test_the_watch_sees_a_wait():
    with Waits() as waits:
        torch.ones(3).nonzero()
        torch.ones(3)[torch.ones(3).bool()]
        torch.ones(3).sum().item()
    assert len(waits.found) >= 3


@pytest.mark.parametrize('name', HEADS)
def test_the_gpus_way_gives_the_same(name, as_on_a_gpu):
    build, inputs, options = HEADS[name]
    results = []
    for on_gpu in (True, False):
        if not on_gpu:
            with pytest.MonkeyPatch.context() as patch:
                for module in MODULES:
                    patch.setattr(module, 'is_on_cpu', lambda _: True)
                results.append(train_once(build(**options), inputs()))
        else:
            results.append(train_once(build(**options), inputs()))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


def train_once(head, inputs):
    losses = as_scalars(head.loss_by_feat(*head(inputs), ground_truth(), metas()))
    sum(v.sum() for k, v in losses.items() if 'loss' in k).backward()
    losses = {key: value.detach() for key, value in losses.items()}
    return losses, {name: p.grad for name, p in head.named_parameters()}
