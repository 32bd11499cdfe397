"""An image is bad if the pipeline can't load it as annotated, and only then."""

import contextlib
import io
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmcv.transforms import BaseTransform
from mmdet.registry import DATASETS, TRANSFORMS
from mmdet.utils import register_all_modules
from mmengine.fileio import BaseStorageBackend, register_backend
from PIL import Image

from mmdet_consistent.datasets.check import check_dataset_config
from mmdet_consistent.datasets.check_image import MAX_PIXELS, Loading, check_image
from mmdet_consistent.datasets.check_voc import check_voc_file
from mmdet_consistent.datasets.problems import DataError
from tests.support import bad_data

register_all_modules()
NUMBERS = itertools.count()
SIZE = (64, 48)


@register_backend('test_store', prefixes='test-store')
class Store(BaseStorageBackend):
    """Files elsewhere: ``test-store:///path`` is read from ``/path``."""

    def get(self, path):
        with open(str(path).replace('test-store://', ''), 'rb') as file:
            return file.read()

    def get_text(self, path, encoding='utf-8'):
        return self.get(path).decode(encoding)

    @contextlib.contextmanager
    def get_local_path(self, path):
        yield str(path).replace('test-store://', '')


@TRANSFORMS.register_module()
class FailingTransform(BaseTransform):
    calls = 0

    def transform(self, results):
        FailingTransform.calls += 1
        raise TypeError('a bug in a transform')


def encoded(kind, exif=None):
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE[::-1], 3), np.uint8)
    file = io.BytesIO()
    options = dict(exif=exif) if exif else {}
    if kind == 'PROGRESSIVE':
        kind, options = 'JPEG', dict(options, progressive=True)
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def with_preview():
    """A JPEG with another one in its EXIF block, as cameras write it."""
    content = encoded('JPEG')
    block = b'Exif\0\0' + encoded('JPEG')
    return (
        content[:2]
        + b'\xff\xe1'
        + (len(block) + 2).to_bytes(2, 'big')
        + block
        + (content[2:])
    )


GOOD = {kind: encoded(kind) for kind in ('JPEG', 'PROGRESSIVE', 'PNG')}
GOOD['PREVIEW'] = with_preview()


@given(
    kind=st.sampled_from(list(GOOD)),
    parts=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b'\xff\xd8', b'\xff\xda', b'\xff\xd9', bytes(5000)]),
        )
    ),
    level=st.sampled_from(['quick', 'full']),
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_data_behind_the_end_of_a_good_file_do_not_matter(tmp_path, kind, parts, level):
    path = tmp_path / 'a.jpg'
    path.write_bytes(GOOD[kind] + b''.join(parts))
    assert check_image(str(path), SIZE, level) is None


@given(kind=st.sampled_from(list(GOOD)), part=st.floats(0, 1), data=st.data())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_file_cut_off_anywhere_is_found(tmp_path, kind, part, data):
    content = GOOD[kind]
    path = tmp_path / 'a.jpg'
    path.write_bytes(content[: int(part * (len(content) - 1))])
    level = data.draw(st.sampled_from(['quick', 'full']))
    assert check_image(str(path), SIZE, level) is not None


