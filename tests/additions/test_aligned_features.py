import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS
from torch import nn

from mmdet_consistent.additions import Addition
from mmdet_consistent.additions.aligned_conv import SPANS, AlignedConv2d
from mmdet_consistent.heads.box_output import StagedConv2d
from tests.reference.aligned_features import aligned_outputs
from tests.support.builders import (
    HEAD,
    as_scalars,
    assert_refused,
    build_head,
    features,
    ground_truth,
    instances,
    metas,
    total_loss,
)
from tests.support.ssd_builders import HEAD as SSD_HEAD
from tests.support.ssd_builders import build_ssd_head, ssd_features
from tests.support.waits import Waits

ALIGNED = dict(additions=[dict(type='AlignedFeatures')])
KINDS = {'retina': (build_head, features), 'ssd': (build_ssd_head, ssd_features)}
kinds = pytest.mark.parametrize('kind', KINDS)


def later_random(head, std=0.05):
    for name, parameter in head.named_parameters():
        if 'later_stages' in name:
            torch.manual_seed(len(name))
            parameter.data.add_(torch.randn_like(parameter) * std)
    return head


def box_outputs(head):
    return [getattr(parent, name) for parent, name in head.box_output_layers()]


def losses_of(head, x, gts=None):
    losses = head.loss_by_feat(*head(x), gts or ground_truth(), metas())
    return as_scalars(losses)


# ------------------------------------------------------------ the reference

ANCHORS = torch.tensor([[-16.0, -12.0, 16.0, 12.0], [0.0, 4.0, 24.0, 60.0]])
STDS = ((0.5, 0.5, 1.0, 1.0), (1.0, 1.0, 1.0, 1.0))
STRIDE = (8.0, 16.0)


def make_conv(kernel, dilation, extra, span, seed):
    """An aligned convolution with three stages, 3 channels in, random weights."""
    torch.manual_seed(seed)
    padding = tuple(dilation * (k // 2) for k in kernel)
    base = nn.Conv2d(3, 8, kernel, padding=padding, dilation=dilation)
    staged = StagedConv2d(base, [torch.zeros(4)] * 2, extra)
    coders = [
        TASK_UTILS.build(dict(type='DeltaXYWHBBoxCoder', target_stds=s)) for s in STDS
    ]
    coders.append(coders[-1])

    for parameter in staged.parameters():
        nn.init.normal_(parameter, std=0.3)
    return AlignedConv2d(staged, ANCHORS, STRIDE, coders, span)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    kernel=st.sampled_from([(3, 3), (1, 3), (1, 1), (5, 3)]),
    dilation=st.sampled_from([1, 2]),
    extra=st.sampled_from([0, 2]),
    span=st.sampled_from(SPANS),
    size=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    seed=st.integers(0, 99),
)
def test_aligned_conv_equals_the_naive_reference(
    kernel, dilation, extra, span, size, seed
):
    conv = make_conv(kernel, dilation, extra, span, seed)
    x = torch.randn(2, 3, *size, requires_grad=True)
    actual = conv(x)
    grad = torch.randn_like(actual)
    actual.backward(grad)

    later = [
        (
            stage.weight.detach().double().requires_grad_(),
            stage.bias.detach().double().requires_grad_(),
        )
        for stage in conv.later_stages
    ]
    doubles = x.detach().double().requires_grad_()
    first = conv._conv_forward(x, conv.weight, conv.bias).double()
    expected = aligned_outputs(
        doubles,
        first.detach(),
        later,
        ANCHORS.tolist(),
        STRIDE,
        span,
        (*STDS, STDS[-1]),
        dilation,
    )
    rows = actual.unflatten(1, (2, -1))
    assert rows.shape[2] == 12 + extra
    torch.testing.assert_close(rows[:, :, :4].flatten(1, 2), first.float())
    expected = torch.cat(expected, dim=2)
    torch.testing.assert_close(rows[:, :, 4:], expected.float(), rtol=1e-3, atol=2e-4)

    # The first stage's part, and the loops'.
    split = grad.unflatten(1, (2, -1))
    again = x.detach().requires_grad_()
    conv.weight.grad = None
    plain = conv._conv_forward(again, conv.weight, conv.bias)
    plain.backward(split[:, :, :4].flatten(1, 2))
    expected.backward(split[:, :, 4:].double())
    torch.testing.assert_close(
        x.grad, again.grad + doubles.grad.float(), rtol=1e-3, atol=1e-3
    )
    for stage, (weight, bias) in zip(conv.later_stages, later):
        for own, loops in ((stage.weight, weight), (stage.bias, bias)):
            torch.testing.assert_close(
                own.grad, loops.grad.float(), rtol=1e-3, atol=1e-3
            )


# --------------------------------------------------------- the plain head


@kinds
def test_aligned_conv_equals_the_ordinary_one_while_boxes_stay(kind):
    build, inputs = KINDS[kind]
    plain, ours = (later_random(build(**o)) for o in ({}, ALIGNED))
    for head in (plain, ours):
        for conv in box_outputs(head):
            conv.weight.data.zero_()
            conv.bias.data.zero_()
    for a, b in zip(plain(inputs())[1], ours(inputs())[1]):
        assert a.abs().max() > 0.1
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6)


