"""Small annotated splits, detections and analyses, by hand and at random."""

import cv2
import numpy as np

from mmdet_consistent.analysis.annotations import AnnotatedSet
from mmdet_consistent.analysis.columns import CORNERS
from mmdet_consistent.analysis.report import write_analysis
from mmdet_consistent.analysis.summary import Model


def table(rows):
    """Return a detection table of (image, label, score, x1, y1, x2, y2) rows."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    names = ('image_id', 'label', 'score', 'x1', 'y1', 'x2', 'y2')
    kinds = (np.int64, np.int32, *[np.float32] * 5)
    return {n: c.astype(k) for n, c, k in zip(names, columns, kinds)}


def truth_of(rows, num_images=1, num_classes=1, crowd=()):
    """Return ground truth of (image, label, x1, y1, x2, y2) rows.

    Ids count from 1, as in COCO. ``crowd`` holds indices of rows.
    """
    annotations = [
        dict(
            id=i + 1,
            image_id=int(image),
            category_id=int(label) + 1,
            bbox=[x1, y1, x2 - x1, y2 - y1],
            area=(x2 - x1) * (y2 - y1),
            iscrowd=int(i in crowd),
        )
        for i, (image, label, x1, y1, x2, y2) in enumerate(rows)
    ]
    images = [
        dict(id=i + 1, file_name=f'{i + 1}.jpg', width=200, height=200)
        for i in range(num_images)
    ]
    categories = [dict(id=i + 1, name=f'class {i}') for i in range(num_classes)]
    return AnnotatedSet(
        dict(images=images, annotations=annotations, categories=categories)
    )


def random_split(seed, num_images=12, num_classes=3, crowd_share=0.0):
    """Return random objects and detections: near them, mislabelled, or anywhere."""
    rng = np.random.default_rng(seed)
    objects, found = [], []
    for image in range(1, num_images + 1):
        for _ in range(rng.integers(0, 6)):
            x, y = rng.uniform(0, 120, 2)
            w, h = rng.uniform(10, 80, 2)
            label = rng.integers(num_classes)
            objects.append((image, label, x, y, x + w, y + h))
            for _ in range(rng.integers(0, 4)):
                move = rng.normal(0, 6, 4)
                named = rng.integers(num_classes) if rng.random() < 0.2 else label
                box = np.array([x, y, x + w, y + h]) + move
                box[2:] = np.maximum(box[2:], box[:2] + 2)
                found.append((image, named, rng.random(), *box))
        for _ in range(rng.integers(0, 3)):
            x, y = rng.uniform(0, 120, 2)
            label = rng.integers(num_classes)
            found.append((image, label, rng.random(), x, y, x + 20, y + 30))
    crowd = {i for i in range(len(objects)) if rng.random() < crowd_share}
    truth = truth_of(objects, num_images, num_classes, crowd)
    return table(found), truth, list(range(1, num_images + 1))


def random_model(name, detections, truth, image_ids, stages, seed):
    """Return a model with random anchors and a row for every object."""
    rng = np.random.default_rng(seed)
    num = 2000
    anchors = dict(weight=np.ones(num), score=rng.random(num))
    ious = [rng.random(num)]
    ious += [np.clip(ious[0] + rng.normal(0.1, 0.1, num), 0, 1) for _ in range(stages)]
    for stage, iou in enumerate(ious):
        anchors[f'iou_{stage}'] = iou
        anchors[f'gt_{stage}'] = rng.integers(0, 2, num)
    counts = np.stack([np.histogram(iou, 100, (0, 1))[0] for iou in ious])
    rows = []
    for image_id in image_ids:
        objects = truth.of_image(image_id)
        for gt, (box, label) in enumerate(zip(objects.boxes, objects.labels)):
            row = dict(image_id=image_id, gt=gt, label=label, loss=0.1 * rng.random())
            for who, move in (('gt', 0), ('win', 6), ('best', 2)):
                row.update({f'{who}_{c}': v + move for c, v in zip(CORNERS, box)})
            for who in ('win', 'best'):
                row.update({f'{who}_{k}': 0.5 for k in ('score', 'iou', 'prior_iou')})
                row.update({f'{who}_prior_{c}': v for c, v in zip(CORNERS, box)})
            rows.append(row)
    objects = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    return Model(name, image_ids, detections, detections, anchors, objects, counts)


def write_random_analysis(folder):
    """Analyse three random detectors, the last without anchors; return the results."""
    detections, truth, image_ids = random_split(0)
    truth.image_root = folder
    for image in truth.images.values():
        picture = np.full((200, 200, 3), 90, dtype=np.uint8)
        cv2.imwrite(str(folder / image['file_name']), picture)
    models = [
        random_model('one & <only>', detections, truth, image_ids, 1, 1),
        random_model('two', detections, truth, image_ids, 2, 2),
        Model('three', image_ids, detections),
    ]
    return write_analysis(models, truth, folder, 'a command', num_cases=2)
