import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.builders import build_head, features
from tests.support.soft_cases import (
    GROUND_TRUTHS,
    NOTHING,
    QUALITY,
    SIMPLE,
    exported,
    labels_equal_the_reference,
    losses_of,
    total,
)
from tests.support.ssd_builders import build_ssd_head
from tests.support.waits import Waits


def build(boxes='final', stages=(2, 2), **options):
    additions = [dict(type='QualityTargets', boxes=boxes)]
    settings = dict(label_stages=stages[0], reg_stages=stages[1], **QUALITY)
    return build_head(**{**settings, 'additions': additions, **options})


def targets_of(head, outputs):
    """The targets that the loss is computed from, and the losses."""
    seen = {}

    def spy(levels, stages, targets):
        seen.update(zip([stage.index for stage in stages], targets))
        return type(head).label_losses(head, levels, stages, targets)

    head.label_losses = spy
    losses = losses_of(head, outputs)
    del head.label_losses
    return seen, losses


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    boxes=GROUND_TRUTHS,
    stages=st.sampled_from([(1, 1), (2, 2), (2, 1), (1, 2), (3, 2), (3, 3)]),
    spread=st.sampled_from([0.05, 0.2]),
    which=st.sampled_from(['final', 'next']),
)
def test_quality_losses_equal_the_naive_reference(seed, boxes, stages, spread, which):
    head = build(which, stages, train_cfg=SIMPLE, cls_normalizer='stage')
    thresholds = [(0.5, 0.4), (0.6, 0.5), (0.7, 0.6)][: stages[0]]
    labels_equal_the_reference(
        head, seed, boxes, spread, thresholds, first=0, quality=which
    )


def test_quality_of_a_perfect_last_box_is_1_in_every_stage():
    """What the score is used for, whatever the boxes were on the way."""
    head = build()
    scores, preds = head(features())
    seen, _ = targets_of(head, (scores, preds))
    assert seen[0].positive.sum() > 3
    # The deltas that take the last stage's boxes onto their ground truth.
    target = seen[1]
    rows = target.box_rows(select=True)
    wanted = head.bbox_coder.stages[1].encode(
        target.boxes_of(rows), target.matched_bboxes(rows)
    )
    deltas = torch.cat(
        [p.detach().permute(0, 2, 3, 1).reshape(2, -1, 8) for p in preds], dim=1
    )
    deltas.flatten(0, 1)[rows, 4:] = wanted
    sizes = [p.shape[-2:] for p in preds]
    counts = [h * w * 2 for h, w in sizes]
    preds = [
        part.reshape(2, h, w, 16).permute(0, 3, 1, 2)
        for part, (h, w) in zip(deltas.split(counts, dim=1), sizes)
    ]
    seen, _ = targets_of(head, (scores, preds))
    for target in seen.values():
        both = target.positive & seen[1].positive
        assert both.sum() > 3
        torch.testing.assert_close(
            target.quality[both], torch.ones(int(both.sum())), rtol=0, atol=1e-4
        )
        assert (target.quality[~target.positive] == 0).all()


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_quality_of_an_invalid_box_is_0(bad):
    head = build()
    scores, preds = head(features())
    before, _ = targets_of(head, (scores, preds))
    level = preds[0].detach().clone()
    level.view(2, 2, 8, 8, 8)[:, :, 4:] = bad  # the second regression's
    after, losses = targets_of(head, (scores, [level, *preds[1:]]))
    there = slice(0, 8 * 8 * 2)
    assert (before[0].quality[:, there] > 0).any()
    for stage, target in after.items():
        assert (target.quality[:, there] == 0).all()
        assert torch.equal(target.positive, before[stage].positive)
        assert torch.equal(target.label_weights, before[stage].label_weights)
    assert losses['loss_cls'].isfinite()
    assert losses['loss_cls_s1'].isfinite()


