"""The study's photos, made from downloads."""

import json

import cv2
import numpy as np
import pytest

from tools.dev.study import photos


def write_image(folder, name, width, height):
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / name), np.zeros((height, width, 3), np.uint8))
    return dict(file_name=name, width=width, height=height)


@pytest.fixture
def coco(tmp_path, monkeypatch):
    """A COCO folder with three photos, of which the set has two, in two splits."""
    monkeypatch.setattr(photos, 'IDS', tmp_path / 'ids.json')
    photos.IDS.write_text(json.dumps(dict(train=[7], test=[9])))
    folder = tmp_path / 'coco'
    images = [
        dict(write_image(folder / 'val2017', f'{i:012}.jpg', *size), id=i)
        for i, size in {7: (960, 640), 8: (640, 640), 9: (300, 200)}.items()
    ]
    categories = [
        dict(id=1, name='person', supercategory='person'),
        dict(id=3, name='car', supercategory='vehicle'),
        dict(id=4, name='bus', supercategory='vehicle'),
    ]
    annotations = [
        dict(id=10 * i + c, image_id=i, category_id=c, bbox=[100, 40, 60, 80],
             area=3000, iscrowd=int(c == 4))
        for i in (7, 8, 9)
        for c in (1, 3, 4)
    ]  # fmt: skip
    path = folder / 'annotations/instances_val2017.json'
    path.parent.mkdir()
    content = dict(images=images, annotations=annotations, categories=categories)
    path.write_text(json.dumps(content))
    return folder


def test_people_have_supercategories_and_a_short_side_of_320(coco, tmp_path):
    for split, content, folder in photos.people(coco):
        photos.write(split, content, folder, tmp_path / 'out')
    found = photos.read(tmp_path / 'out/train.json')
    names = [category['name'] for category in found['categories']]
    assert names == ['person', 'vehicle']
    (image,) = found['images']
    assert (image['id'], image['width'], image['height']) == (7, 480, 320)
    written = cv2.imread(str(tmp_path / 'out/images' / image['file_name']))
    assert written.shape[:2] == (320, 480)
    assert [a['category_id'] for a in found['annotations']] == [1, 2, 2]
    assert [a['iscrowd'] for a in found['annotations']] == [0, 0, 1]
    assert found['annotations'][0]['bbox'] == [50, 20, 30, 40]
    assert found['annotations'][0]['area'] == 750
    # A photo that is small already stays as it is.
    (image,) = photos.read(tmp_path / 'out/test.json')['images']
    assert (image['width'], image['height']) == (300, 200)


def test_people_names_photos_that_are_missing(coco):
    photos.IDS.write_text(json.dumps(dict(train=[7, 11])))
    with pytest.raises(ValueError, match=r'lacks the images \[11\]'):
        list(photos.people(coco))


def test_aquarium_reads_roboflows_export(tmp_path):
    for folder in photos.FOLDERS.values():
        image = write_image(tmp_path / folder, 'a_jpg.rf.12.jpg', 768, 1024)
        content = dict(
            images=[dict(image, id=0)],
            annotations=[
                dict(id=0, image_id=0, category_id=2, bbox=[0, 0, 24, 48], area=1152,
                     iscrowd=0)
            ],
            categories=[dict(id=i, name=n) for i, n in enumerate(['x', 'y', 'fish'])],
        )  # fmt: skip
        path = tmp_path / folder / '_annotations.coco.json'
        path.write_text(json.dumps(content))
    splits = [split for split, *_ in photos.aquarium(tmp_path)]
    assert splits == ['train', 'val', 'test']
    split, content, folder = next(photos.aquarium(tmp_path))
    photos.write(split, content, folder, tmp_path / 'out')
    found = photos.read(tmp_path / 'out/train.json')
    assert found['images'][0]['file_name'] == 'a_jpg.jpg'
    assert [category['name'] for category in found['categories']] == ['fish']
    assert found['annotations'][0]['bbox'] == [0, 0, 10, 20]


def test_people_ids_are_in_one_split_each():
    ids = photos.read(photos.IDS)
    assert {split: len(found) for split, found in ids.items()} == dict(
        train=1139, val=212, test=484
    )
    assert len(set().union(*ids.values())) == 1139 + 212 + 484
