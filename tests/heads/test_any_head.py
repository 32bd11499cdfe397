import importlib
import pickle
from pathlib import Path

import pytest
import torch
from helpers import build_head, features, ground_truth, metas
from mmdet.models.dense_heads import (
    ATSSHead,
    GFLHead,
    RetinaHead,
    RPNHead,
    SSDHead,
    YOLACTHead,
)
from mmdet.models.dense_heads.anchor_head import AnchorHead
from mmdet.models.task_modules.coders import DistancePointBBoxCoder
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.hub import get_config
from mmengine.structures import InstanceData
from torch import nn

from mmdet_consistent import ConsistentRetinaHead, ConsistentSSDHead, make_consistent
from mmdet_consistent.heads import ConsistentMixin
from mmdet_consistent.heads.other import (
    make_consistent as any_head,
)
from mmdet_consistent.heads.other import (
    yolact as mined_stages,
)
from mmdet_consistent.heads.other.generic import AnyStages, _is_output
from mmdet_consistent.heads.other.gfl import AnchorDistanceBBoxCoder, DistributionStages
from mmdet_consistent.heads.other.make_consistent import NAMED, REFUSED
from mmdet_consistent.heads.other.yolact import YOLACTStages
from mmdet_consistent.heads.ssd_head import SSDStages

ROOT = Path(__file__).resolve().parents[2]
OUT_OF_DATE = 'run python -m tools.dev.docs.compatibility'


@pytest.fixture
def tool():
    return importlib.import_module('tools.dev.docs.compatibility')


@pytest.mark.parametrize('name', ['RetinaHead', 'SSDHead', *NAMED])
def test_a_head_of_mmdets_is_itself_with_one_stage_and_trains_with_two(tool, name):
    if name == 'PAAHead':
        pytest.importorskip('sklearn', reason="mmdet's PAAHead needs scikit-learn")
    assert tool.row(name, tool.check(name)) in tool.PAGE.read_text(), OUT_OF_DATE


def test_each_head_of_mmdets_has_a_version_or_a_reason(tool):
    known = {'RetinaHead', 'SSDHead', *NAMED}
    page = tool.PAGE.read_text()
    for name, head in tool.heads().items():
        if name in known:
            assert tool.refusal(head) is None
        else:
            assert f'| `{name}` | {tool.refusal(head)} |' in page, OUT_OF_DATE
    assert set(REFUSED).isdisjoint(known)


class MyHead(RetinaHead):
    """Says nothing of itself, but names its box output as nobody else does."""

    def _init_layers(self):
        super()._init_layers()
        self.my_deltas = self.retina_reg
        del self.retina_reg

    def forward_single(self, x):
        cls, reg = x, x
        for conv in self.cls_convs:
            cls = conv(cls)
        for conv in self.reg_convs:
            reg = conv(reg)
        return self.retina_cls(cls), self.my_deltas(reg)


def test_the_later_stages_are_conretinanets():
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


def test_a_loss_need_not_say_how_it_is_reduced():
    @MODELS.register_module(force=True)
    class Bare(nn.Module):
        use_sigmoid = True

        def forward(self, pred, target, weight, avg_factor):
            return (pred.sum() - 1) * weight.sum() / avg_factor

    loss = dict(loss_cls=dict(type='Bare'))
    MODELS.register_module(module=make_consistent(MyHead, ('my_deltas',)), force=True)
    head = build_head('ConsistentMyHead', **loss)
    losses = head.loss_by_feat(*head(features()), ground_truth(), metas())
    MODELS.module_dict.pop('Bare')
    assert losses['loss_cls_s1'].isfinite()
    assert losses['loss_cls_s1'] != 0


def test_a_config_names_the_head_and_keeps_its_arguments():
    MODELS.register_module(module=MyHead, force=True)
    head = build_head('Consistent', head='MyHead', box_outputs=['my_deltas'])
    assert isinstance(head, AnyStages)
    assert isinstance(head, MyHead)
    assert head.my_deltas.later_stages
    words = 'has no convolution of the name retina_reg or'
    with pytest.raises(ValueError, match=f'ConsistentMyHead {words}'):
        build_head('Consistent', head='MyHead')
    with pytest.raises(ValueError, match="no head of the name 'NoHead'"):
        build_head('Consistent', head='NoHead')
    whole = dict(type='RetinaHead', num_classes=7, in_channels=8, feat_channels=8)
    head = MODELS.build(dict(type='Consistent', head=whole, label_stages=3))
    assert type(head) is ConsistentRetinaHead
    assert (head.num_classes, head.label_stages) == (7, 3)
    assert whole['type'] == 'RetinaHead'  # the config is left as it was


