"""LabelMe's and CVAT's files become COCO annotations."""

import json
import re

import pytest
from mmdet.datasets import CocoDataset

from tests.support.bad_data import write_image
from tests.support.processes import ROOT, run_tool

pytest.importorskip('globox', reason='other formats are read with globox')
from mmdet_consistent.datasets.labelling_tools import from_cvat, from_labelme
from mmdet_consistent.datasets.problems import DataError

# As LabelMe 5 writes it.
LABELME = dict(
    version='5.4.1',
    flags={},
    shapes=[
        dict(
            label='cell',
            points=[[30.5, 40.0], [10.0, 20.25]],  # drawn from the lower right
            group_id=None,
            description='',
            shape_type='rectangle',
            flags={},
            mask=None,
        ),
        dict(
            label='nerve',
            points=[[1.0, 2.0], [9.0, 4.0], [5.0, 8.0]],
            group_id=None,
            shape_type='polygon',
            flags={},
        ),
    ],
    imagePath='..\\photos\\a.png',
    imageData=None,
    imageHeight=48,
    imageWidth=64,
)
# As CVAT 2 exports "CVAT for images 1.1".
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta><task><id>1</id><labels>
    <label><name>nerve</name><color>#fa3253</color><type>any</type>
      <attributes><attribute><name>side</name></attribute></attributes></label>
    <label><name>cell</name><color>#33ddff</color><type>any</type></label>
  </labels></task></meta>
  <image id="0" name="day/a.png" width="64" height="48">
    <tag label="nerve" source="manual"></tag>
    <box label="cell" source="manual" occluded="0" xtl="10.00" ytl="20.25"
      xbr="30.50" ybr="40.00" z_order="0"><attribute name="side">left</attribute></box>
    <polygon label="nerve" source="manual" occluded="0"
      points="1.00,2.00;9.00,4.00;5.00,8.00" z_order="0"></polygon>
  </image>
  <image id="1" name="b.png" width="64" height="48"></image>
