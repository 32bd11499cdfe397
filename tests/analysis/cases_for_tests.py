"""Small splits to evaluate, by hand and at random."""

import numpy as np

from mmdet_consistent.analysis.ground_truth import GroundTruth


def table(rows):
    """Detections from (image, label, score, x1, y1, x2, y2)."""
    columns = np.array(rows, dtype=np.float64).reshape(-1, 7).T
    names = ('image_id', 'label', 'score', 'x1', 'y1', 'x2', 'y2')
    kinds = (np.int64, np.int32, *[np.float32] * 5)
    return {n: c.astype(k) for n, c, k in zip(names, columns, kinds)}


def truth_of(rows, num_images=1, num_classes=1, crowd=()):
    """Ground truth from (image, label, x1, y1, x2, y2); ids from 1 as in COCO."""
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
    return GroundTruth(
        dict(images=images, annotations=annotations, categories=categories)
    )


def random_split(seed, num_images=12, num_classes=3, crowd_share=0.0):
    """Objects, and detections near them, moved, mislabelled or made up."""
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
