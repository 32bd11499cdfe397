import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.models.dense_heads import (
    AnchorHead,
    ATSSHead,
    DDODHead,
    GFLHead,
    PAAHead,
    RPNHead,
)
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict

from mmdet_consistent.additions import LocalizationConfidence
from mmdet_consistent.export.deployable import DeployableDetector
from mmdet_consistent.heads import ConsistentMixin
from tests.reference import localization_confidence as reference
from tests.support.builders import (
    as_scalars,
    build_head,
    features,
    instances,
    metas,
    small_detector,
    total_loss,
)
from tests.support.ssd_builders import build_ssd_head, ssd_features
from tests.support.waits import Waits

KINDS = {'retina': (build_head, features), 'ssd': (build_ssd_head, ssd_features)}
GROUND_TRUTH = [
    instances(
        [[11, 12, 37, 37], [56, 56, 104, 104], [0, 0, 72, 72], [0, 96, 64, 128]],
        [0, 1, 2, 0],
    ),
    instances([], []),
]
NOTHING = [instances([], []), instances([], [])]


def build(kind='retina', stages=(2, 2), **options):
    build_one, _ = KINDS[kind]
    addition = dict(type='LocalizationConfidence', **options)
    return build_one(additions=[addition], label_stages=stages[0], reg_stages=stages[1])


def outputs(head, seed=0, offset=0.3):
    """What the head's outputs could be: levels of logits and of rows for anchors."""
    generator = torch.Generator().manual_seed(seed)
    sizes = (8, 4, 2)
    scores, preds = [], []
    for size, anchors in zip(sizes, head.prior_generator.num_base_priors):
        channels = anchors * head.cls_out_channels
        scores.append(torch.randn(2, channels, size, size, generator=generator))
        row = torch.randn(
            2, anchors, head.bbox_coder.encode_size, size, size, generator=generator
        )
        row[:, :, :-1] *= offset
        preds.append(row.flatten(1, 2))
    return scores, [pred.requires_grad_() for pred in preds]


def per_anchor(levels, size):
    """(N, A·size, H, W) levels as (N, A, size), in the anchors' order."""
    rows = [x.permute(0, 2, 3, 1).reshape(len(x), -1, size) for x in levels]
    return torch.cat(rows, dim=1)


def spy_on_losses(head):
    """The last call's arguments of the addition's losses()."""
    [addition] = head.additions
    seen = {}
    plain = addition.losses

    def losses(head, batch, targets):
        seen.update(batch=batch, targets=targets)
        return plain(head, batch, targets)

    addition.losses = losses
    return seen


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)).filter(lambda s: s[0] <= s[1] + 1),
    st.integers(0, 2**16),
    st.sampled_from([0.5, 1.0]),
)
def test_loss_iou_equals_the_naive_reference(kind, stages, seed, weight):
    head = build(kind, stages, loss_weight=weight)
    seen = spy_on_losses(head)
    scores, preds = outputs(head, seed, 0.1)
    losses = head.loss_by_feat(scores, preds, GROUND_TRUTH, metas())
    last = max(seen['targets'])
    assert last == max(stages) - 1
    target = seen['targets'][last]
    rows = per_anchor(preds, head.bbox_coder.encode_size).detach().double()
    logits = rows[..., -1].clone().requires_grad_()
    flat = torch.zeros(target.positive.numel(), 4)
    positives = target.box_rows(select=True)
    flat[positives] = target.matched_bboxes(positives)
    expected = weight * reference.confidence_loss(
        logits,
        [rows[..., 4 * k : 4 * k + 4] for k in range(stages[1])],
        target.boxes.expand(2, -1, -1).double().tolist(),
        target.positive.tolist(),
        flat.view(2, -1, 4).tolist(),
        float(target.avg_factor),
        last,
        [stage.bbox_coder.stds for stage in head.stages[: head.reg_stages]],
    )
    torch.testing.assert_close(
        losses['loss_iou'].double(), expected, rtol=1e-4, atol=1e-6
    )
    assert (expected > 0) == bool(target.positive.any())
    losses['loss_iou'].backward()
    expected.backward()
    grads = per_anchor([pred.grad for pred in preds], head.bbox_coder.encode_size)
    assert (grads[..., :-1] == 0).all()  # the final box is detached
    torch.testing.assert_close(
        grads[..., -1].double(), logits.grad, rtol=1e-4, atol=1e-6
    )


