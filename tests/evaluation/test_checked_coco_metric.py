"""The metric sees what the training sees, and equals mmdet's on a good file."""

import contextlib
import io
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmdet.evaluation import CocoMetric

from mmdet_consistent import CheckedCocoDataset, CheckedCocoMetric, CocoIoUMetric
from mmdet_consistent.datasets.problems import DataError

BOXES = [[4, 4, 20, 20], [34, 4, 20, 20], [4, 34, 24, 24], [36, 36, 20, 20]]
CLASSES = ('cat', 'dog')


def file_of(folder, annotations, names=CLASSES, **fields):
    images = [dict(id=i, file_name=f'{i}.jpg', width=64, height=64) for i in (1, 2)]
    categories = [dict(id=i, name=n) for i, n in enumerate(names, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    path = folder / 'val.json'
    path.write_text(json.dumps({**content, **fields}))
    return path


def four_objects(**fields):
    """Two objects per image; values of the fields: one per object, or ... for none."""
    items = []
    for i, box in enumerate(BOXES):
        item = dict(id=i + 1, image_id=1 + i // 2, category_id=1 + i % 2, bbox=box)
        item.update(area=box[2] * box[3], iscrowd=0)
        item.update({name: values[i] for name, values in fields.items()})
        items.append({k: v for k, v in item.items() if v is not ...})
    return items


def evaluate(metric, found, meta=None):
    """Results of detections: (image, label, xyxy), the first with the best score."""
    metric.dataset_meta = meta or dict(classes=CLASSES)
    samples = []
    for image in (1, 2):
        here = [(label, box) for i, label, box in found if i == image]
        boxes = torch.tensor([box for _, box in here], dtype=torch.float32)
        instances = dict(
            bboxes=boxes.reshape(-1, 4),
            labels=torch.tensor([label for label, _ in here], dtype=torch.long),
            scores=torch.linspace(0.9, 0.8, len(here)),
        )
        samples.append(dict(img_id=image, ori_shape=(64, 64), pred_instances=instances))
    with contextlib.redirect_stdout(io.StringIO()):
        metric.process({}, samples)
        return metric.evaluate(len(samples))


def seen_in_training(path):
    data = CheckedCocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=''),
        metainfo=dict(classes=CLASSES),
        check_images='no',
        serialize_data=False,
    )
    infos = [data.get_data_info(i) for i in range(len(data))]
    return [(o['img_id'], i) for o in infos for i in o['instances']]


# Value in the file (... for none), and what it means.
FLAGS = [(0, 0), (1, 1), ('0', 0), ('1', 1), (False, 0), (True, 1), (None, 0), (..., 0)]
FLAGS += [('', 0), ('true', 1), ('false', 0), ('unspecified', 0)]
flags = st.lists(st.sampled_from(FLAGS), min_size=4, max_size=4)
ids = st.sampled_from([0, 1, 2, 3, -4, 7.0, '1', 'a', None, ...])
areas = st.sampled_from([400, 1e-3, 0, -1, '400', None, ..., float('nan')])


@given(
    id=st.lists(ids, min_size=4, max_size=4),
    area=st.lists(areas, min_size=4, max_size=4),
    iscrowd=flags,
    ignore=flags,
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_perfect_detections_are_perfect_whatever_ids_areas_and_flags(
    tmp_path, id, area, iscrowd, ignore
):
    (iscrowd, crowd), (ignore, ignored) = zip(*iscrowd), zip(*ignore)
    annotations = four_objects(id=id, area=area, iscrowd=iscrowd, ignore=ignore)
    path = file_of(tmp_path, annotations)
    seen = seen_in_training(path) if not all(ignored) else []
    assert [i['ignore_flag'] for _, i in seen] == [
        flag for flag, skip in zip(crowd, ignored) if not skip
    ]
    found = [(n, i['bbox_label'], i['bbox']) for n, i in seen if not i['ignore_flag']]
    if found:
        result = evaluate(CheckedCocoMetric(str(path)), found)
        assert result['coco/bbox_mAP'] == pytest.approx(1)


detections = st.lists(
    st.tuples(
        st.sampled_from([1, 2]),
        st.sampled_from([0, 1]),
        st.sampled_from([[4, 4, 24, 24], [34, 5, 54, 24], [1, 34, 28, 58]]),
    ),
    min_size=1,
    max_size=8,
)


@given(found=detections)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_results_on_a_good_file_are_those_of_mmdet(tmp_path, found):
    # A box under a pixel isn't trained, but counts in COCO's evaluation.
    small = dict(id=9, image_id=1, category_id=1, bbox=[9, 50, 0.5, 9], area=4.5)
    path = file_of(tmp_path, [*four_objects(), dict(small, iscrowd=0)])
    ours, mmdets = CheckedCocoMetric(str(path)), CocoMetric(str(path))
    assert evaluate(ours, found) == evaluate(mmdets, found)


def test_iou_metric_reads_its_file_in_the_same_way(tmp_path):
    path = file_of(tmp_path, four_objects(id=[0, 0, 0, 0], iscrowd=[...] * 4))
    found = [(n, i['bbox_label'], i['bbox']) for n, i in seen_in_training(path)]
    result = evaluate(CocoIoUMetric([0.9], ann_file=str(path)), found)
    assert result['coco/bbox_mAP'] == 1


@pytest.mark.parametrize(
    'names', [('dog', 'cat'), ('cat',), ('cat', 'Dog'), ('cat',) * 2]
)
@pytest.mark.parametrize('metric', [CheckedCocoMetric, CocoIoUMetric])
def test_categories_that_are_not_the_classes_in_their_order_are_refused(
    tmp_path, metric, names
):
    path = file_of(tmp_path, four_objects(), names)
    options = dict(iou_thrs=[0.9]) if metric is CocoIoUMetric else {}
    with pytest.raises(DataError, match=r'val\.json: categories'):
        evaluate(metric(ann_file=str(path), **options), [(1, 0, BOXES[0])])


def test_joined_sets_with_other_palettes_are_evaluated(tmp_path):
    path = file_of(tmp_path, four_objects())
    found = [(n, i['bbox_label'], i['bbox']) for n, i in seen_in_training(path)]
    meta = [dict(classes=CLASSES), dict(classes=CLASSES, palette=[(1, 1, 1)])]
    result = evaluate(CheckedCocoMetric(str(path)), found, meta)
    assert result['coco/bbox_mAP'] == 1
    with pytest.raises(DataError, match='other classes'):
        evaluate(CheckedCocoMetric(str(path)), found, [*meta, dict(classes=('a',))])


def test_image_evaluated_twice_is_refused(tmp_path):
    path = file_of(tmp_path, four_objects())
    metric = CheckedCocoMetric(str(path))
    evaluate(metric, [(1, 0, BOXES[0])])
    metric.results = [(dict(img_id=1), {}), (dict(img_id=1), {})]
    with pytest.raises(DataError, match='image 1 was evaluated twice'):
        metric.evaluate(2)
