"""Small data sets in the layout of Ultralytics' YOLO."""

import yaml

from tests.support.bad_data import write_image

NAMES = ['cell', 'red cell']


def make_yolo(root, labels, *, names=NAMES, **fields):
    """Write ``data.yaml``, an image of 64 × 48 pixels per label file, and the labels.

    Args:
        root: Folder to write to.
        labels: Text of each label file by its name without ending, such as ``a`` or
            ``train/a``; None for an image without one.
        names: Value of the field ``names``.
        fields: Other fields. Default: all images are for training.
    """
    fields = fields or dict(path='.', train='images')
    root.mkdir(parents=True, exist_ok=True)
    (root / 'data.yaml').write_text(yaml.safe_dump(dict(fields, names=names)))
    for name, text in labels.items():
        image = root / 'images' / f'{name}.png'
        image.parent.mkdir(parents=True, exist_ok=True)
        write_image(image)
        if text is not None:
            label = root / 'labels' / f'{name}.txt'
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_text(text)
    return root