def without_confidence(head, preds):
    """The same outputs as the head would give them without the addition."""
    size = head.bbox_coder.encode_size
    return [p.detach().unflatten(1, (-1, size))[:, :, :-1].flatten(1, 2) for p in preds]


def predict(head, outs, **options):
    image_metas = [dict(meta, scale_factor=(0.5, 0.8)) for meta in metas()]
    with torch.no_grad():
        return head.predict_by_feat(*outs, batch_img_metas=image_metas, **options)


def assert_same(one, two, rtol=0.0):
    for a, b in zip(one, two):
        assert set(a.keys()) == set(b.keys()) == {'bboxes', 'scores', 'labels'}
        for name, value in a.items():
            torch.testing.assert_close(b[name], value, rtol=rtol, atol=rtol)


@pytest.mark.parametrize('kind', KINDS)
def test_beta_0_equals_the_head_without_the_addition(kind):
    build_one, _ = KINDS[kind]
    plain, head = build_one(), build(kind, beta=0)
    scores, preds = outputs(head)
    others = without_confidence(head, preds)
    expected = as_scalars(plain.loss_by_feat(scores, others, GROUND_TRUTH, metas()))
    found = as_scalars(head.loss_by_feat(scores, preds, GROUND_TRUTH, metas()))
    assert set(found) - set(expected) == {'loss_iou'}
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert_same(predict(plain, (scores, others)), predict(head, (scores, preds)))


@pytest.mark.parametrize('kind', KINDS)
def test_fresh_confidence_keeps_the_ranking(kind):
    build_one, inputs = KINDS[kind]
    plain, head = build_one(), build(kind)
    missing = head.load_state_dict(plain.state_dict(), strict=False)
    assert all('.later_stages.1.' in name for name in missing.missing_keys)
    assert missing.missing_keys
    assert not missing.unexpected_keys
    expected, found = (predict(h, h(inputs())) for h in (plain, head))
    for image in expected:
        image.scores = image.scores**0.4 * 0.5**0.6
    assert_same(expected, found, rtol=1e-4)


