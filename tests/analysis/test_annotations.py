"""Labels and images of an analysis are those of mmdet's data sets and metrics."""

import contextlib
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules

from mmdet_consistent import CheckedCocoDataset, CheckedCocoMetric
from mmdet_consistent.analysis.annotations import AnnotatedSet, label_names
from mmdet_consistent.analysis.coco_eval import evaluate, read_results, write_results
from tests.support.analysis import table

NAMES = ('ant', 'bee', 'cat', 'dog')
few = settings(max_examples=12, deadline=None)  # building a data set takes 0.2 s
IDS = {'numbers': (7, 3, 5), 'text': ('000123', 'b', '7'), 'both': (1, '1', 2)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    register_all_modules()
    return tmp_path_factory.mktemp('annotations')


@st.composite
def coco_files(draw, image_ids=IDS['numbers']):
    """A COCO file: categories in any order and with any ids, up to 3 objects each."""
    names = draw(st.permutations(NAMES))
    cat_ids = draw(st.permutations((1, 2, 5, 90)))
    annotations = []
    for image_id in image_ids:
        for cat_id in draw(st.lists(st.sampled_from(cat_ids), max_size=3)):
            number = len(annotations) + 1
            box = [number, 2 * number, 20, 10 + number]
            annotations.append(
                dict(
                    id=number,
                    image_id=image_id,
                    category_id=cat_id,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=draw(st.integers(0, 1)),
                )
            )
    size = dict(width=100, height=100)
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', **size) for i in image_ids],
        annotations=annotations,
        categories=[dict(id=i, name=n) for i, n in zip(cat_ids, names)],
    )


def build(folder, content, classes, *wrappers, joined=1):
    """Write the content, and build its data set in these wrappers."""
    path = folder / 'val.json'
    path.write_text(json.dumps(content))
    cfg = dict(
        type='CocoDataset',
        ann_file=str(path),
        metainfo=dict(classes=classes),
        data_prefix=dict(img=str(folder)),
        pipeline=[],
        test_mode=True,
    )
    if joined > 1:
        cfg = dict(type='ConcatDataset', datasets=[cfg] * joined)
    for wrapper in wrappers:
        cfg = dict(wrapper, dataset=cfg)
    with contextlib.redirect_stdout(io.StringIO()):
        return DATASETS.build(cfg)


def assert_same_objects(dataset, truth, content):
    """Boxes, labels and crowds of each image are those that mmdet loads."""
    name_of = {category['id']: category['name'] for category in content['categories']}
    named = {
        tuple(a['bbox']): name_of[a['category_id']] for a in content['annotations']
    }
    assert len(truth.order) == len(dataset)
    for number, image_id in enumerate(truth.order):
        instances = dataset.get_data_info(number)['instances']
        objects = truth.of_image(image_id)
        assert objects.boxes.tolist() == [i['bbox'] for i in instances]
        assert objects.labels.tolist() == [i['bbox_label'] for i in instances]
        assert objects.crowd.tolist() == [bool(i['ignore_flag']) for i in instances]
        for (x1, y1, x2, y2), label in zip(objects.boxes, objects.labels):
            assert truth.classes[label] == named[x1, y1, x2 - x1, y2 - y1]


@few
@given(data=st.data(), kind=st.sampled_from(sorted(IDS)))
def test_labels_are_those_of_the_data_set_in_any_order_of_classes(folder, data, kind):
    content = data.draw(coco_files(IDS[kind]))
    classes = data.draw(st.permutations(NAMES)) if kind == 'text' else NAMES[::-1]
    if kind == 'numbers':
        classes = classes[: data.draw(st.integers(1, 4))]
    dataset = build(folder, content, classes)
    assert_same_objects(dataset, AnnotatedSet.from_dataset(dataset), content)


@few
@given(content=coco_files(), joined=st.integers(1, 3), repeated=st.booleans())
def test_joined_sets_whose_image_ids_repeat_are_numbered(
    folder, content, joined, repeated
):
    wrappers = [dict(type='RepeatDataset', times=2)] * repeated
    dataset = build(folder, content, NAMES, *wrappers, joined=joined)
    truth = AnnotatedSet.from_dataset(dataset)
    assert_same_objects(dataset, truth, content)
    assert len(set(truth.order)) == 3 * joined * (1 + repeated)


