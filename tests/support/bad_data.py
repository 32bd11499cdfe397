"""Small data sets with one thing wrong."""

import json
import xml.etree.ElementTree as ElementTree

import cv2
import numpy as np


def write_image(path, width=64, height=48):
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3))
    cv2.imwrite(str(path), pixels.astype(np.uint8))


def coco(root, images=3):
    """``images`` good images with two boxes each, in COCO form."""
    (root / 'images').mkdir()
    content = dict(images=[], annotations=[], categories=[dict(id=1, name='cell')])
    for i in range(images):
        write_image(root / 'images' / f'{i}.jpg')
        content['images'].append(dict(id=i, file_name=f'{i}.jpg', width=64, height=48))
        for j in range(2):
            content['annotations'].append(
                dict(
                    id=2 * i + j + 1,
                    image_id=i,
                    category_id=1,
                    bbox=[4, 4, 10 + j, 10],
                    area=100 + 10 * j,
                    iscrowd=0,
                )
            )
    return content


def save(root, content):
    path = root / 'train.json'
    path.write_text(json.dumps(content))
    return path


def voc(root, images=3):
    """The same in VOC form; returns the names."""
    for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    names = [f'n{i}' for i in range(images)]
    (root / 'ImageSets/Main/train.txt').write_text('\n'.join(names))
    for name in names:
        write_image(root / 'JPEGImages' / f'{name}.jpg')
        boxes = [(4, 4, 14, 14), (4, 4, 15, 14)]
        edit_voc(root, name, width=64, height=48, boxes=boxes)
    return names


def edit_voc(root, name, *, width=64, height=48, boxes=(), label='cell'):
    annotation = ElementTree.Element('annotation')
    if width is not None:
        size = ElementTree.SubElement(annotation, 'size')
        for field, value in (('width', width), ('height', height)):
            ElementTree.SubElement(size, field).text = str(value)
    for box in boxes:
        element = ElementTree.SubElement(annotation, 'object')
        ElementTree.SubElement(element, 'name').text = label
        corners = ElementTree.SubElement(element, 'bndbox')
        for field, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box):
            ElementTree.SubElement(corners, field).text = str(value)
    path = root / 'Annotations' / f'{name}.xml'
    ElementTree.ElementTree(annotation).write(path)


def spoil_image(path, how):
    """Damage an image file in one of the ways that happen."""
    content = path.read_bytes()
    if how == 'missing':
        path.unlink()
    elif how == 'empty':
        path.write_bytes(b'')
    elif how == 'foreign':
        path.write_bytes(b'<html>404</html>')
    elif how == 'truncated':
        path.write_bytes(content[: len(content) // 2])
    elif how == 'other size':
        write_image(path, 48, 64)
    elif how == 'huge':
        # A PNG that claims 40000 x 40000 pixels in its head.
        small = cv2.imencode('.png', np.zeros((2, 2, 3), np.uint8))[1].tobytes()
        size = (40000).to_bytes(4, 'big')
        head = b'IHDR' + size + size + small[24:29]
        import zlib

        head += zlib.crc32(head).to_bytes(4, 'big')
        path.write_bytes(small[:12] + head + small[33:])
