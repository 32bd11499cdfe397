"""All that training makes is where its inputs are.

The meta device stands in for a GPU: what is made on the CPU by mistake does not go
with its tensors, and whatever needs a number of theirs on the host fails.
"""

import contextlib

import pytest
import torch

from tests.support.builders import (
    HEAD,
    as_scalars,
    build_head,
    features,
    ground_truth,
    instances,
    metas,
    total_loss,
)
from tests.support.ssd_builders import HEAD as SSD_HEAD
from tests.support.ssd_builders import build_ssd_head, ssd_features


def with_ignore_rule(head, **options):
    assigner = dict(head['train_cfg']['assigner'], ignore_iof_thr=0.5, **options)
    return dict(train_cfg=dict(assigner=assigner))


HEADS = {
    'retina': (build_head, features, {}),
    'three label stages': (build_head, features, dict(label_stages=3)),
    'gated cascade': (build_head, features, dict(variant='gated_cascade')),
    'ignore rule': (build_head, features, with_ignore_rule(HEAD)),
    'ssd': (build_ssd_head, ssd_features, {}),
    'ssd cascade': (build_ssd_head, ssd_features, dict(variant='cascade')),
    'ssd, ignore rule': (
        build_ssd_head,
        ssd_features,
        with_ignore_rule(SSD_HEAD, ignore_wrt_candidates=False),
    ),
}


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('name', HEADS)
def test_training_step_creates_tensors_on_the_inputs_device(name, layout, monkeypatch):
    # Autocast knows no meta device.
    monkeypatch.setattr(torch, 'autocast', lambda *_, **__: contextlib.nullcontext())
    build, inputs, options = HEADS[name]
    head = build(**options).to('meta')
    gts = [gt.to('meta') for gt in ground_truth()]
    ignored = [instances(boxes, [0] * len(boxes)) for boxes in ([[0, 0, 9, 9]], [])]
    levels = [x.to('meta', memory_format=layout) for x in inputs()]
    outputs = head(levels)
    losses = as_scalars(
        head.loss_by_feat(*outputs, gts, metas(), [i.to('meta') for i in ignored])
    )
    total_loss(losses).backward()
    made = [*losses.values(), *(p.grad for p in head.parameters())]
    assert {tensor.device.type for tensor in made} == {'meta'}
