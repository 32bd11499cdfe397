"""VOC files are judged as mmdet reads them, and read where it would die."""

import itertools
import string
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.datasets import XMLDataset
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from PIL import Image

from mmdet_consistent import CheckedXMLDataset
from mmdet_consistent.datasets.check import check_dataset_config
from mmdet_consistent.datasets.check_voc import check_voc_file, check_voc_set, read_list
from mmdet_consistent.datasets.kinds import IMAGE, MENDED
from mmdet_consistent.datasets.problems import DataError
from tests.support import bad_data

register_all_modules()
NUMBERS = itertools.count()
fuzzy = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def fields(root, **options):
    common = dict(
        type='XMLDataset',
        data_root=str(root),
        ann_file='ImageSets/Main/train.txt',
        data_prefix=dict(sub_data_root=''),
        metainfo=dict(classes=('cell',)),
        pipeline=[],
        serialize_data=False,
    )
    return dict(common, **options)


def checked(root, **options):
    return DATASETS.build(dict(fields(root, **options), type='CheckedXMLDataset'))


def check(root, **options):
    ((_, problems, size),) = check_dataset_config(fields(root, **options))
    return problems, size


def edit(root, name, field, text):
    """Set or remove a field, wherever it is in the annotation."""
    path = root / f'Annotations/{name}.xml'
    tree = ElementTree.parse(path)
    for parent in list(tree.iter()):
        for child in parent.findall(field):
            parent.remove(child)
    if text is not None:
        parent = tree.find('object') if field == 'difficult' else tree.find('size')
        ElementTree.SubElement(parent, field).text = text
    tree.write(path)


coordinates = st.one_of(
    st.integers(-5, 70).map(str),
    st.floats(-2, 70, allow_nan=False).map(lambda v: f'{v:.2f}'),
    st.floats(0, 1).map(str),
    st.sampled_from(['', 'x', 'nan', 'inf', '1e400', ' 7 ', '1_0']),
)
boxes = st.tuples(coordinates, coordinates, coordinates, coordinates)


@given(found=st.lists(boxes, max_size=4))
@fuzzy
def test_every_box_that_is_kept_has_an_area_for_mmdet(tmp_path, found):
    root = tmp_path / str(next(NUMBERS))
    bad_data.voc(root, images=1)
    good = (4, 4, 14, 14)
    bad_data.edit_voc(root, 'n0', boxes=[*found, good])
    data = checked(root)
    kept = [i['bbox'] for i in data.get_data_info(0)['instances']]
    assert all(x2 > x1 and y2 > y1 for x1, y1, x2, y2 in kept)
    assert kept[-1] == [3, 3, 13, 13]
    problems, size = check(root)
    assert problems == data.problems
    assert size == f'1 images, {len(kept)} good objects'
    # What passes without a word, mmdet alone loads in the same way.
    if not problems:
        mmdets = DATASETS.build(fields(root))
        assert mmdets.get_data_info(0) == data.get_data_info(0)


@pytest.mark.parametrize('box', [(10.2, 5, 10.9, 40), (0.1, 0.2, 0.5, 0.6)])
def test_message_shows_a_box_as_it_is_and_as_mmdet_reads_it(tmp_path, box):
    bad_data.voc(tmp_path)
    bad_data.edit_voc(tmp_path, 'n1', boxes=[box])
    (problem,), _ = check(tmp_path)
    assert problem.kind == 'box without area'
    assert ', '.join(map(str, box)) in problem.detail
    x1, y1, x2, y2 = (int(v) - 1 for v in box)
    assert f'[{x1}, {y1}, {x2}, {y2}]' in problem.detail


@given(text=st.one_of(st.text(string.printable, max_size=6), st.just('0.0')))
@fuzzy
def test_any_difficult_is_loaded(tmp_path, text):
    root = tmp_path / str(next(NUMBERS))
    bad_data.voc(root, images=1)
    edit(root, 'n0', 'difficult', ''.join(c for c in text if c >= ' '))
    (first, *_) = checked(root).get_data_info(0)['instances']
    assert first['ignore_flag'] in (0, 1)


@pytest.mark.parametrize(
    ('text', 'flag', 'told'),
    [
        ('0', 0, 0),
        ('1', 1, 0),
        ('0.0', 0, 1),
        ('1.0', 1, 1),
        ('true', 1, 1),
        ('Unspecified', 0, 1),
        ('', 0, 1),
    ],
)
def test_difficult_that_is_no_number_is_mended(tmp_path, text, flag, told):
    bad_data.voc(tmp_path, images=1)
    edit(tmp_path, 'n0', 'difficult', text)
    data = checked(tmp_path)
    assert data.get_data_info(0)['instances'][0]['ignore_flag'] == flag
    assert [p.effect for p in data.problems] == [MENDED] * told


