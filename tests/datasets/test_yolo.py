"""YOLO folders become COCO annotations, and what is wrong in them is named by line."""

import importlib
import json
import math
import re
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.datasets import CocoDataset
from PIL import Image

from tests.support.bad_data import write_image
from tests.support.processes import ROOT, run_tool
from tests.support.yolo import make_yolo

pytest.importorskip('globox', reason='YOLO folders are read with globox')
from mmdet_consistent.datasets.problems import DataError
from mmdet_consistent.datasets.yolo import YoloData, label_path, read_yolo

BOX = '0 0.5 0.5 0.25 0.5\n'


def read(root, split='train'):
    return read_yolo(YoloData(root), split)


def boxes(converted):
    return [entry['bbox'] for entry in converted.content['annotations']]


@pytest.mark.works_with(
    'Ultralytics YOLO data', 'convert them, or check them', 'tools.md#convert'
)
def test_convert_writes_what_supervision_reads_from_the_same_folder(tmp_path, capsys):
    supervision = pytest.importorskip('supervision', reason='reads YOLO on its own')
    text = {
        'a': BOX + '1 0.1 0.2 0.2 0.4\n\n',
        'b': '1 0.1 0.1 0.5 0.1 0.3 0.7\n',  # a polygon
        'empty': '',
        'background': None,
    }
    root = make_yolo(tmp_path / 'yolo', text)
    out = tmp_path / 'train.json'
    run_tool(ROOT / 'tools/convert.py', 'yolo', root / 'data.yaml', out)
    assert '4 images, 3 objects' in capsys.readouterr().out
    ours = CocoDataset(
        ann_file=str(out),
        data_prefix=dict(img=str(root / 'images')),
        metainfo=dict(classes=('cell', 'red cell')),
        pipeline=[],
    )
    theirs = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(root / 'images'),
        annotations_directory_path=str(root / 'labels'),
        data_yaml_path=str(root / 'data.yaml'),
    )
    assert theirs.classes == ['cell', 'red cell']
    assert len(ours) == len(theirs) == 4
    for sample in ours:
        expected = theirs.annotations[sample['img_path']]
        found = sample['instances']
        assert len(found) == len(expected)
        for instance, (box, _, _, label, _, _) in zip(found, expected):
            assert instance['bbox_label'] == label
            assert instance['bbox'] == pytest.approx(box.tolist(), abs=0.01)


def test_boxes_are_in_pixels_of_the_image(tmp_path):
    root = make_yolo(tmp_path, {'a': BOX})
    converted = read(root)
    assert boxes(converted) == [[24, 12, 16, 24]]
    (entry,) = converted.content['annotations']
    assert (entry['id'], entry['category_id'], entry['area']) == (1, 1, 384)
    assert entry['iscrowd'] == 0
    names = [category['name'] for category in converted.content['categories']]
    assert names == ['cell', 'red cell']


def test_photo_turned_by_exif_has_the_size_that_it_is_shown_in(tmp_path):
    root = make_yolo(tmp_path, {'a': BOX})
    (root / 'images/a.png').unlink()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (64, 48)).save(root / 'images/a.jpg', exif=exif)
    converted = read(root)
    (image,) = converted.content['images']
    assert (image['width'], image['height']) == (48, 64)
    assert boxes(converted) == [[18, 16, 12, 32]]


def test_nested_folders_with_equal_names_keep_their_own_labels(tmp_path):
    labels = {'train/day/a': BOX, 'train/night/a': '1 0.5 0.5 1 1\n', 'val/a': BOX}
    root = make_yolo(tmp_path, labels, train='images/train', val=['images/val'])
    converted = read(root)
    found = {image['file_name'] for image in converted.content['images']}
    assert found == {'day/a.png', 'night/a.png'}
    assert boxes(converted) == [[24, 12, 16, 24], [0, 0, 64, 48]]
    assert len(boxes(read(root, 'val'))) == 1