def test_the_classes_are_made_once_and_can_be_pickled():
    made = make_consistent(ATSSHead)
    assert made is make_consistent(ATSSHead) is MODELS.get('ConsistentATSSHead')
    assert pickle.loads(pickle.dumps(made)) is made
    assert make_consistent(RetinaHead) is ConsistentRetinaHead
    assert 'under consistent optimization' in made.__doc__


def test_what_a_class_is_made_of():
    # Classes of this test's own: make_consistent remembers those of others.
    class FreshATSS(ATSSHead):
        pass

    class FreshGFL(GFLHead):
        pass

    class FreshSSD(SSDHead):
        pass

    class FreshYOLACT(YOLACTHead):
        pass

    families = (
        (FreshATSS, AnyStages),
        (FreshGFL, DistributionStages),
        (FreshSSD, SSDStages),
        (FreshYOLACT, YOLACTStages),
    )
    for head, family in families:
        made = make_consistent(head)
        assert made.__bases__ == (family, head)
        assert made.__name__ == f'Consistent{head.__name__}'
        assert made.__module__ == any_head.__name__
        assert getattr(any_head, made.__name__) is made
        assert made.__doc__ == (
            f'{head.__name__} under consistent optimization; see '
            ':class:`ConsistentMixin` for the options.'
        )
    assert make_consistent(FreshATSS).box_outputs == AnyStages.box_outputs
    assert make_consistent(FreshATSS, ('a', 'b')).box_outputs == ('a', 'b')


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match='consistent head already'):
        make_consistent(ConsistentSSDHead)
    with pytest.raises(ValueError, match="isn't derived from mmdet's AnchorHead"):
        make_consistent(nn.Module)

    class TOODHead(AnchorHead):
        pass

    with pytest.raises(ValueError, match='TOODHead has no consistent version: its'):
        make_consistent(TOODHead)


def built(tool, name, **options):
    return tool.build(
        dict(tool.small_config(name), type=f'Consistent{name}'), **options
    )


def test_normalisers_and_weights_that_a_head_does_not_have_are_refused(tool):
    message = "ConsistentATSSHead doesn't say .*; use cls_normalizer='stage'"
    with pytest.raises(ValueError, match=message):
        built(tool, 'ATSSHead', cls_normalizer='first')
    head = built(tool, 'FreeAnchorRetinaHead', stage_loss_weights=(0.5, 1.0))
    name = 'ConsistentFreeAnchorRetinaHead has no classification part'
    with pytest.raises(ValueError, match=name):
        tool.losses_of(head, ground_truth_of(tool))
    message = "ConsistentATSSHead has no such variant; use variant='consistent'"
    with pytest.raises(ValueError, match=message):
        built(tool, 'ATSSHead', variant='cascade')


def ground_truth_of(tool):
    box = torch.tensor([[40.0, 40, 150, 140]])
    return [InstanceData(bboxes=box, labels=torch.tensor([0]))] * 2


@pytest.mark.parametrize(
    ('name', 'labels', 'boxes'),
    [
        ('RPNHead', 'loss_rpn_cls', 'loss_rpn_bbox'),  # lists, one value a level
        ('YOLOFHead', 'loss_cls', 'loss_bbox'),  # tensors
    ],
)
def test_the_first_labels_can_be_weighed(tool, name, labels, boxes):
    gts = ground_truth_of(tool)
    plain = tool.losses_of(built(tool, name), gts)
    half = tool.losses_of(built(tool, name, stage_loss_weights=(0.5, 1)), gts)
    torch.testing.assert_close(half[labels], plain[labels] / 2)
    torch.testing.assert_close(half[boxes], plain[boxes])
    torch.testing.assert_close(half['loss_cls_s1'], plain['loss_cls_s1'])