@pytest.mark.parametrize(
    ('encoding', 'written'),
    [
        ('gb2312', 'gb2312'),
        ('shift_jis', 'shift_jis'),
        ('utf-16', 'utf-16'),
        ('utf-8', 'utf-8-sig'),
        ('iso-8859-1', 'iso-8859-1'),
    ],
)
def test_declared_encoding_is_read(tmp_path, encoding, written):
    bad_data.voc(tmp_path, images=1)
    path = tmp_path / 'Annotations/n0.xml'
    text = f'<?xml version="1.0" encoding="{encoding}"?>{path.read_text()}'
    path.write_bytes(text.encode(written))
    data = checked(tmp_path)
    assert len(data.get_data_info(0)['instances']) == 2
    assert all(p.effect == MENDED for p in data.problems)


@pytest.mark.parametrize(
    'content',
    [
        b'<?xml version="1.0" encoding="my-own"?><annotation/>',
        b'<?xml version="1.0" encoding="gb2312"?><annotation>\xff\xff</annotation>',
        '<annotation><a>ä</a></annotation>'.encode('latin-1'),
    ],
)
def test_unknown_encoding_is_named_and_left_out(tmp_path, content):
    bad_data.voc(tmp_path)
    (tmp_path / 'Annotations/n1.xml').write_bytes(content)
    data = checked(tmp_path)
    assert len(data) == 2
    (problem,) = data.problems
    assert problem.file.endswith('n1.xml')
    assert (problem.kind, problem.effect) == ('corrupt annotation', IMAGE)


@pytest.mark.parametrize('text', ['{}\n', '\ufeff{}\n', '\n{} \r\n\r\n', '\t{}'])
@pytest.mark.parametrize('name', ['n0', 'my photo 1', 'a.b', 'ö'])
@pytest.mark.parametrize('suffix', ['.jpg', '.JPG', '.jpeg', '.png'])
def test_lists_names_and_endings_of_images(tmp_path, text, name, suffix):
    bad_data.voc(tmp_path, images=1)
    list_file = tmp_path / 'ImageSets/Main/train.txt'
    list_file.write_bytes(text.format(name).encode())
    (tmp_path / 'Annotations/n0.xml').rename(tmp_path / f'Annotations/{name}.xml')
    image = tmp_path / f'JPEGImages/{name}{suffix}'
    with Image.open(tmp_path / 'JPEGImages/n0.jpg') as old:
        old.convert('RGB').save(image)
    if name + suffix != 'n0.jpg':
        (tmp_path / 'JPEGImages/n0.jpg').unlink()
    assert read_list(str(list_file)) == [name]
    assert not check_voc_set(str(tmp_path), str(list_file))[0]
    data = checked(tmp_path, pipeline=[dict(type='LoadImageFromFile')])
    assert data[0]['img'].shape == (48, 64, 3)
    assert data.get_data_info(0)['img_path'] == str(image)


def test_folders_of_other_names_are_found(tmp_path):
    bad_data.voc(tmp_path)
    (tmp_path / 'JPEGImages').rename(tmp_path / 'images')
    (tmp_path / 'Annotations').rename(tmp_path / 'labels')
    folders = dict(img_subdir='images', ann_subdir='labels')
    for kind in ('XMLDataset', 'mmdet.XMLDataset', XMLDataset, CheckedXMLDataset):
        assert check(tmp_path, type=kind, **folders)[0] == []
    assert len(checked(tmp_path, check_images='full', **folders)) == 3


@pytest.mark.parametrize('text', [None, '', '0', 'x', '64.0'])
def test_missing_size_is_that_of_the_image_as_opencv_shows_it(tmp_path, text):
    bad_data.voc(tmp_path, images=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'JPEGImages/n0.jpg'
    Image.new('RGB', (48, 64)).save(path, exif=exif)
    edit(tmp_path, 'n0', 'width', text)
    data = checked(tmp_path, check_images='no')
    info = data.get_data_info(0)
    assert (info['width'], info['height']) == (64, 48)
    assert [p.effect for p in data.problems] == [MENDED]
    raw = [dict(type='LoadImageFromFile', color_type='unchanged')]
    if text != '64.0':
        info = checked(tmp_path, check_images='no', pipeline=raw).get_data_info(0)
        assert (info['width'], info['height']) == (48, 64)


@pytest.mark.parametrize('how', ['missing', 'empty', 'foreign'])
def test_bad_image_without_annotated_size_is_named_and_left_out(tmp_path, how):
    bad_data.voc(tmp_path)
    bad_data.edit_voc(tmp_path, 'n1', width=None, boxes=[(4, 4, 14, 14)])
    bad_data.spoil_image(tmp_path / 'JPEGImages/n1.jpg', how)
    data = checked(tmp_path, check_images='no')
    assert len(data) == 2
    (problem,) = data.problems
    assert problem.file.endswith('n1.jpg')
    assert problem.effect == IMAGE
    root, _ = check_voc_file(
        tmp_path / 'Annotations/n1.xml', tmp_path / 'JPEGImages/n1.jpg', None, 'no'
    )
    assert root is None


def test_list_that_is_not_utf8_is_named(tmp_path):
    (tmp_path / 'a.txt').write_bytes('日本'.encode('shift_jis'))
    with pytest.raises(DataError, match=r'a\.txt: not in UTF-8'):
        read_list(str(tmp_path / 'a.txt'))
