import pytest
import torch
from mmengine.config import ConfigDict

from mmdet_consistent.heads.box_output import StagedConv2d
from mmdet_consistent.heads.variants import FeatureGate
from tests.reference import consistent as reference
from tests.support.builders import (
    as_scalars,
    assert_refused,
    build_head,
    features,
    instances,
    metas,
    total_loss,
)
from tests.support.ssd_builders import build_ssd_head, ssd_features

RETINA = ('cascade', 'gated_cascade')
BUILDERS = {
    ('retina', 'cascade'): (build_head, features),
    ('retina', 'gated_cascade'): (build_head, features),
    ('ssd', 'cascade'): (build_ssd_head, ssd_features),
}
KEEP_ALL = ConfigDict(nms_pre=10_000, score_thr=-1, min_bbox_size=-1)


def randomise(head):
    """Every parameter its own values, so that stages can be told apart."""
    for index, (_, parameter) in enumerate(sorted(head.named_parameters())):
        torch.manual_seed(index)
        torch.nn.init.normal_(parameter, std=0.02)
    return head


# Something for each level, and near enough for a second stage.
GROUND_TRUTH = [
    instances(
        [[11, 12, 37, 37], [56, 56, 104, 104], [0, 0, 72, 72], [0, 96, 64, 128]],
        [0, 1, 2, 0],
    ),
    instances([], []),
]


def stage_of(name):
    """The stage a parameter belongs to: later_cls.0... is stage 1."""
    later = name.startswith(('later_cls', 'later_reg'))
    return int(name.split('.')[1]) + 1 if later else 0


def test_baseline_has_one_stage():
    head = build_head(variant='baseline')
    assert (head.label_stages, head.reg_stages) == (1, 1)
    assert set(dict(head.named_parameters())) == set(
        dict(build_head('RetinaHead').named_parameters())
    )


@pytest.mark.parametrize(('kind', 'variant'), BUILDERS)
def test_cascade_shares_no_parameter_between_stages(kind, variant):
    build, _ = BUILDERS[kind, variant]
    base = build('RetinaHead' if kind == 'retina' else 'SSDHead')
    head = build(variant=variant)
    names = dict(head.named_parameters())
    assert {n for n in names if stage_of(n) == 0} == set(dict(base.named_parameters()))
    own = sum(p.numel() for n, p in names.items() if stage_of(n) and 'gate' not in n)
    assert own == sum(p.numel() for p in base.parameters())
    assert any('gate' in n for n in names) == (variant == 'gated_cascade')
    addresses = [p.data_ptr() for p in names.values()]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize(
    'key', ['loss_cls', 'loss_bbox', 'loss_cls_s1', 'loss_bbox_s1']
)
@pytest.mark.parametrize(('kind', 'variant'), BUILDERS)
def test_cascade_losses_train_only_their_own_branch(kind, variant, key):
    build, inputs = BUILDERS[kind, variant]
    head = randomise(build(variant=variant))
    losses = as_scalars(head.loss_by_feat(*head(inputs()), GROUND_TRUTH, metas()))
    losses[key].sum().backward()
    reached = {
        name
        for name, parameter in head.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum() > 0
    }
    branch = 'cls' if 'cls' in key else 'reg'
    stage = 1 if key.endswith('_s1') else 0
    expected = set()
    for name, _ in head.named_parameters():
        if branch not in name:
            continue
        output_of_first = name.startswith(('retina_cls', 'retina_reg'))
        in_first_tower = stage_of(name) == 0 and not output_of_first
        # A gate lets the gradient back into the tower before it.
        through_gate = variant == 'gated_cascade' and stage == 1 and in_first_tower
        if stage_of(name) == stage or through_gate:
            expected.add(name)
    assert reached == expected


