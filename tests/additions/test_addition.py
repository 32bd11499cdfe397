import pytest
import torch
from mmdet.registry import MODELS

from mmdet_consistent.additions import Addition
from tests.support.builders import SAMPLING, build_head, features, ground_truth, metas


@MODELS.register_module()
class TwoValues(Addition):
    """Notes its calls."""

    num_values = 2

    def __init__(self, calls=None):
        super().__init__()
        self.calls = calls

    def post_process(self, base, *args, **kwargs):
        self.calls.append((type(self).__name__, len(args), sorted(kwargs)))
        return base(*args, **kwargs)

    def losses(self, head, batch, targets):
        values = [v.sum() for v in head.addition_values(self, batch.bbox_preds)]
        return {f'loss_{type(self).__name__}': sum(values)}


@MODELS.register_module()
class ThreeValues(TwoValues):
    num_values = 3


def head_with_both(reg_stages=2):
    calls = []
    kinds = (TwoValues, ThreeValues)
    additions = [dict(type=kind.__name__) for kind in kinds]
    head = build_head(reg_stages=reg_stages, additions=additions)
    for addition in head.additions:
        addition.calls = calls
    return head, calls


@MODELS.register_module()
class Curious(Addition):
    """Keeps the batch and the targets it receives."""

    def adjust_targets(self, head, batch, targets):
        self.batch, self.targets = batch, targets
        return targets


def test_adjust_targets_receives_the_whole_batch():
    head = build_head(additions=[dict(type='Curious')])
    scores, preds = head(features())
    truth = ground_truth()
    head.loss_by_feat(scores, preds, truth, metas())
    batch = head.additions[0].batch
    assert all(a is b for a, b in zip(batch.cls_scores, scores))
    assert all(a is b for a, b in zip(batch.bbox_preds, preds))
    assert [gt is own for gt, own in zip(batch.gts.instances, truth)] == [True] * 2
    count = head.prior_anchors(scores, metas())[1].shape[1]
    assert [d.shape for d in batch.deltas] == [(2, count, 4)] * 2
    assert batch.boxes.shape == (2, count, 4)
    assert batch.valid.shape == (2, count)
    assert sorted(head.additions[0].targets) == [0, 1]


def test_targets_carry_the_samplers_normaliser():
    sampler = dict(SAMPLING['train_cfg']['sampler'], num=10**6)
    options = dict(SAMPLING, train_cfg=dict(sampler=sampler))
    head = build_head(additions=[dict(type='Curious')], **options)
    head.loss_by_feat(*head(features()), ground_truth(), metas())
    target = head.additions[0].targets[1]
    chosen = int((target.label_weights > 0).sum())
    # As mmdet counts: an image without positives has one.
    assert target.avg_factor == chosen + 1 > target.positive.sum() + 1


@pytest.mark.parametrize('reg_stages', [1, 2, 3])
def test_addition_values_are_the_additions_own(reg_stages):
    head, _ = head_with_both(reg_stages)
    anchors, row = head.num_base_priors, 4 * reg_stages + 5
    assert head.bbox_coder.encode_size == row
    # Every channel holds its own number: anchor · 100 + place in the row.
    numbers = torch.arange(anchors)[:, None] * 100.0 + torch.arange(row)
    pred = numbers.flatten()[None, :, None, None].expand(2, -1, 3, 4)
    first, last = head.additions
    [of_first] = head.addition_values(first, [pred])
    [of_last] = head.addition_values(last, [pred])
    assert of_first.shape == (2, anchors, 2, 3, 4)
    assert of_last.shape == (2, anchors, 3, 3, 4)
    start = 4 * reg_stages
    for values, places in ((of_first, (0, 1)), (of_last, (2, 3, 4))):
        for anchor in range(anchors):
            expected = torch.tensor([anchor * 100.0 + start + p for p in places])
            assert torch.equal(values[1, anchor, :, 2, 3], expected)


def test_addition_losses_join_the_heads_and_train_the_output():
    head, _ = head_with_both()
    losses = head.loss_by_feat(*head(features()), ground_truth(), metas())
    assert {'loss_TwoValues', 'loss_ThreeValues', 'loss_cls_s1'} <= set(losses)
    losses['loss_ThreeValues'].backward()
    grad = head.retina_reg.later_stages[1].bias.grad.view(-1, 5)
    assert (grad[:, :2] == 0).all()
    assert (grad[:, 2:] > 0).all()


def test_post_process_runs_through_all_additions():
    head, calls = head_with_both()
    plain = build_head()
    plain.load_state_dict(head.state_dict(), strict=False)
    found = head.predict_by_feat(*head(features(1)), batch_img_metas=metas(1))
    expected = plain.predict_by_feat(*plain(features(1)), batch_img_metas=metas(1))
    # Outermost last in the list; mmdet's arguments arrive as it gives them.
    assert [name for name, *_ in calls] == ['ThreeValues', 'TwoValues']
    named = ['cfg', 'img_meta', 'rescale', 'results', 'with_nms']
    assert all(count == 0 and names == named for _, count, names in calls)
    assert torch.equal(found[0].bboxes, expected[0].bboxes)
    assert torch.equal(found[0].scores, expected[0].scores)
    results = expected[0][:1]
    kept = head._bbox_post_process(results, head.test_cfg, False, False)
    assert torch.equal(kept.bboxes, results.bboxes)
    assert calls[-1] == ('TwoValues', 4, [])


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(additions='TwoValues'), 'must be a list of configs'),
        (dict(additions=[dict(low=1)]), 'must be a list of configs'),
        (
            dict(additions=[dict(type='L1Loss')]),
            r'additions\[0\] is a L1Loss, not an Addition',
        ),
        (
            dict(additions=[dict(type='TwoValues')] * 2),
            'additions names TwoValues more than once',
        ),
        (
            dict(additions=[dict(type='TwoValues')], variant='cascade'),
            "variant='cascade' takes no additions",
        ),
    ],
)
def test_invalid_additions_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build_head(**options)


def test_attach_refuses_a_head_without_a_stage_of_ours():
    options = dict(additions=[dict(type='TwoValues')], label_stages=1, reg_stages=1)
    assert build_head(**options).num_extra == 2  # its loss is made here
    with pytest.raises(ValueError, match='set label_stages or reg_stages to 2'):
        build_head(loss_cls=dict(type='GHMC', use_sigmoid=True), **options)