@pytest.mark.parametrize('suffix', ['.jpg', '.hdr', '.pbm', '.exr', '.tiff', '.webp'])
def test_format_that_pillow_does_not_know_is_judged_by_opencv(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    pixels = np.zeros(
        (*SIZE[::-1], 3), np.float32 if suffix in '.hdr.exr' else np.uint8
    )
    try:
        cv2.imwrite(str(path), pixels if suffix != '.pbm' else pixels[..., 0])
    except cv2.error:
        pytest.skip(f'this OpenCV writes no {suffix}')
    if cv2.imread(str(path)) is not None:
        assert check_image(str(path), SIZE) is None
        assert check_image(str(path), SIZE[::-1])[0] == 'image size differs'


def data_set(root, content=None, size=SIZE, pipeline=(), **options):
    content = content or encoded('JPEG')
    annotations = bad_data.coco(root, images=1)
    (root / 'images/0.jpg').write_bytes(content)
    annotations['images'][0].update(width=size[0], height=size[1])
    path = bad_data.save(root, annotations)
    common = dict(
        type='CheckedCocoDataset',
        ann_file=str(path),
        data_prefix=dict(img=str(root / 'images')),
        metainfo=dict(classes=('cell',)),
        pipeline=list(pipeline),
        check_images='full',
        serialize_data=False,
    )
    return dict(common, **options)


@pytest.mark.parametrize('test_mode', [False, True])
def test_photo_of_a_hundred_megapixels_is_used(tmp_path, test_mode):
    fields = data_set(
        tmp_path, size=(12000, 9000), check_images='no', test_mode=test_mode
    )
    assert not DATASETS.build(fields).problems
    with pytest.raises(DataError, match='huge image'):  # more than OpenCV reads
        DATASETS.build(data_set_of_size(fields, (MAX_PIXELS, 2)))
    with pytest.raises(DataError, match='is more than 1000 pixels'):
        DATASETS.build(dict(fields, max_pixels=1000))


def data_set_of_size(fields, size):
    path = Path(fields['ann_file'])
    content = json.loads(path.read_text())
    content['images'][0].update(width=size[0], height=size[1])
    path.write_text(json.dumps(content))
    return fields


@pytest.mark.parametrize('orientation', [1, 3, 5, 6, 8])
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(color_type='grayscale'),
        dict(color_type='color_ignore_orientation'),
        dict(color_type='unchanged'),
        dict(imdecode_backend='pillow'),
        dict(imdecode_backend='pillow', color_type='unchanged'),
    ],
)
def test_annotated_size_is_that_which_the_pipeline_loads(
    tmp_path, orientation, options
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    load = dict(type='LoadImageFromFile', **options)
    fields = data_set(tmp_path, encoded('JPEG', exif), pipeline=[load])
    loaded = DATASETS.build(dict(fields, check_images='no'))[0]['img'].shape
    size = loaded[1], loaded[0]
    data = DATASETS.build(data_set_of_size(fields, size))
    assert not data.problems
    plain = dict(fields, type='CocoDataset')
    del plain['check_images']
    assert next(check_dataset_config(plain))[1] == []
    with pytest.raises(DataError, match='image size differs'):
        DATASETS.build(data_set_of_size(fields, size[::-1]))


@pytest.mark.parametrize('kind', ['coco', 'voc'])
@pytest.mark.parametrize('test_mode', [False, True])
def test_remote_files_are_read_through_their_backend(tmp_path, kind, test_mode):
    far = f'test-store://{tmp_path}'
    load = dict(type='LoadImageFromFile', backend_args=dict(backend='test_store'))
    if kind == 'coco':
        fields = data_set(tmp_path, pipeline=[load], test_mode=test_mode)
        fields['data_prefix'] = dict(img=f'{far}/images')
        image = tmp_path / 'images/0.jpg'
    else:
        bad_data.voc(tmp_path, images=2)
        image = tmp_path / 'JPEGImages/n0.jpg'
        fields = dict(
            type='CheckedXMLDataset',
            ann_file=f'{far}/ImageSets/Main/train.txt',
            data_prefix=dict(sub_data_root=far),
            metainfo=dict(classes=('cell',)),
            backend_args=dict(backend='test_store'),
            pipeline=[load],
            serialize_data=False,
            test_mode=test_mode,
        )
    for level in ('no', 'quick', 'full'):
        data = DATASETS.build(dict(fields, check_images=level))
        assert not data.problems
        assert data[0]['img'].shape == (48, 64, 3)
    bad_data.spoil_image(image, 'foreign')
    if test_mode:
        with pytest.raises(DataError, match='corrupt image'):
            DATASETS.build(dict(fields, check_images='full'))
        data = DATASETS.build(dict(fields, check_images='quick'))
        with pytest.raises(DataError, match=f'{image.name}: image: corrupt image'):
            data[0]


@pytest.mark.parametrize('prefix', ['', 'test-store://'])
@pytest.mark.parametrize('test_mode', [False, True])
def test_bug_in_a_transform_is_not_the_fault_of_the_image(tmp_path, prefix, test_mode):
    load = dict(type='LoadImageFromFile')
    pipeline = [load, dict(type='FailingTransform')]
    fields = data_set(tmp_path, pipeline=pipeline, test_mode=test_mode)
    fields['data_prefix'] = dict(img=f'{prefix}{tmp_path}/images')
    data = DATASETS.build(fields)
    calls = FailingTransform.calls
    with pytest.raises(TypeError, match='a bug in a transform'):
        data[0]
    assert FailingTransform.calls == calls + 1
    assert not data.problems


def test_loading_of_a_pipeline_without_an_image_is_plain():
    assert Loading.of([len]) == Loading()
    assert Loading().is_local('/a/b.jpg')


def test_size_of_a_raw_photo_in_a_voc_file_is_the_stored_one(tmp_path):
    bad_data.voc(tmp_path, images=1)
    bad_data.edit_voc(tmp_path, 'n0', width=None, boxes=[(4, 4, 14, 14)])
    exif = Image.Exif()
    exif[0x0112] = 8
    image = tmp_path / 'JPEGImages/n0.jpg'
    image.write_bytes(encoded('JPEG', exif))
    for loading, size in ((Loading(), SIZE[::-1]), (Loading(raw=True), SIZE)):
        xml = tmp_path / 'Annotations/n0.xml'
        root, _ = check_voc_file(xml, image, None, 'no', loading=loading)
        found = root.findtext('size/width'), root.findtext('size/height')
        assert found == tuple(map(str, size))