@kinds
@pytest.mark.parametrize('span', SPANS)
def test_fresh_aligned_head_equals_the_plain_head_and_loads_its_file(kind, span):
    build, inputs = KINDS[kind]
    plain = build()
    ours = build(additions=[dict(type='AlignedFeatures', span=span)])
    assert ours.state_dict().keys() == plain.state_dict().keys()
    ours.load_state_dict(later_random(plain).state_dict())
    plain.load_state_dict(build().state_dict())
    ours.load_state_dict(plain.state_dict())
    for a, b in zip(plain(inputs()), ours(inputs())):
        for one, other in zip(a, b):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@kinds
def test_aligned_conv_samples_at_the_refined_boxes(kind):
    """Boxes two cells to the right see what a plain head sees two cells further."""
    build, inputs = KINDS[kind]
    ours, plain = (later_random(build(**o)) for o in (ALIGNED, {}))
    move, generator = 2, ours.prior_generator
    triples = zip(box_outputs(ours), box_outputs(plain), inputs())
    for level, (conv, ordinary, x) in enumerate(triples):
        anchors = generator.base_anchors[level]
        shift = anchors.new_tensor([move, 0, move, 0]) * generator.strides[level][0]
        deltas = ours.stages[0].bbox_coder.encode(anchors, anchors + shift)
        conv.weight.data.zero_()
        conv.bias.data.copy_(deltas.flatten())
        shifted = nn.functional.pad(x, (0, move))[..., move:]
        # The left column's kernel reaches what the shift has pushed out.
        found, expected = (
            y.unflatten(1, (len(anchors), 8))[:, :, 4:, :, 1:]
            for y in (conv(x), ordinary(shifted))
        )
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_aligned_head_is_initialised_as_the_base_head():
    """mmengine's initialisers go by the names of a layer's bases."""
    results = []
    for options in ({}, ALIGNED):
        for build, config in ((build_head, {}), (build_ssd_head, {})):
            head = build(**options, **config)
            for conv in box_outputs(head):
                nn.init.constant_(conv.weight, 7.0)
            torch.manual_seed(0)
            head.init_weights()
            results.append([conv.weight.clone() for conv in box_outputs(head)])
    torch.testing.assert_close(results[:2], results[2:], rtol=0, atol=0)
    assert all(weight.std() < 1 for weight in results[2])


# ---------------------------------------------------------------- training


@kinds
@pytest.mark.parametrize('stages', [(1, 2), (2, 2), (2, 3), (3, 2)])
def test_aligned_head_trains_every_parameter(kind, stages):
    build, inputs = KINDS[kind]
    head = build(label_stages=stages[0], reg_stages=stages[1], **ALIGNED)
    total_loss(losses_of(later_random(head, 0.01), inputs())).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@kinds
def test_sampling_points_have_no_gradient(kind):
    build, inputs = KINDS[kind]
    head = later_random(build(**ALIGNED))
    losses_of(head, inputs())['loss_bbox_s1'].backward()
    for conv in box_outputs(head):
        assert conv.weight.grad is None or not conv.weight.grad.any()
        assert conv.later_stages[0].weight.grad is not None


@kinds
def test_images_without_objects_give_losses_with_a_graph(kind):
    build, inputs = KINDS[kind]
    head = later_random(build(**ALIGNED))
    losses = losses_of(head, inputs(), [instances([], [])] * 2)
    assert losses['loss_bbox_s1'] == 0
    total_loss(losses).backward()
    assert all(p.grad is not None for p in head.parameters())


@kinds
def test_aligned_training_step_waits_for_nothing(kind):
    build, inputs = KINDS[kind]
    head = later_random(build(**ALIGNED))
    with Waits() as waits:
        bbox_preds = head(inputs())[1]
        sum(y.sum() for y in bbox_preds).backward()
    assert waits.found == []


@kinds
def test_invalid_boxes_keep_their_sampling_points(kind):
    build, inputs = KINDS[kind]
    head = later_random(build(**ALIGNED))
    plain = later_random(build())
    for conv in (*box_outputs(head), *box_outputs(plain)):
        conv.weight.data.zero_()
        conv.bias.data.fill_(float('nan'))
    for a, b in zip(head(inputs())[1], plain(inputs())[1]):
        torch.testing.assert_close(a, b, equal_nan=True, rtol=1e-5, atol=1e-6)
    for conv in box_outputs(head):
        conv.bias.data.fill_(1e8)  # far away: nothing is there but zeros
    for level, y in zip(box_outputs(head), head(inputs())[1]):
        later = y.unflatten(1, (level.num_anchors, 8))[:, :, 4:]
        assert later.isfinite().all()