def test_yolacts_later_labels_have_its_weight(tool, monkeypatch):
    config = dict(tool.small_config('YOLACTHead'), type='ConsistentYOLACTHead')
    loss = dict(type='CrossEntropyLoss', use_sigmoid=False, reduction='none')
    head = tool.build(config, loss_cls=dict(loss, loss_weight=3.0))
    sums = [torch.tensor(4.0), torch.tensor(0.5)]
    monkeypatch.setattr(mined_stages, 'mined_label_losses', lambda *args: sums)
    assert head.label_losses([], {}) == [12.0, 1.5]


def test_what_comes_third_is_the_base_heads(tool, monkeypatch):
    head = built(tool, 'ATSSHead')
    monkeypatch.setattr(
        ConsistentMixin, 'loss_by_feat', lambda self, *args, **options: (args, options)
    )
    one, two, gts = [torch.zeros(1)], (torch.ones(1),), ground_truth_of(tool)
    args, options = head.loss_by_feat(one, one, one, two, gts, [{}], None, more=5)
    assert args == (one, one, gts, [{}], None)
    assert options == dict(other_outputs=(one, two), more=5)
    args, options = head.loss_by_feat(one, one, one)
    assert (args, options) == ((one, one), dict(other_outputs=(one,)))


def test_only_levels_of_tensors_are_outputs():
    tensor = torch.zeros(1)
    assert _is_output([tensor])
    assert _is_output((tensor, tensor))
    for other in ([], (), None, tensor, [InstanceData()], [{}]):
        assert not _is_output(other)


def test_options_of_the_base_reach_it(tool, monkeypatch):
    assert built(tool, 'RPNHead', cls_normalizer='first').cls_normalizer == 'first'
    head = built(tool, 'ATSSHead')
    monkeypatch.setattr(
        ATSSHead, 'get_targets', lambda self, *args, **options: (args, options)
    )
    assert head.get_targets(1, 2, unmap_outputs=False) == (
        (1, 2),
        dict(unmap_outputs=False),
    )


def test_anchors_are_kept_whatever_a_head_does_to_its_lists(tool):
    head = built(tool, 'ATSSHead')  # its get_targets writes into them
    gts = ground_truth_of(tool)
    first, second = tool.losses_of(head, gts), tool.losses_of(head, gts)
    for name, value in first.items():
        assert torch.equal(value, second[name])


def gfl_with_outputs(tool, seed=3):
    """A small GFL head and outputs of which no stage is trivial."""
    head = built(tool, 'GFLHead')
    generator = torch.Generator().manual_seed(seed)
    cls, reg = head(tool.features(head))
    reg = [torch.randn(x.shape, generator=generator) * 0.5 for x in reg]
    return head, cls, reg


