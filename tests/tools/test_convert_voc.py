import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from tools.convert_voc import convert

ROOT = Path(__file__).resolve().parents[2]
OBJECT = (
    '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>'
    '<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
)


def make_voc(root, objects):
    for folder in ('Annotations', 'ImageSets/Main', 'JPEGImages'):
        (root / folder).mkdir(parents=True)
    (root / 'ImageSets/Main/train.txt').write_text('one\n')
    cv2.imwrite(str(root / 'JPEGImages/one.jpg'), np.zeros((100, 200, 3), np.uint8))
    body = ''.join(OBJECT.format(*o) for o in objects)
    (root / 'Annotations/one.xml').write_text(f'<annotation>{body}</annotation>')


def test_convert_scales_and_clips_boxes_and_drops_empty_ones(tmp_path):
    make_voc(tmp_path / 'voc', [('b', 20, 10, 300, 50), ('a', 5, 5, 5, 9)])
    dropped = convert(tmp_path / 'voc', 'train', ['a', 'b'], tmp_path / 'o', (100, 50))
    assert len(dropped) == 1
    assert 'one.xml: object 1 (a)' in dropped[0]
    coco = json.loads((tmp_path / 'o/annotations/train.json').read_text())
    assert coco['images'][0]['width'] == 100
    assert [a['bbox'] for a in coco['annotations']] == [[9.5, 4.5, 90.5, 20]]
    assert coco['annotations'][0]['category_id'] == 2
    assert cv2.imread(str(tmp_path / 'o/images/one.jpg')).shape == (50, 100, 3)


@pytest.mark.parametrize(
    ('objects', 'words'),
    [([('c', 1, 1, 2, 2)], "name='c'"), ([('a', 'x', 1, 2, 2)], "xmin='x'")],
)
def test_convert_names_file_field_and_value_of_bad_annotations(
    tmp_path, objects, words
):
    make_voc(tmp_path / 'voc', objects)
    with pytest.raises(ValueError, match=words) as error:
        convert(tmp_path / 'voc', 'train', ['a', 'b'], tmp_path / 'o')
    assert 'one.xml' in str(error.value)
    assert not (tmp_path / 'o/annotations/train.json').exists()


def test_convert_refuses_a_missing_image_by_name(tmp_path):
    make_voc(tmp_path / 'voc', [])
    (tmp_path / 'voc/JPEGImages/one.jpg').unlink()
    with pytest.raises(ValueError, match=r'one\.jpg'):
        convert(tmp_path / 'voc', 'train', ['a'], tmp_path / 'o')


@pytest.mark.parametrize(
    ('split', 'count'), [('train', 205), ('val', 87), ('test', 72)]
)
def test_bccd_copy_is_complete(split, count):
    root = ROOT / 'data/bccd'
    coco = json.loads((root / f'annotations/{split}.json').read_text())
    assert len(coco['images']) == count
    assert all((root / 'images' / i['file_name']).is_file() for i in coco['images'])
    for annotation in coco['annotations']:
        x, y, w, h = annotation['bbox']
        assert w > 0
        assert h > 0
        assert x >= 0
        assert y >= 0
        assert x + w <= 320.01
        assert y + h <= 240.01
