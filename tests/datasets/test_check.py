"""Every kind of bad data is found, named and left out; good data are kept."""

import itertools
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS

from mmdet_consistent.datasets.check import check_dataset_config
from mmdet_consistent.datasets.check_coco import check_coco_set
from mmdet_consistent.datasets.check_image import check_image
from mmdet_consistent.datasets.check_voc import check_voc_set
from mmdet_consistent.datasets.kinds import IMAGE, KEPT, MENDED, OBJECT, RENUMBERED
from mmdet_consistent.datasets.problems import DataError, check_box
from tests.support import bad_data
from tests.support.processes import ROOT, run_tool

BOXES = [
    ([4, 4, 0, 10], 'box without area', OBJECT),
    ([4, 4, 10, 0], 'box without area', OBJECT),
    ([4, 4, -3, 10], 'inverted box', OBJECT),
    ([64, 4, 10, 10], 'box outside the image', OBJECT),
    ([-20, 4, 20, 10], 'box outside the image', OBJECT),
    ([4, 48, 10, 10], 'box outside the image', OBJECT),
    ([60, 4, 10, 10], 'box reaches out of the image', KEPT),
    ([math.nan, 4, 10, 10], 'box that is no number', OBJECT),
    ([4, 4, math.inf, 10], 'box that is no number', OBJECT),
    ([4, None, 10, 10], 'box that is no number', OBJECT),
    (['4', 4, 10, 10], 'box that is no number', OBJECT),
    ([4, 4, 10], 'malformed object', OBJECT),
    (None, 'malformed object', OBJECT),
    ([4, 4, 0.5, 10], 'box under a pixel', OBJECT),
]
IMAGES = [
    ('missing', 'missing image'),
    ('empty', 'corrupt image'),
    ('foreign', 'corrupt image'),
    ('truncated', 'truncated image'),
    ('other size', 'image size differs'),
    ('huge', 'huge image'),
]


def check_one(root, content):
    """The cleaned content and the only problem."""
    path = bad_data.save(root, content)
    cleaned, problems, _ = check_coco_set(str(path), str(root / 'images'))
    assert len(problems) == 1, problems
    return cleaned, problems[0]


def test_good_data_have_no_problem(tmp_path):
    content = bad_data.coco(tmp_path)
    path = bad_data.save(tmp_path, content)
    cleaned, problems, size = check_coco_set(str(path), str(tmp_path / 'images'))
    assert not problems
    assert cleaned == content
    assert size == '3 images, 6 objects'


@pytest.mark.parametrize(('box', 'kind', 'effect'), BOXES)
def test_bad_coco_box_is_named_and_left_out(tmp_path, box, kind, effect):
    content = bad_data.coco(tmp_path)
    content['annotations'][3]['bbox'] = box
    cleaned, problem = check_one(tmp_path, content)
    assert (problem.kind, problem.effect) == (kind, effect)
    assert problem.where == 'object 4 of 1.jpg'
    kept = [a['id'] for a in cleaned['annotations']]
    assert kept == ([1, 2, 3, 4, 5, 6] if effect == KEPT else [1, 2, 3, 5, 6])


@pytest.mark.parametrize(
    ('field', 'value', 'kind'),
    [
        ('category_id', 7, 'unknown category'),
        ('category_id', None, 'malformed object'),
        ('image_id', 99, 'unknown image'),
        ('image_id', [1], 'malformed object'),
    ],
)
def test_bad_coco_object_is_named_and_left_out(tmp_path, field, value, kind):
    content = bad_data.coco(tmp_path)
    content['annotations'][3][field] = value
    cleaned, problem = check_one(tmp_path, content)
    assert (problem.kind, problem.effect) == (kind, OBJECT)
    assert len(cleaned['annotations']) == 5