@pytest.mark.parametrize('kind', KINDS)
def test_confidence_learns_the_ious(kind):
    head, x = build(kind), KINDS[kind][1]()
    start = head.loss_by_feat(*head(x), GROUND_TRUTH, metas())['loss_iou'].item()
    own = [p for n, p in head.named_parameters() if '.later_stages.1.' in n]
    optimizer = torch.optim.SGD(own, lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        loss = head.loss_by_feat(*head(x), GROUND_TRUTH, metas())['loss_iou']
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.95 * start


CONFIGS = st.builds(
    dict,
    kind=st.sampled_from(sorted(KINDS)),
    beta=st.sampled_from([0.0, 0.3, 0.5, 0.9]),
    seed=st.integers(0, 2**16),
    min_bbox_size=st.sampled_from([-1, 0, 20]),
    score_thr=st.sampled_from([0.5, 0.7]),
    max_per_img=st.sampled_from([3, 1000]),
    rescale=st.booleans(),
)


def candidates(head, outs, options):
    """Boxes, scores, labels, confidences of each image, by mmdet's own head."""
    kind = 'ssd' if 'SSD' in type(head).__name__ else 'retina'
    plain = KINDS[kind][0]()
    scores, preds = outs
    factors = [x.squeeze(2) for x in head.addition_values(head.additions[0], preds)]
    post_process = plain._bbox_post_process

    def keep_confidences(results, cfg, **kwargs):
        results.confidences = results.pop('score_factors')
        return post_process(results, cfg, **kwargs)

    plain._bbox_post_process = keep_confidences
    outs = scores, without_confidence(head, preds), factors
    return predict(plain, outs, with_nms=False, **options)


def run(config):
    """What the head gives, and what mmdet's gives, both without suppression."""
    head = build(config['kind'], beta=config['beta'])
    outs = outputs(head, config['seed'])
    keys = ('min_bbox_size', 'score_thr', 'max_per_img')
    cfg = ConfigDict(head.test_cfg, **{key: config[key] for key in keys})
    options = dict(cfg=cfg, rescale=config['rescale'])
    return (
        predict(head, outs, with_nms=False, **options),
        candidates(head, outs, options),
    )


@settings(max_examples=15, deadline=None)
@given(CONFIGS)
def test_scores_are_tempered_as_in_the_naive_reference(config):
    found, expected = run(config)
    for one, two in zip(found, expected):
        assert set(one.keys()) == {'bboxes', 'scores', 'labels'}
        assert torch.equal(one.bboxes, two.bboxes)
        assert torch.equal(one.labels, two.labels)
        wanted = [
            reference.tempered(score, confidence, config['beta'])
            for score, confidence in zip(two.scores.tolist(), two.confidences.tolist())
        ]
        torch.testing.assert_close(
            one.scores, torch.tensor(wanted), rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize('kind', KINDS)
def test_predict_without_detections_returns_empty_results(kind):
    head = build(kind)
    cfg = ConfigDict(head.test_cfg, score_thr=0.999999)
    for image in predict(head, outputs(head), cfg=cfg, rescale=True):
        assert len(image) == 0
        assert image.bboxes.shape == (0, 4)


@pytest.mark.parametrize('kind', KINDS)
def test_predict_by_feat_takes_mmdets_positional_arguments(kind):
    head = build(kind)
    scores, preds = outputs(head)
    by_name = head.predict_by_feat(scores, preds, batch_img_metas=metas())
    by_place = head.predict_by_feat(scores, preds, None, metas())
    assert_same(by_name, by_place)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('stages', [(1, 1), (2, 2), (2, 3)])
def test_loss_iou_without_positives_is_a_differentiable_zero(kind, stages):
    head = build(kind, stages)
    _, inputs = KINDS[kind]
    losses = as_scalars(head.loss_by_feat(*head(inputs()), NOTHING, metas()))
    assert losses['loss_iou'] == 0
    total_loss(losses).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), 1e30])
def test_non_finite_values_of_uncounted_anchors_cost_nothing(bad):
    head = build()
    seen = spy_on_losses(head)
    scores, preds = outputs(head, offset=0.1)
    loss = head.loss_by_feat(scores, preds, GROUND_TRUTH, metas())['loss_iou']
    size, anchors = head.bbox_coder.encode_size, head.num_base_priors
    positive = seen['targets'][1].positive[0, : anchors * 64]
    assert positive.sum() > 1

    def with_bad(anchor, values):
        """The loss, and the gradient of the level, if that anchor has bad values."""
        cell, index = divmod(int(anchor), anchors)
        level = preds[0].detach().clone()
        rows = level.view(2, anchors, size, 8, 8)
        rows[0, index, values, cell // 8, cell % 8] = bad
        level.requires_grad_()
        losses = head.loss_by_feat(scores, [level, *preds[1:]], GROUND_TRUTH, metas())
        return losses['loss_iou'], torch.autograd.grad(losses['loss_iou'], level)[0]

    # The second regression runs away: the positive has no final box.
    found, grad = with_bad(positive.nonzero()[0], slice(4, 8))
    assert 0 < found < loss
    assert torch.isfinite(grad).all()
    # The confidence of an anchor that isn't positive.
    found, grad = with_bad((~positive).nonzero()[0], -1)
    assert torch.equal(found, loss)
    assert torch.isfinite(grad).all()


@pytest.mark.parametrize('kind', KINDS)
def test_training_step_waits_for_nothing(kind):
    head, (_, inputs) = build(kind), KINDS[kind]
    on_cpu = head.loss_by_feat(*head(inputs()), GROUND_TRUTH, metas())['loss_iou']
    head.select_rows = False
    with Waits() as waits:
        losses = as_scalars(head.loss_by_feat(*head(inputs()), GROUND_TRUTH, metas()))
        total_loss(losses).backward()
    assert waits.found == []
    torch.testing.assert_close(losses['loss_iou'], on_cpu)


def test_loss_iou_is_float32_in_half_precision():
    head = build()
    scores, preds = outputs(head, offset=0.1)
    exact = head.loss_by_feat(scores, preds, GROUND_TRUTH, metas())['loss_iou']
    half = [x.detach().bfloat16() for x in scores], [x.bfloat16() for x in preds]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        loss = head.loss_by_feat(*half, GROUND_TRUTH, metas())['loss_iou']
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(beta=1.1), 'beta must be a number from 0 to 1, got 1.1'),
        (dict(beta=-0.1), 'beta'),
        (dict(beta='0.5'), 'beta'),
        (dict(beta=True), 'beta'),
        (dict(beta=float('nan')), 'beta'),
        (dict(loss_weight=0), 'loss_weight must be a number above 0, got 0'),
        (dict(loss_weight=None), 'loss_weight'),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