@kinds
def test_aligned_conv_in_mixed_precision_is_close_and_keeps_dtype(kind):
    build, inputs = KINDS[kind]
    head = later_random(build(**ALIGNED))
    exact = head(inputs())[1]
    with torch.autocast('cpu', dtype=torch.bfloat16):
        mixed = head(inputs())[1]
        losses = losses_of(head, inputs())
    total_loss(losses).backward()
    for a, b in zip(exact, mixed):
        assert b.dtype == torch.bfloat16
        assert (a - b.float()).abs().mean() < 0.05 * a.abs().mean()


# --------------------------------------------------------- other additions


class TwoValues(Addition):
    num_values = 2


def test_values_of_other_additions_are_aligned_to_the_final_boxes(monkeypatch):
    original = Addition.build_all
    monkeypatch.setattr(
        Addition,
        'build_all',
        staticmethod(lambda c, v: nn.ModuleList([TwoValues(), *original(c, v)])),
    )
    for stages in (1, 2):
        head = later_random(build_head(reg_stages=stages, **ALIGNED))
        conv = head.retina_reg
        x = features()
        preds = head(x)[1]
        values = head.addition_values(head.additions[0], preds)
        for level, (f, pred, value) in enumerate(zip(x, preds, values)):
            rows = pred.unflatten(1, (2, -1))
            anchors = head.prior_generator.single_level_grid_priors(
                f.shape[-2:], level, device='cpu'
            )
            deltas = rows.permute(0, 3, 4, 1, 2)[..., : 4 * stages].flatten(1, 3)
            box = head.bbox_coder
            final = torch.stack([box.decode(anchors, d) for d in deltas])
            base = anchors.view(*f.shape[-2:], 2, 4)
            centred = final.view(2, *f.shape[-2:], 2, 4) - base
            cell = head.prior_generator.base_anchors[level] + centred
            scale = conv.stride_in_pixels[0] / head.prior_generator.strides[level][0]
            cell = cell.permute(0, 3, 1, 2, 4).flatten(1, 3) * scale
            tower = f
            for layer in head.reg_convs:
                tower = layer(tower)
            expected = conv._aligned(
                tower,
                conv.later_stages[-1],
                conv._sampling_points(cell, *f.shape[-2:]),
            )
            torch.testing.assert_close(
                value, expected.unflatten(1, (2, 2)), rtol=1e-4, atol=1e-5
            )


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ('options', 'words'),
    [
        (dict(reg_stages=1, **ALIGNED), ('reg_stages=1', 'reg_stages to 2')),
        (
            dict(additions=[dict(type='AlignedFeatures', span='anchor')]),
            ('AlignedFeatures.span', 'anchor', 'kernel'),
        ),
        (
            dict(
                anchor_generator=dict(
                    type='AnchorGenerator',
                    base_sizes=[32, 64, 96],
                    scales=[1.0],
                    ratios=[1.0],
                    strides=[16, 32, 64],
                ),
                **ALIGNED,
            ),
            ('levels 0 and 2', 'base_sizes'),
        ),
        (
            dict(
                bbox_coder=dict(type='DeltaXYWHBBoxCoder', add_ctr_clamp=True),
                **ALIGNED,
            ),
            ('levels 0 and 1', 'add_ctr_clamp'),
        ),
    ],
)
def test_invalid_options_are_refused(options, words):
    assert_refused(words, build_head, **options)


@pytest.mark.parametrize(
    ('wrong', 'word'),
    [
        (dict(kernel_size=2), 'kernel_size'),
        (dict(stride=2), 'stride'),
        (dict(padding=0), 'padding'),
        (dict(padding_mode='reflect'), 'padding_mode'),
        (dict(in_channels=4, groups=2), 'groups'),
    ],
)
def test_unsupported_convolutions_are_refused(wrong, word):
    settings = dict(in_channels=3, out_channels=8, kernel_size=3, padding=1)
    base = nn.Conv2d(**{**settings, **wrong})
    staged = StagedConv2d(base, [torch.zeros(4)])
    with pytest.raises(ValueError, match=word):
        AlignedConv2d(staged, ANCHORS, STRIDE, None)


def test_single_level_accepts_a_coder_in_pixels():
    generator = dict(HEAD['anchor_generator'], strides=[16])
    coder = dict(type='DeltaXYWHBBoxCoder', add_ctr_clamp=True)
    head = build_head(anchor_generator=generator, bbox_coder=coder, **ALIGNED)
    assert isinstance(head.retina_reg, AlignedConv2d)


def test_ssd_levels_may_have_different_anchors():
    sizes = SSD_HEAD['anchor_generator']['min_sizes']
    strides = SSD_HEAD['anchor_generator']['strides']
    assert len({s / t for s, t in zip(sizes, strides)}) > 1
    for layers in build_ssd_head(**ALIGNED).reg_convs:
        assert isinstance(layers[-1], AlignedConv2d)