@pytest.mark.parametrize(
    ('field', 'value', 'kind', 'mended'),
    [
        ('area', None, 'object without area field', 110),
        ('area', 0, 'object without area field', 110),
        ('area', -1, 'object without area field', 110),
        ('area', '110', 'object without area field', 110),
        ('iscrowd', None, 'object without iscrowd field', 0),
        ('iscrowd', '0', 'object without iscrowd field', 0),
        ('iscrowd', '1', 'object without iscrowd field', 1),
        ('iscrowd', 'true', 'object without iscrowd field', 1),
        ('ignore', '0', 'object without ignore field', 0),
        ('id', 2, 'duplicate object id', 4),
        ('id', 0, 'unusable object id', 4),
        ('id', None, 'unusable object id', 4),
        ('id', 'a', 'unusable object id', 4),
    ],
)
def test_field_that_means_nothing_is_mended(tmp_path, field, value, kind, mended):
    content = bad_data.coco(tmp_path)
    content['annotations'][3][field] = value
    cleaned, problem = check_one(tmp_path, content)
    assert problem.kind == kind
    assert problem.effect == (RENUMBERED if value == 2 else MENDED)
    assert cleaned['annotations'][3][field] == mended
    assert [a['id'] for a in cleaned['annotations']] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ('entry', 'kind'),
    [
        (dict(id=0, file_name='1.jpg', width=64, height=48), 'duplicate image id'),
        (dict(id=1, file_name='1.jpg', width=64), 'malformed image entry'),
        (dict(id=1, file_name='1.jpg', width=0, height=48), 'malformed image entry'),
        (dict(id=1, file_name='1.jpg', width=10**5, height=10**5), 'huge image'),
        ('1.jpg', 'malformed image entry'),
    ],
)
def test_bad_coco_image_entry_is_named_and_left_out(tmp_path, entry, kind):
    content = bad_data.coco(tmp_path)
    content['images'][1] = entry
    content['annotations'] = [a for a in content['annotations'] if a['image_id'] != 1]
    cleaned, problem = check_one(tmp_path, content)
    assert (problem.kind, problem.effect) == (kind, IMAGE)
    assert [i['id'] for i in cleaned['images']] == [0, 2]


@pytest.mark.parametrize(('how', 'kind'), IMAGES)
def test_bad_image_file_is_named_and_left_out(tmp_path, how, kind):
    content = bad_data.coco(tmp_path)
    bad_data.spoil_image(tmp_path / 'images' / '1.jpg', how)
    cleaned, problem = check_one(tmp_path, content)
    assert (problem.kind, problem.effect) == (kind, IMAGE)
    assert problem.file == str(tmp_path / 'images' / '1.jpg')
    # Its objects go with it, and aren't counted again.
    assert {a['image_id'] for a in cleaned['annotations']} == {0, 2}


def test_quick_level_finds_a_truncated_file(tmp_path):
    path = tmp_path / 'a.jpg'
    bad_data.write_image(path)
    content = bytearray(path.read_bytes())
    assert check_image(str(path), level='quick') is None
    path.write_bytes(content[:-2])
    assert check_image(str(path), level='quick')[0] == 'truncated image'
    assert check_image(str(path), level='no') is None
    with pytest.raises(ValueError, match='level must be one of'):
        check_image(str(path), level='some')


def test_size_of_a_rotated_photo_is_that_shown(tmp_path):
    from PIL import Image

    image = Image.new('RGB', (64, 48))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / 'a.jpg', exif=exif)
    assert check_image(str(tmp_path / 'a.jpg'), (48, 64)) is None
    assert check_image(str(tmp_path / 'a.jpg'), (64, 48))[0] == 'image size differs'


@pytest.mark.parametrize(
    'content',
    ['', '{', '[]', '{}', '{"images": [], "annotations": [], "categories": []}'],
)
def test_empty_annotation_file_is_refused(tmp_path, content):
    path = tmp_path / 'empty.json'
    path.write_text(content)
    with pytest.raises(DataError, match=r'empty\.json'):
        check_coco_set(str(path))
    with pytest.raises(DataError, match=r'nowhere\.json'):
        check_coco_set(str(tmp_path / 'nowhere.json'))
    (tmp_path / 'empty.txt').write_text('\n')
    with pytest.raises(DataError, match=r'empty\.txt'):
        check_voc_set(str(tmp_path), str(tmp_path / 'empty.txt'))


def check_voc_one(root, **edit):
    path = root / 'ImageSets/Main/train.txt'
    if edit:
        bad_data.edit_voc(root, 'n1', **edit)
    problems, size = check_voc_set(str(root), str(path), ['cell'])
    assert len(problems) == 1, problems
    return problems[0], size


@pytest.mark.parametrize(
    ('box', 'kind', 'effect'),
    [
        ((9, 9, 9, 9), 'box without area', OBJECT),
        ((9, 9, 4, 20), 'inverted box', OBJECT),
        ((70, 9, 80, 20), 'box outside the image', OBJECT),
        ((40, 9, 80, 20), 'box reaches out of the image', KEPT),
        (('nan', 9, 80, 20), 'box that is no number', OBJECT),
        (('x', 9, 80, 20), 'box that is no number', OBJECT),
        ((), 'box that is no number', OBJECT),
    ],
)
def test_bad_voc_box_is_named_and_left_out(tmp_path, box, kind, effect):
    bad_data.voc(tmp_path)
    problem, size = check_voc_one(tmp_path, boxes=[(4, 4, 14, 14), box])
    assert (problem.kind, problem.effect) == (kind, effect)
    assert problem.file.endswith('n1.xml')
    assert problem.where == 'object 1 (cell)'
    assert size == f'3 images, {6 if effect == KEPT else 5} good objects'


