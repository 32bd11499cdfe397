import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.task_modules import MaxIoUAssigner, PointAssigner
from mmengine.structures import InstanceData

from mmdet_consistent import SecondPassAssigner
from mmdet_consistent.task_modules import rule_of
from tests.support.builders import instances
from tests.support.strategies import boxes as boxes_of_sides

BOX = boxes_of_sides(1, 50, corner=60)
BOXES = st.lists(BOX, max_size=12)


@settings(max_examples=150, deadline=None)
@given(
    priors=st.lists(BOX, min_size=1, max_size=30),
    gts=BOXES,
    ignores=st.lists(BOX, max_size=3),
    iof=st.sampled_from([-1, 0.4]),
    wrt=st.booleans(),
)
def test_assign_equals_mmdet_without_low_quality_matches(
    priors, gts, ignores, iof, wrt
):
    rule = dict(
        pos_iou_thr=0.6, neg_iou_thr=0.5, ignore_iof_thr=iof, ignore_wrt_candidates=wrt
    )
    pred = InstanceData(priors=torch.tensor(priors, dtype=torch.float32))
    truth = instances(gts, list(range(len(gts))))
    ignored = instances(ignores, [0] * len(ignores))
    ours = SecondPassAssigner(**rule).assign(pred, truth, ignored)
    theirs = MaxIoUAssigner(**rule, match_low_quality=False).assign(
        pred, truth, ignored
    )
    assert ours.num_gts == theirs.num_gts
    assert torch.equal(ours.gt_inds, theirs.gt_inds)
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.max_overlaps, theirs.max_overlaps)


def test_ignore_rule_is_inherited_unless_given():
    base = MaxIoUAssigner(0.5, 0.4, ignore_iof_thr=0.7, ignore_wrt_candidates=False)
    assigner = SecondPassAssigner(ignore_iof_thr=0.2)
    assigner.inherit_ignore_rule(base)
    assert assigner.ignore_iof_thr == 0.2
    assert assigner.ignore_wrt_candidates is False


def test_ignore_rule_works_without_regions():
    pred = InstanceData(priors=torch.tensor([[0.0, 0, 9, 9], [40, 40, 60, 60]]))
    truth = instances([[0, 0, 9, 10]], [3])
    result = SecondPassAssigner(ignore_iof_thr=0.4).assign(pred, truth)
    assert result.gt_inds.tolist() == [1, 0]
    assert result.labels.tolist() == [3, -1]


def test_base_assigner_without_ignore_rule_leaves_none():
    assigner = SecondPassAssigner()
    assigner.inherit_ignore_rule(PointAssigner())
    assert assigner.rule.ignore_iof_thr <= 0


def test_subclass_with_own_assign_is_called():
    class Own(SecondPassAssigner):
        def assign(self, *args, **kwargs):
            raise NotImplementedError

    class Same(SecondPassAssigner):
        pass

    assert rule_of(Own()) is None
    assert rule_of(Same(0.7)) == SecondPassAssigner(0.7).rule


@pytest.mark.parametrize(
    ('options', 'word'),
    [
        (dict(pos_iou_thr=0.4, neg_iou_thr=0.5), '0.4'),
        (dict(pos_iou_thr=1.2), '1.2'),
        (dict(pos_iou_thr=float('nan')), 'nan'),
        (dict(pos_iou_thr='0.6'), "pos_iou_thr must be a number, got '0.6'"),
        (dict(neg_iou_thr=(0.1, 0.4)), 'neg_iou_thr must be a number'),
        (dict(ignore_iof_thr='x'), "ignore_iof_thr must be a number, got 'x'"),
        (dict(ignore_wrt_candidates='no'), "ignore_wrt_candidates.*'no'"),
    ],
)
def test_invalid_options_are_refused(options, word):
    with pytest.raises(ValueError, match=word):
        SecondPassAssigner(**options)