</annotations>"""
BOXES = {'cell': [10, 20.25, 20.5, 19.75], 'nerve': [1, 2, 8, 6]}


def write_labelme(root, name='labels/a.json', **fields):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(LABELME, **fields)))
    (root / 'photos').mkdir(exist_ok=True)
    write_image(root / 'photos/a.png')
    return root


def write_cvat(root, text=CVAT):
    (root / 'images/day').mkdir(parents=True, exist_ok=True)
    write_image(root / 'images/day/a.png')
    write_image(root / 'images/b.png')
    (root / 'annotations.xml').write_text(text)
    return root / 'annotations.xml'


def loaded(path, folder, classes):
    """Return names and boxes (x1, y1, x2, y2) of each image that mmdet loads."""
    data = CocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=str(folder)),
        metainfo=dict(classes=classes),
        pipeline=[],
    )
    return {
        sample['img_path']: {
            classes[i['bbox_label']]: i['bbox'] for i in sample['instances']
        }
        for sample in data
    }


CORNERS = {'cell': [10, 20.25, 30.5, 40], 'nerve': [1, 2, 9, 8]}


@pytest.mark.works_with('LabelMe', 'convert its annotations', 'tools.md#convert')
def test_mmdet_loads_converted_labelme_files(tmp_path, capsys):
    root, out = write_labelme(tmp_path / 'set'), tmp_path / 'train.json'
    run_tool(ROOT / 'tools/convert.py', 'labelme', root, out)
    output = capsys.readouterr().out
    assert "1 images, 2 objects, classes=('cell', 'nerve')" in output
    assert 'check_data' not in output
    found = loaded(out, root / 'photos', ('cell', 'nerve'))
    assert found == {str(root / 'photos/a.png'): CORNERS}


@pytest.mark.works_with('CVAT', 'convert its annotations', 'tools.md#convert')
def test_mmdet_loads_a_converted_cvat_export(tmp_path, capsys):
    path, out = write_cvat(tmp_path), tmp_path / 'train.json'
    run_tool(ROOT / 'tools/convert.py', 'cvat', path, out)
    output = capsys.readouterr().out
    assert "2 images, 2 objects, classes=('nerve', 'cell')" in output
    assert 'check_data' not in output
    folder = tmp_path / 'images'
    found = loaded(out, folder, ('nerve', 'cell'))
    assert found == {str(folder / 'day/a.png'): CORNERS, str(folder / 'b.png'): {}}


def test_copies_keep_their_folders_and_take_another_size(tmp_path):
    path, out = write_cvat(tmp_path), tmp_path / 'small.json'
    options = ('--images-to', tmp_path / 'small', '--size', 32, 12)
    run_tool(ROOT / 'tools/convert.py', 'cvat', path, out, *options)
    found = loaded(out, tmp_path / 'small', ('nerve', 'cell'))
    assert found[str(tmp_path / 'small/day/a.jpg')]['nerve'] == [0.5, 0.5, 4.5, 2]
    assert (tmp_path / 'small/day/a.jpg').is_file()


@pytest.mark.parametrize('name', ['../a.png', '/a.png'])
def test_copies_never_leave_their_folder(tmp_path, name):
    path = write_cvat(tmp_path, CVAT.replace('day/a.png', name))
    command = (ROOT / 'tools/convert.py', 'cvat', path, tmp_path / 'o.json')
    with pytest.raises(SystemExit, match='outside the folder of the images'):
        run_tool(*command, '--images-to', tmp_path / 'small')


def test_given_classes_number_the_categories(tmp_path):
    classes = ['nerve', 'vein', 'cell']
    for converted in (
        from_labelme(write_labelme(tmp_path), classes),
        from_cvat(write_cvat(tmp_path), tmp_path, classes),
    ):
        by_id = {1: 'nerve', 3: 'cell'}
        found = {
            by_id[a['category_id']]: a['bbox'] for a in converted.content['annotations']
        }
        assert found == BOXES


@pytest.mark.parametrize(
    ('change', 'kind', 'words'),
    [
        (dict(label='vein'), 'unknown category', "'vein'; known classes are cell"),
        (dict(points=[[1, 2], ['x', 3]]), 'malformed object', "'x'"),
        (dict(points=[]), 'malformed object', r'\[\]'),
        (dict(shape_type='circle'), 'malformed object', "shape_type='circle'"),
    ],
)
def test_labelme_shape_that_is_no_box_is_named(tmp_path, change, kind, words):
    shapes = [LABELME['shapes'][1], dict(LABELME['shapes'][0], **change)]
    write_labelme(tmp_path, shapes=shapes)
    converted = from_labelme(tmp_path, ['cell', 'nerve'])
    (problem,) = converted.problems
    assert problem.file.endswith('a.json')
    assert (problem.where, problem.kind) == ('shape 2', kind)
    assert re.search(words, problem.detail)
    assert len(converted.content['annotations']) == 1


@pytest.mark.parametrize(
    ('old', 'new', 'kind'),
    [
        ('xtl="10.00"', 'xtl="31.00"', 'inverted box'),
        ('xtl="10.00"', 'xtl="left"', 'malformed object'),
        ('xtl="10.00"', 'xtl="10.00" rotation="30.0"', 'malformed object'),
        ('points="1.00,2.00;', 'points="1.00;', 'malformed object'),
        ('polygon', 'polyline', 'malformed object'),
        ('<box label="cell"', '<box label="vein"', 'unknown category'),
    ],
)
def test_cvat_shape_that_is_no_box_is_named(tmp_path, old, new, kind):
    text = CVAT.replace(old, new)
    converted = from_cvat(write_cvat(tmp_path, text), tmp_path)
    (problem,) = converted.problems
    assert problem.file.endswith('annotations.xml')
    assert problem.where.startswith("image 'day/a.png', shape ")
    assert problem.kind == kind
    assert len(converted.content['annotations']) == 1


def test_image_without_size_is_refused_by_name(tmp_path):
    write_labelme(tmp_path / 'l', imageWidth=None)
    path = write_cvat(tmp_path / 'c', CVAT.replace('width="64"', 'width="0"', 1))
    for fmt, source, file in (
        ('labelme', tmp_path / 'l', 'a.json'),
        ('cvat', path, 'annotations.xml'),
    ):
        with pytest.raises(SystemExit, match='malformed image entry') as error:
            run_tool(ROOT / 'tools/convert.py', fmt, source, tmp_path / 'o.json')
        assert file in str(error.value)
        assert 'width, height = ' in str(error.value)


def test_two_labelme_files_of_one_image_are_named(tmp_path):
    write_labelme(tmp_path)
    write_labelme(tmp_path, 'labels/b.json')
    (problem,) = from_labelme(tmp_path).problems
    assert (problem.kind, problem.file[-6:]) == ('duplicate image id', 'b.json')


def test_moved_image_is_found_beside_its_labelme_file(tmp_path):
    write_labelme(tmp_path, 'photos/a.json', imagePath='C:\\Users\\me\\a.png')
    converted = from_labelme(tmp_path)
    assert converted.image_folder == str(tmp_path / 'photos')
    assert [i['file_name'] for i in converted.content['images']] == ['a.png']


@pytest.mark.parametrize('text', ['{"images": []}', '[', '{"shapes": [1]}'])
def test_json_that_is_not_labelmes_is_named(tmp_path, text):
    (tmp_path / 'coco.json').write_text(text)
    with pytest.raises(DataError, match=r'coco\.json: (no|not readable)'):
        from_labelme(tmp_path)


@pytest.mark.parametrize(
    'text', ['<annotation/>', '<annotations><track id="0"/></annotations>', '<']
)
def test_xml_that_is_no_cvat_for_images_is_named(tmp_path, text):
    words = r'annotations\.xml: (no images.*"CVAT for images 1\.1"|not readable XML)'
    with pytest.raises(DataError, match=words):
        from_cvat(write_cvat(tmp_path, text), tmp_path)
    with pytest.raises(DataError, match='there is no such file'):
        from_cvat(tmp_path / 'none.xml', tmp_path)