def test_lists_of_images_and_roboflows_paths_are_followed(tmp_path):
    root = make_yolo(
        tmp_path, {'a': BOX, 'b': BOX, 'c': BOX}, train='list.txt', val='../images'
    )
    (root / 'list.txt').write_text('./images/a.png\nimages/c.png\n')
    found = [image['file_name'] for image in read(root).content['images']]
    assert found == ['a.png', 'c.png']
    assert len(read(root, 'val').content['images']) == 3


def test_label_is_found_beside_an_image_without_a_folder_of_images(tmp_path):
    assert label_path(tmp_path / 'a.b.jpg') == tmp_path / 'a.b.txt'
    nested = tmp_path / 'images/x/images/a.jpg'
    assert label_path(nested) == tmp_path / 'images/x/labels/a.txt'


def test_keypoints_are_left_out(tmp_path):
    root = make_yolo(
        tmp_path, {'a': f'{BOX.strip()} 0.1 0.2 2\n'}, train='images', kpt_shape=[1, 3]
    )
    assert boxes(read(root)) == [[24, 12, 16, 24]]


@pytest.mark.parametrize(
    ('line', 'kind', 'words'),
    [
        ('0 0.5 0.5 0.2', 'malformed object', 'has 4 values; a box has 5'),
        ('0 0.5 0.5 0.2 0.2 0.9', 'malformed object', 'has 6 values'),
        ('2 0.5 0.5 0.2 0.2', 'unknown category', 'class 2; .* are 0 to 1'),
        ('0.5 0.5 0.5 0.2 0.2', 'unknown category', r'class 0\.5'),
        ('cell 0.5 0.5 0.2 0.2', 'box that is no number', 'cell'),
        ('0 nan 0.5 0.2 0.2', 'box that is no number', 'nan'),
        ('0 0.5 0.5 -0.2 0.2', 'inverted box', '-0.2'),
    ],
)
def test_line_that_is_no_box_is_named(tmp_path, line, kind, words):
    root = make_yolo(tmp_path, {'a': BOX + line + '\n' + BOX})
    converted = read(root)
    (problem,) = converted.problems
    assert problem.file.endswith('labels/a.txt')
    assert (problem.where, problem.kind) == ('line 2', kind)
    assert re.search(words, problem.detail)
    assert len(boxes(converted)) == 2


@pytest.mark.parametrize(
    ('line', 'kind'),
    [
        ('0 0.9 0.5 0.4 0.2', 'box reaches out of the image'),
        ('0 1.5 0.5 0.4 0.2', 'box outside the image'),
        ('0 30 20 10 10', 'box outside the image'),  # pixels
        ('0 0.5 0.5 0 0.2', 'box without area'),
    ],
)
def test_check_data_names_the_line_of_a_bad_box(tmp_path, capsys, line, kind):
    root = make_yolo(tmp_path, {'a': BOX + line + '\n'})
    with pytest.raises(SystemExit) as done:
        run_tool(ROOT / 'tools/check_data.py', root / 'data.yaml')
    output = capsys.readouterr().out
    assert f'labels/a.txt: line 2: {kind}: ' in output
    assert 'train: 1 images, 2 objects, 1 problems' in output
    assert done.value.code == (kind != 'box reaches out of the image')


def test_check_data_reads_every_split_of_a_yolo_folder(tmp_path, capsys):
    labels = {'train/a': BOX, 'val/b': '7 0.5 0.5 0.1 0.1\n', 'val/c': BOX}
    root = make_yolo(tmp_path, labels, train='images/train', val='images/val')
    write_image(root / 'images/train/a.png')
    (root / 'images/val/c.png').write_bytes(b'no image')
    with pytest.raises(SystemExit) as done:
        run_tool(ROOT / 'tools/check_data.py', root)
    output = capsys.readouterr().out
    assert 'data.yaml: train: 1 images, 1 objects, 0 problems' in output
    assert 'data.yaml: val: 1 images, 0 objects, 2 problems' in output
    assert 'labels/val/b.txt: line 1: unknown category: class 7' in output
    assert 'images/val/c.png: image: corrupt image' in output
    assert done.value.code == 1