def naive_gfl_box(head, anchor, stride, values):
    """Means of four distributions, then one set of deltas: a box, in loops."""
    size = head.reg_max + 1
    sides = []
    for side in range(4):
        logits = values[side * size : side * size + size].double()
        weights = logits.exp() / logits.exp().sum()
        sides.append(sum(i * float(w) for i, w in enumerate(weights)) * stride)
    x, y = (anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2
    first = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
    dx, dy, dw, dh = (float(v) for v in values[4 * size :])
    width, height = first[2] - first[0], first[3] - first[1]
    x = (first[0] + first[2]) / 2 + dx * width
    y = (first[1] + first[3]) / 2 + dy * height
    width, height = width * 2.718281828459045**dw, height * 2.718281828459045**dh
    return first, [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def test_distributions_are_refined_as_in_loops(tool):
    head, cls, reg = gfl_with_outputs(tool)
    anchors = head.prior_generator.grid_priors(tool.sizes(head), device='cpu')
    composed = head.composed_deltas(cls, reg)
    stages = head.split_preds(reg)
    deltas = head._first_deltas(stages[0])
    for level in (1, 4):
        stride = head.prior_generator.strides[level][0]
        height, width = tool.sizes(head)[level]
        boxes = anchors[level].view(height, width, 4)
        for y, x in ((0, 0), (height - 1, width // 2)):
            anchor = boxes[y, x].tolist()
            first, last = naive_gfl_box(head, anchor, stride, reg[level][1, :, y, x])
            for expected, distances in (
                (first, deltas[level][1, :, y, x]),
                (last, composed[level][1, :, y, x] * stride),
            ):
                actual = head.stage_coders[0].decode(boxes[y, x][None], distances[None])
                torch.testing.assert_close(
                    actual[0], torch.tensor(expected), atol=2e-3, rtol=1e-4
                )


def test_distances_may_be_from_anchors():
    coder, mmdets = AnchorDistanceBBoxCoder(), DistancePointBBoxCoder()
    anchors = torch.tensor([[0.0, 0, 40, 20], [10, 10, 30, 50], [60, 0, 80, 20]])
    points = torch.tensor([[20.0, 10], [20, 30], [70, 10]])
    boxes = torch.tensor([[5.0, 2, 35, 18], [0, 0, 60, 60], [61, 1, 90, 9]])
    distances = mmdets.encode(points, boxes)
    for places in (points, anchors):
        assert torch.equal(coder.encode(places, boxes), distances)
        cut = coder.encode(places, boxes, 12.0, eps=0.5)
        assert torch.equal(cut, mmdets.encode(points, boxes, 12.0, eps=0.5))
        assert torch.equal(coder.encode(places, boxes, max_dis=12.0, eps=0.5), cut)
        inside = mmdets.decode(points, distances, max_shape=(40, 50))
        assert torch.equal(coder.decode(places, distances, (40, 50)), inside)
        batch = coder.decode(places.expand(2, *places.shape), distances.expand(2, 3, 4))
        assert torch.equal(batch[1], mmdets.decode(points, distances))


def test_gfls_options_reach_it(tool):
    config = tool.small_config('GFLHead')
    arguments = {k: v for k, v in config.items() if k not in ('type', 'num_classes')}
    made = make_consistent(GFLHead)
    coder = dict(type='DistancePointBBoxCoder', clip_border=False)
    head = made(5, **{**arguments, 'bbox_coder': coder})
    assert head.num_classes == 5
    assert head.stage_coders[0].clip_border is False
    plain = made(5, variant='baseline', **arguments)
    assert len(plain.additions) == 0
    assert plain.num_stages == 1
    own = dict(type='QualityTargets', boxes='next')
    head = made(5, additions=[own], **arguments)
    assert [addition.boxes for addition in head.additions] == ['next']
    head = made(5, additions=[dict(type='SoftLabels')], **arguments)
    kinds = [type(addition).__name__ for addition in head.additions]
    assert kinds == ['QualityTargets', 'SoftLabels']


def test_the_quality_of_gfls_later_labels_is_that_of_the_last_box(tool):
    head = built(tool, 'GFLHead')
    assert [type(x).__name__ for x in head.additions] == ['QualityTargets']
    outputs = head(tool.features(head))
    gts = ground_truth_of(tool)
    seen = {}
    plain = head.label_losses

    def watch(levels, targets):
        seen.update(targets)
        return plain(levels, targets)

    head.label_losses = watch
    head.loss_by_feat(*outputs, gts, tool.metas(), None)
    assert list(seen) == [1]  # stage 0 is GFL's own
    quality = seen[1].quality
    assert (quality[~seen[1].positive] == 0).all()


def test_a_two_stage_detector_takes_a_consistent_rpn():
    config = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    config.backbone.update(depth=18, base_channels=8, init_cfg=None, frozen_stages=-1)
    config.neck.update(in_channels=[8, 16, 32, 64], out_channels=16)
    config.rpn_head.update(type='ConsistentRPNHead', in_channels=16, feat_channels=16)
    config.roi_head.bbox_roi_extractor.out_channels = 16
    config.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16, num_classes=3)
    torch.manual_seed(0)
    detector = MODELS.build(ConfigDict(config))
    assert issubclass(make_consistent(RPNHead), type(detector.rpn_head))
    samples = []
    for gt in ground_truth():
        sample = DetDataSample(gt_instances=gt, metainfo=metas(1)[0])
        sample.set_metainfo(dict(batch_input_shape=(128, 128)))
        samples.append(sample)
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    losses = detector.loss(images, samples)
    assert {'rpn_loss_cls_s1', 'rpn_loss_bbox_s1', 'loss_rpn_cls'} <= set(losses)
    total, _ = detector.parse_losses(losses)
    total.backward()
    assert detector.rpn_head.rpn_reg.later_stages[0].bias.grad is not None
    detector.eval()
    with torch.no_grad():
        found = detector.predict(images, samples)
    assert all(torch.isfinite(x.pred_instances.bboxes).all() for x in found)