@pytest.mark.parametrize('stages', [(2, 2), (3, 2), (2, 1), (3, 3), (1, 2)])
@pytest.mark.parametrize(('kind', 'variant'), BUILDERS)
def test_cascade_trains_every_parameter(kind, variant, stages):
    """Or distributed training would need find_unused_parameters."""
    build, inputs = BUILDERS[kind, variant]
    weights = (0, *[1] * (stages[0] - 1)) if stages[0] > 1 else (1,)
    for options in ({}, dict(stage_loss_weights=weights)):
        head = build(
            variant=variant, label_stages=stages[0], reg_stages=stages[1], **options
        )
        losses = as_scalars(head.loss_by_feat(*head(inputs()), GROUND_TRUTH, metas()))
        total_loss(losses).backward()
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None, name


@pytest.mark.parametrize('scores', ['mean', 'last'])
@pytest.mark.parametrize(('kind', 'variant'), BUILDERS)
def test_cascade_predictions_equal_the_naive_reference(kind, variant, scores):
    build, inputs = BUILDERS[kind, variant]
    head = randomise(build(variant=dict(type=variant, scores=scores)))
    cls_scores, bbox_preds = head(inputs(1))
    result = head.predict_by_feat(
        cls_scores, bbox_preds, batch_img_metas=metas(1), cfg=KEEP_ALL, with_nms=False
    )[0]
    found = {
        (round(s, 4), label, *(round(v, 1) for v in box))
        for s, label, box in zip(
            result.scores.tolist(), result.labels.tolist(), result.bboxes.tolist()
        )
    }
    priors = head.prior_generator.grid_priors(
        [s.shape[-2:] for s in cls_scores], device='cpu'
    )
    stds = head.stages[0].bbox_coder.stds
    total, missed = 0, 0
    for level, boxes in enumerate(priors):
        anchors = len(boxes) // cls_scores[level][0, 0].numel()
        width = cls_scores[level].shape[-1]
        for index, box in enumerate(boxes.tolist()):
            cell, anchor = divmod(index, anchors)
            y, x = divmod(cell, width)
            logits = cls_scores[level][0, :, y, x].reshape(2, anchors, -1)[:, anchor]
            probabilities = (
                logits.sigmoid() if kind == 'retina' else logits.softmax(-1)[:, :-1]
            )
            wanted = probabilities.mean(0) if scores == 'mean' else probabilities[-1]
            deltas = bbox_preds[level][0, :, y, x].reshape(anchors, 2, 4)[anchor]
            for stage in range(2):
                box = reference.decode(box, deltas[stage], stds=stds)
            box = [min(max(v, 0), 128) for v in box]
            for label, score in enumerate(wanted.tolist()):
                total += 1
                key = (round(score, 4), label, *(round(v, 1) for v in box))
                missed += key not in found
    assert len(result.scores) == total
    assert missed < 0.02 * total  # numbers at the edge of rounding


def test_merge_scores_last_takes_the_last_of_three_stages():
    head = randomise(
        build_head(variant=dict(type='cascade', scores='last'), label_stages=3)
    )
    for level, merged in zip(
        head(features())[0], head.merge_scores(head(features())[0])
    ):
        assert torch.equal(merged, level.unflatten(1, (3, -1))[:, 2])


@pytest.mark.parametrize('layers', [0, 1])
def test_gated_cascade_trains_with_towers_wider_than_the_input(layers):
    head = build_head(variant='gated_cascade', feat_channels=12, stacked_convs=layers)
    width = 12 if layers else 8
    for tower in (*head.later_cls, *head.later_reg):
        assert tower.gate.conv.in_channels == 8 + width
        assert tower.gate.conv.out_channels == width
    losses = as_scalars(head.loss_by_feat(*head(features()), GROUND_TRUTH, metas()))
    assert losses['loss_cls_s1'].isfinite()


@pytest.mark.parametrize('gate', ['pixel', 'channel'])
def test_closed_gate_equals_a_plain_cascade(gate):
    plain = randomise(build_head(variant='cascade'))
    gated = build_head(variant=dict(type='gated_cascade', gate=gate))
    gated.load_state_dict(plain.state_dict(), strict=False)
    for tower in (*gated.later_cls, *gated.later_reg):
        if gate == 'pixel':
            torch.nn.init.zeros_(tower.gate.conv.weight)
            torch.nn.init.constant_(tower.gate.conv.bias, -100.0)
        else:
            torch.nn.init.constant_(tower.gate.logit, -100.0)
    for ours, theirs in zip(gated(features()), plain(features())):
        for a, b in zip(ours, theirs):
            torch.testing.assert_close(a, b)