def test_convert_refuses_mistakes_and_leaves_them_out_if_asked(tmp_path, capsys):
    root = make_yolo(tmp_path, {'a': BOX + '0 0.5 0.5 0.2\n', 'b': '5 0 0 1 1\n'})
    out = tmp_path / 'train.json'
    command = (ROOT / 'tools/convert.py', 'yolo', root, out)
    with pytest.raises(SystemExit, match='mend these') as error:
        run_tool(*command)
    assert 'a.txt: line 2: malformed object' in str(error.value)
    assert 'b.txt: line 1: unknown category' in str(error.value)
    assert not out.exists()
    run_tool(*command, '--bad-data', 'drop')
    assert len(json.loads(out.read_text())['annotations']) == 1
    assert 'left out' in capsys.readouterr().out


@pytest.fixture
def one_image(tmp_path):
    return make_yolo(tmp_path, {'a': ''})


VALUES = st.one_of(
    st.integers(-2, 3).map(str),
    st.floats(-1, 2).map(str),
    st.sampled_from(['nan', 'inf', '1e400', 'x', '1_0', '٣', '\x00']),
)
LINES = st.lists(st.lists(VALUES, max_size=9).map(' '.join), max_size=5)


@settings(
    deadline=None,
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(lines=LINES)
def test_every_line_is_a_box_or_a_problem(one_image, lines):
    (one_image / 'labels/a.txt').write_text('\n'.join(lines), encoding='utf-8')
    converted = read(one_image)
    assert all(math.isfinite(v) for box in boxes(converted) for v in box)
    places = [*converted.places.values(), *(p[:2] for p in converted.problems)]
    expected = {f'line {n}' for n, line in enumerate(lines, start=1) if line.strip()}
    assert sorted(where for _, where in places) == sorted(expected)


def test_classes_may_be_numbered(tmp_path, capsys):
    labels = {'a': '10 0.5 0.5 0.5 0.5\n'}
    names = {number: f'class {number}' for number in reversed(range(11))}
    root = make_yolo(tmp_path, labels, names=names)
    (entry,) = read(root).content['annotations']
    assert entry['category_id'] == 11
    with pytest.raises(SystemExit, match='0'):
        run_tool(ROOT / 'tools/check_data.py', root / 'data.yaml')
    assert '1 images, 1 objects, 0 problems' in capsys.readouterr().out


def test_missing_globox_is_named_with_the_extra(monkeypatch):
    for name in ('globox', 'mmdet_consistent.datasets.convert'):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, 'mmdet_consistent.datasets.convert')
    with pytest.raises(ModuleNotFoundError, match=r"'mmdet_consistent\[convert\]'"):
        importlib.import_module('mmdet_consistent.datasets.convert')


@pytest.mark.parametrize(
    ('fields', 'words'),
    [
        (dict(names=None), 'names=None must be a list'),
        (dict(names={1: 'a'}), 'numbered from 0'),
        (dict(names=['a', 'a']), 'same name: a'),
        (dict(train=None), 'none of the fields train'),
        (dict(train='nowhere'), 'nowhere does not exist'),
        (dict(train='labels'), "train='labels' has no image"),
        (dict(train='unlabelled'), r'no image of .train. has labels; .*a\.png'),
    ],
)
def test_unusable_data_yaml_is_named(tmp_path, fields, words):
    fields = {'train': 'images', 'names': ['cell'], **fields}
    root = make_yolo(tmp_path, {'a': BOX}, **fields)
    (root / 'unlabelled').mkdir()
    write_image(root / 'unlabelled/a.png')
    with pytest.raises(DataError, match=words):
        read(root)


def test_missing_data_yaml_and_split_are_named(tmp_path):
    with pytest.raises(DataError, match=r'data\.yaml: there is no such file'):
        YoloData(tmp_path)
    with pytest.raises(DataError, match="no field 'val'; there are train"):
        read(make_yolo(tmp_path, {'a': BOX}), 'val')
    (tmp_path / 'data.yaml').write_text('names: [')
    with pytest.raises(DataError, match='not readable YAML'):
        YoloData(tmp_path)