@few
@given(content=coco_files(IDS['text']))
def test_perfect_detections_have_an_ap_of_one_and_survive_their_file(folder, content):
    dataset = build(folder, content, NAMES)
    truth = AnnotatedSet.from_dataset(dataset)
    rows = []
    for image_id in truth.order:
        objects = truth.of_image(image_id).countable()
        rows += [
            (image_id, label, 0.9, *box)
            for label, box in zip(objects.labels, objects.boxes)
        ]
    detections = table(rows or [(truth.order[0], 0, 0.1, 0, 0, 1, 1)])
    write_results(folder / 'results.json', detections, truth)
    written = json.loads((folder / 'results.json').read_text())
    assert {row['image_id'] for row in written} <= set(IDS['text'])
    again = read_results(folder / 'results.json', truth)
    for column, values in detections.items():
        np.testing.assert_allclose(again[column], values, rtol=1e-6)
    if rows:
        ap = evaluate(detections, truth, truth.order).ap
        np.testing.assert_allclose(ap[:, :, 0][~np.isnan(ap[:, :, 0])], 1)


@pytest.mark.parametrize('change', ['missing', 'twice'])
def test_labels_that_a_file_shifts_are_refused(folder, change):
    names = {'missing': ('ant', 'cat', 'dog'), 'twice': ('ant', 'bee', 'bee', 'cat')}
    categories = [dict(id=i, name=n) for i, n in enumerate(names[change])]
    image = dict(id=1, file_name='1.jpg', width=9, height=9)
    content = dict(images=[image], annotations=[], categories=categories)
    dataset = build(folder, content, ('ant', 'bee', 'cat'))
    with pytest.raises(ValueError, match=r"val\.json has the classes .*'cat'.* once"):
        AnnotatedSet.from_dataset(dataset)


def test_joined_sets_whose_labels_differ_are_refused(folder):
    image = dict(id=1, file_name='1.jpg', width=9, height=9)
    parts = []
    for number, names in enumerate((('ant', 'bee'), ('bee', 'ant'))):
        categories = [dict(id=i, name=n) for i, n in enumerate(names)]
        path = folder / str(number)
        path.mkdir(exist_ok=True)
        content = dict(images=[image], annotations=[], categories=categories)
        parts.append(build(path, content, ('ant', 'bee')))
    joined = type('Joined', (), dict(datasets=parts))()
    with pytest.raises(ValueError, match=r"Joined: .*\['ant', 'bee'\], \['bee', 'ant'"):
        label_names(joined)


def test_file_with_a_byte_order_mark_is_read_and_a_bad_one_named(tmp_path):
    content = dict(images=[dict(id=1)], annotations=[], categories=[dict(id=1)])
    path = tmp_path / 'ann.json'
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"ann\.json cannot be used: .*'name'"):
        AnnotatedSet.from_file(path)
    content['categories'] = [dict(id=1, name='ant')]
    path.write_text(json.dumps(content), encoding='utf-8-sig')
    assert AnnotatedSet.from_file(path).classes == ['ant']


@pytest.mark.parametrize('checked', [False, True])
def test_flags_ids_and_areas_are_read_as_the_checked_metric_reads_them(
    tmp_path, checked
):
    flags = [dict(iscrowd='0'), dict(iscrowd='1'), {}, dict(iscrowd=0, ignore=1)]
    annotations = [
        dict(id=i, image_id=1, category_id=1, bbox=[20 * i, 0, 9, 9], area='81', **flag)
        for i, flag in enumerate(flags)
    ]
    image = dict(id=1, file_name='1.jpg', width=90, height=90)
    categories = [dict(id=1, name='ant')]
    path = tmp_path / 'val.json'
    path.write_text(
        json.dumps(dict(images=[image], annotations=annotations, categories=categories))
    )
    if checked:
        dataset = CheckedCocoDataset(
            ann_file=str(path),
            data_prefix=dict(img=str(tmp_path)),
            metainfo=dict(classes=('ant',)),
            check_images='no',
            test_mode=True,
        )
        truth = AnnotatedSet.from_dataset(dataset)
        anns = CheckedCocoMetric(str(path))._coco_api.loadAnns(range(1, 5))
        crowd = [bool(ann['iscrowd']) for ann in anns]
    else:
        truth = AnnotatedSet.from_file(path)
        # Without the checks, COCO and mmdet's metric count what training ignores.
        crowd = [False, True, False, False]
    objects = truth.of_image(1)
    assert objects.crowd.tolist() == crowd
    found = [(1, 0, 0.9, *box) for box in objects.boxes[~objects.crowd]]
    ap = evaluate(table(found), truth, [1]).mean()
    assert ap == pytest.approx(1)