def test_unknown_voc_class_and_wrong_size_are_named(tmp_path):
    bad_data.voc(tmp_path)
    problem, _ = check_voc_one(tmp_path, boxes=[(4, 4, 9, 9)], label='dog')
    assert problem.kind == 'unknown category'
    assert "'dog'" in problem.detail
    problem, _ = check_voc_one(tmp_path, boxes=[(4, 4, 9, 9)], width=None)
    assert problem.effect == MENDED
    assert '64 × 48' in problem.detail
    problem, _ = check_voc_one(tmp_path, boxes=[(4, 4, 9, 9)], width=10)
    assert problem.kind == 'image size differs'


@pytest.mark.parametrize('content', [None, '', '<annotation>'])
def test_unreadable_voc_file_is_named_and_left_out(tmp_path, content):
    bad_data.voc(tmp_path)
    path = tmp_path / 'Annotations' / 'n1.xml'
    path.unlink() if content is None else path.write_text(content)
    problem, size = check_voc_one(tmp_path)
    kind = 'missing annotation' if content is None else 'corrupt annotation'
    assert (problem.kind, problem.effect) == (kind, IMAGE)
    assert size == '3 images, 4 good objects'


def test_check_box_does_not_take_true_for_a_number():
    assert check_box([True, 0, 5, 5], None)[0] == 'box that is no number'
    assert check_box([0, 0, 5, 5], None) is None


def test_check_dataset_config_opens_wrappers(tmp_path):
    (tmp_path / 'voc').mkdir()
    bad_data.voc(tmp_path / 'voc')
    path = bad_data.save(tmp_path, bad_data.coco(tmp_path))
    config = dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='RepeatDataset',
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(tmp_path),
                    ann_file=path.name,
                    data_prefix=dict(img='images'),
                    metainfo=dict(classes=('cell',)),
                ),
            ),
            dict(
                type='VOCDataset',
                data_root=str(tmp_path),
                ann_file='voc/ImageSets/Main/train.txt',
                data_prefix=dict(sub_data_root='voc'),
            ),
        ],
    )
    (_, good, _), (_, bad, _) = check_dataset_config(config)
    assert not good
    # VOC's own classes are known without the config's saying so.
    assert {p.kind for p in bad} == {'unknown category'}
    assert len(bad) == 6
    with pytest.raises(DataError, match='all that can be checked'):
        list(check_dataset_config(dict(ann_file='a.csv')))


def test_check_data_names_problems_and_writes_a_clean_file(tmp_path, capsys):
    content = bad_data.coco(tmp_path)
    content['annotations'][3]['bbox'] = [1, 1, 0, 0]
    path = bad_data.save(tmp_path, content)

    clean = tmp_path / 'clean.json'
    with pytest.raises(SystemExit) as ended:
        run_tool(
            ROOT / 'tools/check_data.py',
            path,
            '--write',
            clean,
            '--image-folder',
            tmp_path / 'images',
        )
    assert ended.value.code == 1
    output = capsys.readouterr().out
    assert '1  box without area (object left out)' in output
    assert f'{path}: object 4 of 1.jpg: box without area' in output
    assert len(json.loads(clean.read_text())['annotations']) == 5


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le'])
def test_any_unicode_encoding_of_json_is_read_and_named(tmp_path, encoding):
    content = bad_data.coco(tmp_path)
    path = tmp_path / 'train.json'
    path.write_bytes(json.dumps(content).encode(encoding))
    cleaned, problems, _ = check_coco_set(str(path), str(tmp_path / 'images'))
    assert cleaned == content
    expected = [] if encoding == 'utf-8' else ['file not in plain UTF-8']
    assert [p.kind for p in problems] == expected


def test_file_without_annotations_has_no_objects(tmp_path):
    content = bad_data.coco(tmp_path)
    del content['annotations']
    path = bad_data.save(tmp_path, content)
    cleaned, problems, size = check_coco_set(str(path), classes=['other'])
    assert (cleaned['annotations'], problems, size) == ([], [], '3 images, 0 objects')
    assert check_coco_set(str(path), classes=['other'], evaluation=True)[1]


@pytest.mark.parametrize(
    'categories',
    [
        [dict(id=1)],
        [dict(name='cell')],
        [dict(id=[1], name='cell')],
        ['cell'],
        [None],
    ],
)
def test_category_without_id_or_name_is_an_error_with_its_file(tmp_path, categories):
    content = bad_data.coco(tmp_path)
    content['categories'] += categories
    path = bad_data.save(tmp_path, content)
    with pytest.raises(DataError, match=r'train\.json: categories: .* has no id or'):
        check_coco_set(str(path))


