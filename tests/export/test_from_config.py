"""The exported file does what the test pipeline does to an image, or is refused."""

import runpy

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets.transforms import Resize
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_consistent.export.from_config import class_names, image_channels
from mmdet_consistent.export.from_config import test_resize as resize_of
from mmdet_consistent.utils.errors import ConfigError
from tests.support.processes import ROOT

pytest.importorskip('onnxruntime')

LOAD = dict(type='LoadImageFromFile')
PACK = dict(type='PackDetInputs', meta_keys=())
SQUARE = dict(type='Resize', scale=(60, 60))
# Steps of a test pipeline: some change pixels, some only seem to.
STEPS = [
    SQUARE,
    dict(type='Resize', scale=60, keep_ratio=True),
    dict(type='mmdet.Resize', scale=(50, 90), keep_ratio=True),
    dict(type=Resize, scale=(70, 40), keep_ratio=True, interpolation='bilinear'),
    dict(type='Resize', scale=(60, 60), interpolation='nearest'),
    dict(type='Resize', scale=(60, 60), backend='pillow'),
    dict(type='Resize', scale_factor=0.5),
    dict(type='mmcv.Resize', scale=(33, 60)),
    dict(type='FixScaleResize', scale=(50, 90), keep_ratio=True),
    dict(type='ResizeShortestEdge', scale=40),
    dict(type='Pad', pad_to_square=True, pad_val=dict(img=114)),
    dict(type='Pad', size_divisor=32),
    dict(type='CenterCrop', crop_size=32),
    dict(type='RandomFlip', prob=1.0),
    dict(type='Normalize', mean=[10, 20, 30], std=[2, 2, 2], to_rgb=True),
    dict(type='PhotoMetricDistortion'),
]
LOADS = [
    LOAD,
    dict(type=LoadImageFromFile, to_float32=False),
    dict(type='mmcv.LoadImageFromFile'),
    dict(type='LoadImageFromFile', color_type='grayscale'),
]


@pytest.fixture(scope='module', autouse=True)
def _registered():
    register_all_modules()


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp('image') / 'image.png'
    noise = np.random.default_rng(0).integers(0, 256, (48, 80, 3), dtype=np.uint8)
    cv2.imwrite(str(path), noise)
    return path


def config(*datasets):
    """A config that is tested on these data sets, joined if they are several."""
    dataset = datasets[0]
    if len(datasets) > 1:
        dataset = dict(type='ConcatDataset', datasets=list(datasets))
    return Config(dict(test_dataloader=dict(dataset=dataset)))


def coco(*steps, **options):
    return dict(type='CocoDataset', pipeline=[LOAD, *steps, PACK], **options)


def prepared(image, resize, channels):
    """The image as the program that runs the exported file prepares it."""
    tool = runpy.run_path(str(ROOT / 'tools/predict_onnx.py'))
    flag = cv2.IMREAD_GRAYSCALE if channels == 1 else cv2.IMREAD_COLOR
    pixels = cv2.imread(str(image), flag)
    return tool['resized'](pixels, **resize) if resize else pixels


@given(load=st.sampled_from(LOADS), steps=st.lists(st.sampled_from(STEPS), max_size=3))
def test_exported_resize_equals_the_pipeline_or_is_refused(image, load, steps):
    pipeline = [load, *steps, PACK]
    cfg = config(dict(type='CocoDataset', pipeline=pipeline))
    try:
        resize = resize_of(cfg)
    except ConfigError:
        return
    data = Compose(pipeline)(dict(img_path=str(image), img_id=0))
    expected = data['inputs'].permute(1, 2, 0).numpy()
    found = prepared(image, resize, image_channels(cfg))
    np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_grayscale_images_are_exported_as_such_but_not_in_part():
    gray = dict(LOAD, color_type='grayscale')
    sets = [dict(type='CocoDataset', pipeline=[load, PACK]) for load in (LOAD, gray)]
    assert [image_channels(config(dataset)) for dataset in sets] == [3, 1]
    with pytest.raises(ConfigError, match=r"loaded by \['color', 'grayscale'\]"):
        image_channels(config(*sets))
    unchanged = dict(LOAD, color_type='unchanged')
    with pytest.raises(ConfigError, match=r"File\(color_type='unchanged'\)"):
        resize_of(config(dict(type='CocoDataset', pipeline=[unchanged, PACK])))


@pytest.mark.parametrize(
    ('steps', 'expected'),
    [
        ([], None),
        ([SQUARE], dict(scale=[60, 60], keep_ratio=False)),
        ([dict(SQUARE, type='mmdet.Resize')], dict(scale=[60, 60], keep_ratio=False)),
        ([dict(SQUARE, type=Resize, scale=9)], dict(scale=[9, 9], keep_ratio=False)),
        (
            [SQUARE, dict(type='LoadAnnotations', with_bbox=True)],
            dict(scale=[60, 60], keep_ratio=False),
        ),
    ],
)
def test_single_resize_of_any_spelling_is_exported(steps, expected):
    assert resize_of(config(coco(*steps))) == expected


@pytest.mark.parametrize(
    ('steps', 'message'),
    [
        ([dict(type='Pad', size=(96, 96))], r'Pad\(size=\(96, 96\)\)'),
        ([dict(type='MyOwn')], r'MyOwn\(\)'),
        ([dict(type='Resize', scale_factor=0.5)], r'Resize\(scale_factor=0.5\)'),
        ([SQUARE, SQUARE], 'more than once'),
    ],
)
def test_step_that_would_get_lost_is_refused_by_name(steps, message):
    with pytest.raises(ConfigError, match=message):
        resize_of(config(coco(*steps)))


def test_joined_and_wrapped_sets_are_exported_if_all_are_resized_alike():
    assert resize_of(config(coco(SQUARE), coco(SQUARE)))['scale'] == [60, 60]
    repeated = dict(type='RepeatDataset', times=1, dataset=coco(SQUARE))
    assert resize_of(config(repeated, coco(SQUARE)))['scale'] == [60, 60]
    with pytest.raises(ConfigError, match='differently in joined sets'):
        resize_of(config(coco(SQUARE), coco()))
    flip = dict(type='RandomFlip', prob=1.0)
    mixed = dict(type='MultiImageMixDataset', dataset=coco(SQUARE), pipeline=[flip])
    with pytest.raises(ConfigError, match='RandomFlip'):
        resize_of(config(mixed))
    with pytest.raises(ConfigError, match=r'test_dataloader\.dataset is missing'):
        resize_of(Config(dict(test_dataloader=None)))


def test_class_names_are_the_checkpoints_or_the_configs_but_never_guessed():
    own = coco(metainfo=dict(classes=('cat', 'dog')))
    assert class_names(config(own), ['a', 'b'], 2) == ['a', 'b']
    assert class_names(config(own), [], 2) == ['cat', 'dog']
    assert class_names(config(own, own), [], 2) == ['cat', 'dog']
    # mmdet takes COCO's names where a data set has none of its own.
    assert len(class_names(config(coco()), [], 80)) == 80
    assert class_names(config(dict(type='VOCDataset')), [], 20)[0] == 'aeroplane'
    with pytest.raises(ConfigError, match=r'num_classes=2, but test_data.* 80 classes'):
        class_names(config(coco()), [], 2)
    with pytest.raises(ConfigError, match='the checkpoint names 1 classes'):
        class_names(config(own), ['cat'], 2)
    with pytest.warns(UserWarning, match=r"\['dog', 'cat'\].*\['cat', 'dog'\]"):
        assert class_names(config(own), ['dog', 'cat'], 2) == ['dog', 'cat']
