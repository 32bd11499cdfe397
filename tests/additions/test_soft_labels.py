import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import SAMPLING, build_head, features, ground_truth
from tests.support.soft_cases import (
    GROUND_TRUTHS,
    NOTHING,
    exported,
    labels_equal_the_reference,
    losses_of,
    total,
)
from tests.support.ssd_builders import build_ssd_head, ssd_features
from tests.support.waits import Waits

KINDS = {'retina': (build_head, features), 'ssd': (build_ssd_head, ssd_features)}
kinds = pytest.mark.parametrize('kind', KINDS)


def thresholds(pos, neg):
    return dict(type='SecondPassAssigner', pos_iou_thr=pos, neg_iou_thr=neg)


def build(kind='retina', low=0.5, stages=(2, 2), assigner=(0.5, 0.5), **options):
    build_one, _ = KINDS[kind]
    return build_one(
        additions=[dict(type='SoftLabels', low=low, **options)],
        stage_assigners=thresholds(*assigner),
        label_stages=stages[0],
        reg_stages=stages[1],
    )


@kinds
@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    boxes=GROUND_TRUTHS,
    stages=st.sampled_from([(2, 2), (2, 1), (3, 2), (3, 3)]),
    spread=st.sampled_from([0.05, 0.2]),
    low=st.sampled_from([0.4, 0.5]),
    floor=st.sampled_from([0.0, 0.2]),
)
def test_soft_label_losses_equal_the_naive_reference(
    kind, seed, boxes, stages, spread, low, floor
):
    later = stages[0] - 1
    high = [0.7, 0.9][:later]
    head = build(kind, low, stages, (0.5, 0.45), high=high, floor=floor)
    head.cls_normalizer = 'stage'
    ssd = dict(ssd=((0.1, 0.1, 0.2, 0.2), 3)) if kind == 'ssd' else {}
    labels_equal_the_reference(
        head,
        seed,
        boxes,
        spread,
        [(0.5, 0.4)] + [(0.5, 0.45)] * later,
        first=1,
        ramps=[(low, end, floor) for end in high],
        **ssd,
    )


def test_steep_ramp_equals_the_papers_threshold():
    plain = build_head(reg_stages=1, stage_assigners=thresholds(0.6, 0.5))
    steep = build(low=0.6, high=0.6 + 1e-6, stages=(2, 1))
    expected, found = (losses_of(h, h(features())) for h in (plain, steep))
    assert found['num_pos_s1'] > expected['num_pos_s1'] > 1
    torch.testing.assert_close(found['loss_cls_s1'], expected['loss_cls_s1'])


@kinds
def test_weights_of_1_change_nothing(kind):
    build_one, inputs = KINDS[kind]
    plain, soft = build_one(), build(kind, floor=1.0, assigner=(0.6, 0.5))
    assert plain.state_dict().keys() == soft.state_dict().keys()
    expected, found = (losses_of(h, h(inputs())) for h in (plain, soft))
    assert expected['num_pos_s1'] > 0
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


@kinds
def test_only_later_label_losses_change(kind):
    build_one, inputs = KINDS[kind]
    plain, soft = build_one(stage_assigners=thresholds(0.5, 0.5)), build(kind)
    expected, found = (losses_of(h, h(inputs())) for h in (plain, soft))
    changed = {key for key, value in expected.items() if found[key] != value}
    assert changed == {'loss_cls_s1'}


@pytest.mark.parametrize('normalizer', ['stage', 'first'])
def test_cls_normalizer_first_ignores_soft_weights(normalizer):
    additions = [dict(type='SoftLabels', low=0.0, high=1.0)]
    options = dict(cls_normalizer=normalizer, stage_assigners=thresholds(0.5, 0.5))
    seen = {}

    def spy(levels, stages, targets):
        seen.update(zip([stage.index for stage in stages], targets))
        return type(head).label_losses(head, levels, stages, targets)

    head = build_head(**options, additions=additions)
    head.label_losses = spy
    losses_of(head, head(features()))
    weights = seen[1].label_weights[seen[1].positive]
    assert len(weights) > 3
    assert (weights < 1).any()
    # The second image has no object, and counts as one.
    expected = {'stage': weights.sum() + 1, 'first': seen[0].avg_factor}
    torch.testing.assert_close(
        seen[1].cls_avg_factor.float(), expected[normalizer].float()
    )
    assert seen[1].avg_factor == len(weights) + 1


def test_samplers_normaliser_shrinks_by_the_lost_weight():
    head = build_head(
        additions=[dict(type='SoftLabels', low=0.0, high=1.0)],
        cls_normalizer='stage',
        stage_assigners=thresholds(0.5, 0.5),
        **SAMPLING,
    )
    seen = {}

    def spy(levels, stages, targets):
        seen.update(zip([stage.index for stage in stages], targets))
        return type(head).label_losses(head, levels, stages, targets)

    head.label_losses = spy
    losses_of(head, head(features()))
    target = seen[1]
    lost = (1 - target.label_weights[target.positive]).sum()
    assert lost > 0
    torch.testing.assert_close(
        torch.as_tensor(target.cls_avg_factor), target.avg_factor - lost
    )


@kinds
def test_images_without_objects_give_losses_with_a_graph(kind):
    head = build(kind)
    losses = losses_of(head, head(KINDS[kind][1]()), NOTHING)
    total(losses).backward()
    assert losses['num_pos_s1'] == 0
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -1e30])
def test_invalid_boxes_are_excluded(bad):
    head = build()
    scores, preds = head(features())
    level = preds[0].detach().clone()
    level[:, 0] = bad
    losses = losses_of(head, (scores, [level, *preds[1:]]))
    assert losses['loss_cls_s1'].isfinite()


@kinds
def test_training_step_waits_for_nothing(kind, monkeypatch):
    head, inputs = build(kind), KINDS[kind][1]()
    on_cpu = losses_of(head, head(inputs))
    head.select_rows = False
    with Waits() as waits:
        losses = losses_of(head, head(inputs))
        total(losses).backward()
    assert waits.found == []
    torch.testing.assert_close(losses, on_cpu)


def test_soft_label_losses_in_half_precision_are_close():
    head = build()
    scores, preds = head(features())
    exact = losses_of(head, (scores, preds))
    half = [x.bfloat16() for x in scores], preds
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = losses_of(head, half)['loss_cls_s1']
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact['loss_cls_s1'], rtol=0.02, atol=0)


def test_export_equals_the_plain_head():
    plain, soft = exported(), exported(additions=[dict(type='SoftLabels')])
    assert all(torch.equal(a, b) for a, b in zip(plain, soft))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(low='0.5'), r"SoftLabels\.low must be a number, .*got '0\.5'"),
        (dict(high=True), r'SoftLabels\.high'),
        (dict(high=[0.7, None]), r'SoftLabels\.high'),
        (dict(high=[0.7, 0.8]), r'high=\[0\.7, 0\.8\] has 2 entries, .* 1 label st'),
        (dict(low=0.7), r'low=0\.7, high=0\.7.*needs 0 <= low < high <= 1'),
        (dict(high=float('nan')), 'needs 0 <= low'),
        (dict(floor=1.5), 'floor=1.5'),
        (dict(stages=(1, 2)), 'label_stages=1: set label_stages to 2'),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_each_stage_uses_its_own_ramp():
    head = build(low=[0.4, 0.5], high=[0.6, 0.9], stages=(3, 3))
    assert head.additions[0].ramps == {1: (0.4, 0.6, 0.0), 2: (0.5, 0.9, 0.0)}
    losses = losses_of(head, head(features()), ground_truth())
    assert losses['num_pos_s2'] > 0
