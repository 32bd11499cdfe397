"""Make the study's sets of photos from a download, with a short side of 320 pixels.

``people``: photos of COCO's val2017 with people in crowds, from a COCO folder; classes
become COCO's 12 supercategories. ``aquarium``: Roboflow's Aquarium (CC BY 4.0,
https://public.roboflow.com/object-detection/aquarium), from its export in COCO format.

Example:
    python -m tools.dev.study.photos people data/coco
    python -m tools.dev.study.photos aquarium Downloads/aquarium
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import cv2

from tools.dev import ROOT

SHORT_SIDE = 320
IDS = Path(__file__).with_name('people_ids.json')
# Our split to the folder of Roboflow's export.
FOLDERS = {'train': 'train', 'val': 'valid', 'test': 'test'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('set', choices=['people', 'aquarium'])
    parser.add_argument('source', type=Path, help='folder of the download')
    parser.add_argument('--out', type=Path, help='default: data/ in the checkout')
    return parser.parse_args()


def read(path: Path) -> dict:
    """Read a JSON file."""
    return json.loads(path.read_text(encoding='utf-8'))


def people(source: Path) -> Iterator[tuple[str, dict, Path]]:
    """Yield each split's annotations, by supercategory, and the folder of its images.

    Args:
        source: COCO's folder, with ``annotations/`` and ``val2017/``.
    """
    coco = read(source / 'annotations/instances_val2017.json')
    names = list(dict.fromkeys(c['supercategory'] for c in coco['categories']))
    coarse = {c['id']: 1 + names.index(c['supercategory']) for c in coco['categories']}
    annotations = [
        dict(item, category_id=coarse[item['category_id']])
        for item in coco['annotations']
    ]
    categories = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    for split, ids in read(IDS).items():
        images = [info for info in coco['images'] if info['id'] in set(ids)]
        if len(images) < len(ids):
            missing = sorted({*ids} - {info['id'] for info in images})
            raise ValueError(f'{source} lacks the images {missing[:5]} of COCO val2017')
        content = dict(coco, images=images, annotations=annotations)
        yield split, dict(content, categories=categories), source / 'val2017'


def aquarium(source: Path) -> Iterator[tuple[str, dict, Path]]:
    """Yield each split's annotations and the folder of its images.

    Args:
        source: Roboflow's export, with ``train/``, ``valid/`` and ``test/``.
    """
    for split, folder in FOLDERS.items():
        coco = read(source / folder / '_annotations.coco.json')
        used = {item['category_id'] for item in coco['annotations']}
        categories = [c for c in coco['categories'] if c['id'] in used]
        yield split, dict(coco, categories=categories), source / folder


def write(split: str, coco: dict, folder: Path, out: Path) -> int:
    """Write a split's photos and annotations at the smaller size; return their number.

    Raises:
        FileNotFoundError: If a photo is missing.
    """
    (out / 'images').mkdir(parents=True, exist_ok=True)
    scales, images = {}, []
    for info in coco['images']:
        image = cv2.imread(str(folder / info['file_name']))
        if image is None:
            raise FileNotFoundError(f'{folder / info["file_name"]} cannot be read')
        height, width = image.shape[:2]
        scale = min(1.0, SHORT_SIDE / min(height, width))
        size = (round(width * scale), round(height * scale))
        name = f'{info["file_name"].split(".")[0]}.jpg'
        resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(out / 'images' / name), resized)
        scales[info['id']] = scale
        images.append(dict(info, file_name=name, width=size[0], height=size[1]))
    annotations = [
        dict(
            id=number,
            image_id=item['image_id'],
            category_id=item['category_id'],
            bbox=[round(value * scales[item['image_id']], 2) for value in item['bbox']],
            area=round(item['area'] * scales[item['image_id']] ** 2, 2),
            iscrowd=item['iscrowd'],
        )
        for number, item in enumerate(coco['annotations'], 1)
        if item['image_id'] in scales
    ]
    content = dict(
        images=images, annotations=annotations, categories=coco['categories']
    )
    (out / f'{split}.json').write_text(json.dumps(content), encoding='utf-8')
    return len(images)


def main() -> None:
    args = parse_args()
    name = dict(people='coco_people').get(args.set, args.set)
    out = args.out or ROOT / 'data' / name
    splits = people if args.set == 'people' else aquarium
    for split, coco, folder in splits(args.source):
        print(f'{out}: {write(split, coco, folder, out)} photos for {split}')


if __name__ == '__main__':
    main()
