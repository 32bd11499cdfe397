"""Draw a tiny data set: discs and squares, with COCO annotations.

Example:
    python make_data.py data
"""

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('disc', 'square')
SIZE = 96


def draw(rng: np.random.Generator) -> tuple:
    """One image and its objects, as (class, x, y, width, height)."""
    image = rng.integers(0, 60, (SIZE, SIZE, 3), dtype=np.uint8)
    objects = []
    for left, top in ((2, 2), (50, 2), (2, 50), (50, 50)):
        size = int(rng.integers(16, 40))
        x, y = (int(start + rng.integers(0, 44 - size)) for start in (left, top))
        kind = int(rng.integers(2))
        colour = rng.integers(120, 256, 3).tolist()
        if kind == 0:
            centre, radius = (x + size // 2, y + size // 2), size // 2
            cv2.circle(image, centre, radius, colour, thickness=-1)
        else:
            cv2.rectangle(image, (x, y), (x + size, y + size), colour, thickness=-1)
        objects.append((kind, x, y, size, size))
    return image, objects


def write_split(folder: Path, split: str, count: int, seed: int) -> None:
    """Write ``count`` images and ``<split>.json``."""
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, objects = draw(rng)
        name = f'{number:03}.png'
        cv2.imwrite(str(folder / split / name), image)
        images.append(dict(id=number, file_name=name, width=SIZE, height=SIZE))
        for kind, x, y, width, height in objects:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=kind + 1,
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / f'{split}.json').write_text(json.dumps(content))


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path, help='where to write')
    parser.add_argument('--images', type=int, default=64, help='to train on')
    args = parser.parse_args()
    write_split(args.folder, 'train', args.images, seed=0)
    write_split(args.folder, 'val', max(args.images // 4, 1), seed=1)


if __name__ == '__main__':
    main()