def test_init_weights_copies_the_first_bias_to_later_scores():
    head = build_head(variant='cascade')
    head.init_weights()
    assert torch.equal(head.later_cls[0].output.bias, head.retina_cls.bias)
    assert head.retina_cls.bias[0].sigmoid().item() == pytest.approx(0.01)
    assert not torch.equal(head.later_cls[0].output.weight, head.retina_cls.weight)


@pytest.mark.parametrize(
    ('build', 'variant', 'words'),
    [
        (build_head, 'cascad', ('^variant must be', 'cascad', 'gated_cascade')),
        (
            build_head,
            dict(type='cascade', scores='max'),
            ('^variant.scores must be', 'max'),
        ),
        (build_head, dict(type='cascade', gat='pixel'), ('gat', 'gate')),
        (build_head, dict(scores='mean'), ('variant', 'type')),
        (build_ssd_head, 'gated_cascade', ('gated_cascade', 'SSD', "'cascade'")),
    ],
)
def test_invalid_variants_are_refused_with_field_and_value(build, variant, words):
    assert_refused(words, build, variant=variant)


def test_baseline_with_stages_is_refused():
    with pytest.raises(ValueError, match='label_stages=2'):
        build_head(variant='baseline', label_stages=2)


@pytest.mark.parametrize('kind', ['pixel', 'channel'])
def test_open_gate_adds_the_previous_features(kind):
    gate = FeatureGate(4, 4, kind)
    parameter = gate.conv.bias if kind == 'pixel' else gate.logit
    torch.nn.init.constant_(parameter, 100.0)
    x, previous = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(gate(x, previous), x + previous)


def test_channel_gate_has_one_parameter_per_channel():
    gate = FeatureGate(4, 4, 'channel')
    gate.logit.data[:] = -100
    gate.logit.data[2] = 100
    x, previous = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)
    assert gate(x, previous)[0, :, 0, 0].tolist() == [0, 0, 1, 0]


def test_gate_matches_different_widths():
    gate = FeatureGate(3, 5, 'pixel')
    torch.nn.init.constant_(gate.conv.bias, 100.0)
    x, previous = torch.randn(1, 3, 2, 2), torch.randn(1, 5, 2, 2)
    torch.testing.assert_close(gate(x, previous), x + gate.match(previous))
    assert gate.match.kernel_size == (1, 1)


@pytest.mark.parametrize(
    'options',
    [
        dict(stride=2, padding=1, bias=False),
        dict(padding=2, dilation=2, padding_mode='reflect'),
    ],
)
@pytest.mark.parametrize('stages', [1, 3])
def test_staged_conv_keeps_the_first_output(stages, options):
    conv = torch.nn.Conv2d(3, 8, 3, **options)
    staged = StagedConv2d(conv, [torch.tensor([0.0, 1.0, 2.0, 3.0])] * (stages - 1))
    x = torch.randn(2, 3, 5, 5)
    deltas = staged(x).unflatten(1, (2, stages, 4))
    torch.testing.assert_close(deltas[:, :, 0].flatten(1, 2), conv(x))
    for later in range(1, stages):
        assert (deltas[:, :, later].mean(dim=(0, 1, 3, 4)) == torch.arange(4.0)).all()


def test_ssd_cascade_copies_its_towers():
    options = dict(stacked_convs=1, feat_channels=8, use_depthwise=True)
    head = build_ssd_head(variant='cascade', **options)
    for layers, tower in zip(head.cls_convs, head.later_cls[0]):
        assert len(tower.convs) == len(layers) - 1
        assert tower.output.weight.shape == layers[-1].weight.shape