@pytest.mark.parametrize('name', ['images', 'categories'])
def test_ids_of_two_types_are_refused_for_an_evaluation_alone(tmp_path, name):
    content = bad_data.coco(tmp_path)
    content['categories'].append(dict(id=2, name='dog'))
    field = 'image_id' if name == 'images' else 'category_id'
    for entry in content[name][:1]:
        for item in content['annotations']:
            if item[field] == entry['id']:
                item[field] = 'text'
        entry['id'] = 'text'
    path = str(bad_data.save(tmp_path, content))
    cleaned, (problem,), _ = check_coco_set(path)
    assert problem.kind == 'ids of two types'
    assert len(cleaned['annotations']) == 6
    fields = dict(
        type='CheckedCocoDataset',
        ann_file=path,
        data_prefix=dict(img=str(tmp_path / 'images')),
        metainfo=dict(classes=('cell', 'dog')),
    )
    assert len(DATASETS.build(fields)) == 3
    with pytest.raises(DataError, match='ids of two types'):
        DATASETS.build(dict(fields, test_mode=True))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)
NUMBERS = itertools.count()


def changed(entries):
    """Lists of entries in which some fields are junk or missing, or all of it."""
    return st.lists(
        st.tuples(st.sampled_from(entries), st.dictionaries(fields, junk, max_size=2)),
        max_size=4,
    )


fields = st.sampled_from(
    ['id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'file_name', 'width']
)


@given(data=st.data(), evaluation=st.booleans())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_what_passes_the_check_is_loaded_by_mmdet(tmp_path, data, evaluation):
    root = tmp_path / str(next(NUMBERS))
    root.mkdir()
    content = bad_data.coco(root, images=2)
    for name in ('images', 'annotations'):
        draws = data.draw(changed(content[name]))
        content[name] += [{**entry, **junk} for entry, junk in draws]
        content[name] += data.draw(st.lists(junk, max_size=1))
    path = bad_data.save(root, content)
    config = dict(
        type='CocoDataset',
        data_prefix=dict(img=str(root / 'images')),
        metainfo=dict(classes=('cell',)),
        pipeline=[],
        serialize_data=False,
    )
    cleaned, _, _ = check_coco_set(str(path), evaluation=evaluation)
    clean = root / 'clean.json'
    clean.write_text(json.dumps(cleaned))
    loaded = DATASETS.build(dict(config, ann_file=str(clean)))
    instances = [i for n in range(len(loaded)) for i in loaded[n]['instances']]
    assert all(math.isfinite(v) for i in instances for v in i['bbox'])
    if not evaluation:
        assert len(instances) == len(cleaned['annotations'])


def voc_lists(root, **lists):
    bad_data.voc(root)
    for name, text in lists.items():
        (root / f'ImageSets/Main/{name}.txt').write_text(text)


def run_check(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        run_tool(ROOT / 'tools/check_data.py', *args)
    return ended.value.code, capsys.readouterr().out


def test_check_data_skips_the_lists_of_classes_in_a_voc_folder(tmp_path, capsys):
    voc_lists(
        tmp_path,
        cell_train='n0  1\nn1 -1\nn2  0\n',
        my_own_train='n0\n',  # a list of images, whatever its name is
        nothing_known='n0 -1\n',  # and here is no list "known"
    )
    status, output = run_check(capsys, tmp_path)
    checked = [line.split(':')[0] for line in output.splitlines() if 'good' in line]
    names = [path.rpartition('/')[2] for path in checked]
    assert names == ['my_own_train.txt', 'nothing_known.txt', 'train.txt']
    assert status == 1
    assert 'n0 -1.xml' in output


def test_check_data_goes_on_after_a_data_set_that_cannot_be_read(tmp_path, capsys):
    content = bad_data.coco(tmp_path)
    path = bad_data.save(tmp_path, content)
    data = dict(
        type='CocoDataset',
        ann_file=str(path),
        data_prefix=dict(img=str(tmp_path / 'images')),
        metainfo=dict(classes=('cell',)),
    )
    missing = dict(data, ann_file=str(tmp_path / 'nowhere.json'))
    config = tmp_path / 'config.py'
    config.write_text(
        f'train_dataloader = dict(dataset=dict(type="ConcatDataset", '
        f'datasets=[{missing}, dict(type="NoSuchDataset", ann_file="a.csv")]))\n'
        f'val_dataloader = dict(dataset={data})\ntest_dataloader = None\n'
    )
    status, output = run_check(capsys, config)
    assert status == 1
    assert 'nowhere.json: there is no such annotation file' in output
    assert 'a data set of type NoSuchDataset has no check' in output
    assert f'{path}: 3 images, 6 objects, 0 problems' in output
