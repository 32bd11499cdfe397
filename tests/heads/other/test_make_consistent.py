"""Consistent versions of a user's own head, and refusals."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
from mmdet.models.dense_heads import (
    ATSSHead,
    GFLHead,
    RetinaHead,
    SSDHead,
    YOLACTHead,
)
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.registry import MODELS
from torch import nn

from mmdet_consistent import ConsistentRetinaHead, ConsistentSSDHead, make_consistent
from mmdet_consistent.heads.other.generic import GenericStages
from mmdet_consistent.heads.other.gfl import DistributionStages
from mmdet_consistent.heads.other.yolact import YOLACTStages
from mmdet_consistent.heads.ssd_head import SSDStages
from tests.support.builders import build_head, features, ground_truth, losses_of, metas
from tests.support.own_head import MyHead


def test_later_stages_of_an_own_head_equal_conretinanets():
    made = make_consistent(MyHead, ('my_deltas',))
    MODELS.register_module(module=made, force=True)
    ours = build_head('ConsistentMyHead', seed=1)
    theirs = build_head('ConsistentRetinaHead', seed=1)
    state = {
        name.replace('my_deltas', 'retina_reg'): value
        for name, value in ours.state_dict().items()
    }
    theirs.load_state_dict(state)
    values = [
        head.loss_by_feat(*head(features()), ground_truth(), metas())
        for head in (ours, theirs)
    ]
    for name in ('loss_cls_s1', 'loss_bbox_s1', 'num_pos_s1', 'num_pos'):
        torch.testing.assert_close(values[0][name], values[1][name])


def test_a_loss_without_a_reduction_trains_later_stages():
    @MODELS.register_module(force=True)
    class Bare(nn.Module):
        use_sigmoid = True

        def forward(self, pred, target, weight, avg_factor):
            return (pred.sum() - 1) * weight.sum() / avg_factor

    loss = dict(loss_cls=dict(type='Bare'))
    MODELS.register_module(module=make_consistent(MyHead, ('my_deltas',)), force=True)
    head = build_head('ConsistentMyHead', **loss)
    losses = losses_of(head)
    MODELS.module_dict.pop('Bare')
    assert losses['loss_cls_s1'].isfinite()
    assert losses['loss_cls_s1'] != 0


def test_config_of_type_consistent_builds_the_named_head_with_its_arguments():
    MODELS.register_module(module=MyHead, force=True)
    head = build_head('Consistent', head='MyHead', box_outputs=['my_deltas'])
    assert isinstance(head, GenericStages)
    assert isinstance(head, MyHead)
    assert head.my_deltas.later_stages
    words = 'has no convolution named retina_reg or'
    with pytest.raises(ValueError, match=f'ConsistentMyHead {words}'):
        build_head('Consistent', head='MyHead')
    with pytest.raises(ValueError, match="no registered head 'NoHead'"):
        build_head('Consistent', head='NoHead')
    whole = dict(type='RetinaHead', num_classes=7, in_channels=8, feat_channels=8)
    head = MODELS.build(dict(type='Consistent', head=whole, label_stages=3))
    assert type(head) is ConsistentRetinaHead
    assert (head.num_classes, head.label_stages) == (7, 3)
    assert whole['type'] == 'RetinaHead'  # the config is left as it was


def test_make_consistent_returns_the_registered_class_of_a_known_head():
    made = make_consistent(ATSSHead)
    assert made is MODELS.get('ConsistentATSSHead')
    assert make_consistent(RetinaHead) is ConsistentRetinaHead
    assert make_consistent(SSDHead) is ConsistentSSDHead


def test_make_consistent_derives_one_class_from_head_and_family():
    families = (
        (ATSSHead, GenericStages),
        (GFLHead, DistributionStages),
        (SSDHead, SSDStages),
        (YOLACTHead, YOLACTStages),
    )
    for head, family in families:
        own = type('OwnHead', (head,), {})
        made = make_consistent(own)
        assert made is make_consistent(own)
        assert made.__bases__ == (family, own)
        assert made.__name__ == 'ConsistentOwnHead'
    assert make_consistent(ATSSHead, ['a', 'b']).box_outputs == ('a', 'b')


def test_deepcopy_of_a_subclass_of_a_made_class_keeps_the_subclass():
    class Own(make_consistent(MyHead, ('my_deltas',))):
        pass

    MODELS.register_module(module=Own, force=True)
    head = build_head('Own')
    twin = copy.deepcopy(head)
    assert type(twin) is Own
    assert torch.equal(twin.my_deltas.weight, head.my_deltas.weight)


def test_head_of_a_made_class_unpickles_in_a_process_that_has_not_made_it(tmp_path):
    make = make_consistent(MyHead, ('my_deltas',))
    MODELS.register_module(module=make, force=True)
    head = build_head('ConsistentMyHead')
    (tmp_path / 'head.pkl').write_bytes(pickle.dumps(head))
    code = (
        'import pickle, torch\n'
        f'head = pickle.load(open({str(tmp_path / "head.pkl")!r}, "rb"))\n'
        'print(type(head).__name__, float(head.my_deltas.weight.double().sum()))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    name, value = done.stdout.split()[-2:]
    assert name == 'ConsistentMyHead'
    assert float(value) == float(head.my_deltas.weight.double().sum())


def test_make_consistent_refuses_heads_with_a_reason():
    with pytest.raises(ValueError, match='already a consistent head'):
        make_consistent(ConsistentSSDHead)
    with pytest.raises(ValueError, match="not derived from mmdet's AnchorHead"):
        make_consistent(nn.Module)

    class TOODHead(AnchorHead):
        pass

    with pytest.raises(
        ValueError, match='TOODHead has no consistent version: it outputs'
    ):
        make_consistent(TOODHead)
