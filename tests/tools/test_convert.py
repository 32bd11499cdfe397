import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.datasets import CocoDataset, XMLDataset
from mmdet.evaluation import CocoMetric
from PIL import Image

pytest.importorskip('globox', reason='tools/convert.py needs it')
from tools.convert import from_voc, save

ROOT = Path(__file__).resolve().parents[2]
OBJECT = (
    '<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin>'
    '<xmax>{}</xmax><ymax>{}</ymax></bndbox></object>'
)


def convert(voc_root, split, classes, out_root, size=None):
    out = out_root / f'annotations/{split}.json'
    converted = from_voc(voc_root, split, classes)
    return [str(p) for p in save(converted, out, out_root / 'images', size)]


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


DIFFICULT = '<difficult>{}</difficult></object>'


@pytest.mark.works_with(
    'Pascal VOC', 'train on it as it is, or convert it', 'tools.md#convert'
)
@pytest.mark.parametrize('suffix', ['.jpg', '.png', '.JPEG'])
@pytest.mark.parametrize('name', ['one', 'my photo 1', 'a.b'])
def test_converted_set_is_that_of_mmdets_voc_data_set(tmp_path, suffix, name):
    root, out = tmp_path / 'voc', tmp_path / 'out'
    make_voc(root, [('b', 20, 10, 150, 50), ('a', 5.7, 5, 15.2, 29)])
    xml = root / 'Annotations/one.xml'
    first, second, rest = xml.read_text().split('</object>')
    xml.write_text(first + DIFFICULT.format(0) + second + DIFFICULT.format(1) + rest)
    xml.rename(root / f'Annotations/{name}.xml')
    (root / 'ImageSets/Main/train.txt').write_text(f'\ufeff{name}\n\n')
    image = root / f'JPEGImages/{name}{suffix}'
    cv2.imwrite(str(image), np.zeros((100, 200, 3), np.uint8))
    if image.name != 'one.jpg':
        (root / 'JPEGImages/one.jpg').unlink()
    assert not convert(root, 'train', ['a', 'b'], out)
    copied = out / 'images' / image.name
    assert copied.read_bytes() == image.read_bytes()
    ours = CocoDataset(
        ann_file=str(out / 'annotations/train.json'),
        data_prefix=dict(img=str(out / 'images')),
        metainfo=dict(classes=('a', 'b')),
        pipeline=[],
    )
    (root / f'JPEGImages/{name}.jpg').write_bytes(copied.read_bytes())
    (root / 'ImageSets/Main/train.txt').write_text(f'{name}\n')  # as mmdet wants it
    mmdets = XMLDataset(
        ann_file=str(root / 'ImageSets/Main/train.txt'),
        data_prefix=dict(sub_data_root=str(root)),
        metainfo=dict(classes=('a', 'b')),
        pipeline=[],
    )
    assert ours[0]['instances'] == mmdets[0]['instances']
    assert {i['ignore_flag'] for i in ours[0]['instances']} == {0, 1}
    assert (ours[0]['width'], ours[0]['height']) == (200, 100)
    CocoMetric(str(out / 'annotations/train.json'))


@pytest.mark.parametrize('size', [None, (100, 50)])
def test_photo_turned_by_exif_is_refused_unless_annotated_as_it_is_shown(
    tmp_path, size
):
    make_voc(tmp_path / 'voc', [('a', 5, 5, 95, 150)])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (200, 100)).save(tmp_path / 'voc/JPEGImages/one.jpg', exif=exif)
    xml = tmp_path / 'voc/Annotations/one.xml'
    body = xml.read_text()
    for width, height in ((200, 100), (100, 200)):
        field = f'<size><width>{width}</width><height>{height}</height></size><object>'
        xml.write_text(body.replace('<object>', field))
        if width == 200:
            with pytest.raises(ValueError, match=r'one\.jpg.*image size differs'):
                convert(tmp_path / 'voc', 'train', ['a'], tmp_path / 'out', size)
        else:
            convert(tmp_path / 'voc', 'train', ['a'], tmp_path / 'out', size)
    coco = json.loads((tmp_path / 'out/annotations/train.json').read_text())
    (image,), (item,) = coco['images'], coco['annotations']
    scale = (1, 0.25) if size else (1, 1)
    assert (image['width'], image['height']) == (size or (100, 200))
    box = np.multiply([4, 4, 90, 145], scale * 2)
    np.testing.assert_allclose(item['bbox'], box)
    shown = cv2.imread(str(tmp_path / 'out/images/one.jpg')).shape
    assert shown[1::-1] == (size or (100, 200))


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