class WithQuality(AnchorHead):
    def loss_by_feat(self, cls_scores, bbox_preds, qualities, batch_gt_instances):
        pass


@pytest.mark.parametrize(
    ('base', 'message'),
    [
        (ATSSHead, r'outputs besides classes and boxes \(centernesses\)'),
        (PAAHead, 'iou_preds'),
        (DDODHead, 'iou_preds'),
        (WithQuality, 'qualities'),
        (RPNHead, 'RPNHead has its own _predict_by_feat_single'),
        (GFLHead, 'GFLHead has its own _predict_by_feat_single'),
    ],
)
def test_attach_refuses_heads_with_own_scores(base, message):
    kind = type('Kind', (ConsistentMixin, base), {})
    head = kind.__new__(kind)
    torch.nn.Module.__init__(head)
    head.train_cfg = None
    addition = LocalizationConfidence()
    with pytest.raises(ValueError, match=message):
        addition.attach(head)


def test_cfg_options_set_beta():
    addition = dict(type='LocalizationConfidence')
    cfg = Config(dict(model=dict(bbox_head=dict(additions=[addition]))))
    cfg.merge_from_dict({'model.bbox_head.additions.0.beta': 0.3})
    head = build_head(**cfg.model.bbox_head)
    assert head.additions[0].beta == 0.3


def test_export_with_beta_0_equals_the_head():
    detector = small_detector(additions=[dict(type='LocalizationConfidence', beta=0)])
    torch.manual_seed(0)
    for parameter in detector.bbox_head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    image = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    with torch.no_grad():
        boxes, scores = DeployableDetector(detector, nms=False)(
            image, torch.tensor([[64, 96]])
        )
        x = detector.extract_feat(
            detector.data_preprocessor(
                dict(
                    inputs=[image[0, ..., [2, 1, 0]].permute(2, 0, 1)],
                    data_samples=[DetDataSample()],
                )
            )['inputs']
        )
        [expected] = detector.bbox_head.predict_by_feat(
            *detector.bbox_head(x),
            batch_img_metas=[dict(img_shape=(64, 96))],
            cfg=ConfigDict(nms_pre=10**6, score_thr=-1, min_bbox_size=-1),
            with_nms=False,
        )
    best, _ = scores.flatten().sort(descending=True)
    wanted, _ = expected.scores.sort(descending=True)
    torch.testing.assert_close(best, wanted)
    torch.testing.assert_close(
        boxes[0].sum(0) * scores.shape[-1], expected.bboxes.sum(0), rtol=1e-4, atol=0.1
    )