@pytest.mark.parametrize('stages', [(1, 1), (2, 2), (3, 2)])
def test_images_without_objects_give_losses_with_a_graph(stages):
    head = build(stages=stages)
    losses = losses_of(head, head(features()), NOTHING)
    total(losses).backward()
    assert losses['num_pos'] == 0
    assert losses['loss_bbox'] == 0
    assert all(p.grad is not None for p in head.parameters())


def test_gfl_keeps_its_own_quality_in_stage_0():
    """As for a head that trains its first stage by itself."""
    head = build()
    scores, preds = head(features())
    everything, _ = targets_of(head, (scores, preds))
    seen = {}
    [addition] = head.additions
    plain = addition.adjust_targets

    def without_first(head, batch, targets):
        later = {k: v for k, v in targets.items() if k > 0}
        seen.update(plain(head, batch, later))
        return plain(head, batch, targets)

    addition.adjust_targets = without_first
    losses_of(head, (scores, preds))
    assert list(seen) == [1]
    assert torch.equal(seen[1].quality, everything[1].quality)


def test_quality_targets_combine_with_soft_labels():
    additions = [dict(type='SoftLabels'), dict(type='QualityTargets')]
    head = build(additions=additions)
    seen, losses = targets_of(head, head(features()))
    target = seen[1]
    assert (target.quality[target.positive] > 0).all()
    assert (target.label_weights[target.positive] < 1).any()
    assert total(losses).isfinite()


@pytest.mark.parametrize('boxes', ['final', 'next'])
def test_only_mmdets_loss_waits(boxes, monkeypatch):
    head, inputs = build(boxes), features()
    on_cpu = losses_of(head, head(inputs))
    head.select_rows = False
    torch.testing.assert_close(losses_of(head, head(inputs)), on_cpu)

    def no_wait(pred, target, weight, avg_factor):
        labels, quality = target
        return (pred.sum(dim=1) * weight * quality).sum() / avg_factor + labels.sum()

    for loss in (head.loss_cls, *head.stage_loss_cls):
        monkeypatch.setattr(loss, 'forward', no_wait)
    with Waits() as waits:
        total(losses_of(head, head(inputs))).backward()
    assert waits.found == []


def test_quality_loss_is_float32_in_half_precision():
    head = build()
    scores, preds = head(features())
    exact = losses_of(head, (scores, preds))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = losses_of(head, ([x.bfloat16() for x in scores], preds))
    for key in ('loss_cls', 'loss_cls_s1'):
        assert half[key].dtype == torch.float32
        torch.testing.assert_close(half[key], exact[key], rtol=0.02, atol=0)


def test_inference_and_state_dict_equal_the_plain_head():
    plain, rated = build_head(), build()
    assert plain.state_dict().keys() == rated.state_dict().keys()
    outputs = exported(), exported(additions=[dict(type='QualityTargets')], **QUALITY)
    assert all(torch.equal(a, b) for a, b in zip(*outputs))


def test_quality_loss_without_the_addition_is_refused():
    for stages in (1, 2):
        head = build_head(**QUALITY, label_stages=stages, reg_stages=stages)
        with pytest.raises(ValueError, match=r"additions=\[dict\(type='QualityTargets"):
            losses_of(head, head(features()))


GHMR = dict(type='GHMR', mu=0.02, bins=10, momentum=0.7, loss_weight=10.0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(boxes='last'), r"boxes must be in \('final', 'next'\), got 'last'"),
        (dict(loss_cls=dict(type='FocalLoss', use_sigmoid=True)), 'has FocalLoss'),
        (dict(loss_cls=dict(QUALITY['loss_cls'], activated=True)), 'activated=False'),
        (dict(loss_cls=dict(QUALITY['loss_cls'], reduction='sum')), "reduction='mean'"),
        (dict(loss_bbox=GHMR), 'a loss_bbox that is a plain sum'),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_ssd_is_refused():
    with pytest.raises(ValueError, match='ConsistentSSDHead has none'):
        build_ssd_head(additions=[dict(type='QualityTargets')])
