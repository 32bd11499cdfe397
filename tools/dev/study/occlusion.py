"""A synthetic set of crowded, overlapping shapes, made from a seed.

Objects of four shapes and many sizes are placed beside and on top of each other, so
that the anchor of one is often regressed onto its neighbour. A later object hides what
lies under it. A box spans the visible pixels of an object, as in COCO; an object that
is nearly hidden is not annotated.

Example:
    python -m tools.dev.study.occlusion work_dirs/data/occlusion
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple, Union

import cv2
import numpy as np

CLASSES = ('disc', 'box', 'triangle', 'cross')
# Mean colours, BGR. They make the shapes easy to tell apart, so that the difficulty is
# which of two neighbours a box belongs to, and where each of them ends.
COLOURS = ((200, 90, 80), (80, 190, 90), (80, 90, 205), (70, 190, 205))
VERSION = 1  # of the recipe; a set on disk of another version is refused
SPLITS = {'train': 240, 'val': 80, 'test': 120}
WIDTH, HEIGHT = 256, 192


class Scene(NamedTuple):
    """One image and its annotated objects (G objects).

    Attributes:
        image: (H, W, 3) uint8, BGR.
        boxes: (G, 4) int64, xyxy in pixels, of the visible part; x2 and y2 are one
            past the last pixel.
        labels: (G,) int64, index into :data:`CLASSES`.
        visible: (G,) float64, visible fraction of the object's pixels in the image.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    visible: np.ndarray


def shape_mask(
    label: int, centre: np.ndarray, half: np.ndarray, angle: float
) -> np.ndarray:
    """Return the pixels of one object.

    Args:
        label: Index into :data:`CLASSES`.
        centre: (x, y) in pixels.
        half: Half the width and height before the rotation, in pixels.
        angle: Rotation in radians.

    Returns:
        (HEIGHT, WIDTH) bool.
    """
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    dx, dy = x - centre[0], y - centre[1]
    u = (np.cos(angle) * dx + np.sin(angle) * dy) / half[0]
    v = (np.cos(angle) * dy - np.sin(angle) * dx) / half[1]
    name = CLASSES[label]
    if name == 'disc':
        return u * u + v * v <= 1
    if name == 'box':
        return np.maximum(abs(u), abs(v)) <= 0.85
    if name == 'triangle':
        return (v <= 0.8) & (2 * abs(u) <= 0.9 + v)
    return (np.maximum(abs(u), abs(v)) <= 1) & (np.minimum(abs(u), abs(v)) <= 0.35)


def _smooth_noise(rng: np.random.RandomState, cell: int) -> np.ndarray:
    """Return noise in [0, 1] with spots of about ``cell`` pixels, (H, W)."""
    coarse = rng.random_sample((HEIGHT // cell + 2, WIDTH // cell + 2))
    y, x = np.arange(HEIGHT) / cell, np.arange(WIDTH) / cell
    top, left = y.astype(int), x.astype(int)
    fy, fx = (y - top)[:, None], (x - left)[None]
    rows = coarse[top] * (1 - fy) + coarse[top + 1] * fy
    return rows[:, left] * (1 - fx) + rows[:, left + 1] * fx


def _paint(
    rng: np.random.RandomState, mean: tuple, spread: float, cell: int
) -> np.ndarray:
    """Return a colour near ``mean`` with blotches of 60 grey levels, (H, W, 3)."""
    colour = np.array(mean) + rng.uniform(-spread, spread, 3)
    blotches = 60 * (_smooth_noise(rng, cell) - 0.5)
    return colour + blotches[..., None] * rng.uniform(0.6, 1.0, 3)


def _place(
    rng: np.random.RandomState, placed: list, crowding: float
) -> tuple[np.ndarray, float]:
    """Draw centre and radius of a new object, mostly close to an earlier one."""
    if placed and rng.random_sample() < crowding:
        neighbour, radius = placed[rng.randint(len(placed))]
        radius = np.clip(radius * np.exp(rng.uniform(-0.4, 0.4)), 11, 36)
        while True:
            direction = rng.uniform(0, 2 * np.pi)
            reach = rng.uniform(0.6, 1.3) * radius
            centre = neighbour + reach * np.array(
                [np.cos(direction), np.sin(direction)]
            )
            if (centre > 0).all() and (centre < [WIDTH, HEIGHT]).all():
                return centre, radius
    centre = rng.uniform([10, 10], [WIDTH - 10, HEIGHT - 10])
    return centre, np.exp(rng.uniform(np.log(11), np.log(36)))


def make_scene(
    rng: np.random.RandomState, crowding: float = 0.7, min_visible: float = 0.35
) -> Scene:
    """Draw one crowd.

    Args:
        rng: Random numbers. numpy promises that the stream of ``RandomState`` never
            changes.
        crowding: Fraction of the objects that are placed close to an earlier one.
        min_visible: Visible fraction below which an object is not annotated.
    """
    image = _paint(rng, (128, 128, 128), spread=30, cell=24)
    owner = np.full((HEIGHT, WIDTH), -1)
    areas, labels, placed = [], [], []
    for index in range(rng.randint(8, 17)):
        label = rng.randint(len(CLASSES))
        centre, radius = _place(rng, placed, crowding)
        half = radius * rng.uniform(0.75, 1.25, 2)
        mask = shape_mask(label, centre, half, rng.uniform(0, 2 * np.pi))
        paint = _paint(rng, COLOURS[label], spread=45, cell=6)
        image[mask] = paint[mask]
        owner[mask] = index
        areas.append(mask.sum())
        labels.append(label)
        placed.append((centre, radius))
    image += rng.normal(0, 5, image.shape)

    boxes, kept, visible = [], [], []
    for index, area in enumerate(areas):
        ys, xs = np.nonzero(owner == index)
        if len(xs) < max(min_visible * area, 30):
            continue
        boxes.append([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        kept.append(labels[index])
        visible.append(len(xs) / area)
    return Scene(
        image=image.round().clip(0, 255).astype(np.uint8),
        boxes=np.array(boxes, dtype=np.int64).reshape(-1, 4),
        labels=np.array(kept, dtype=np.int64),
        visible=np.array(visible),
    )


def split_scenes(split: str, count: int, seed: int = 0) -> list[Scene]:
    """Return the scenes of a split; the first ones do not depend on ``count``.

    Args:
        split: A key of :data:`SPLITS`.
        count: Number of images.
        seed: Seed of the whole set.
    """
    number = list(SPLITS).index(split)
    # One stream per image, so that no image depends on those before it.
    return [
        make_scene(np.random.RandomState([seed, number, index]))
        for index in range(count)
    ]


def coco_annotations(scenes: list[Scene]) -> dict:
    """Return the scenes' ground truth in COCO's format."""
    images, annotations = [], []
    for index, scene in enumerate(scenes):
        image = dict(id=index + 1, file_name=f'{index:04d}.png')
        images.append(dict(image, width=WIDTH, height=HEIGHT))
        for (x1, y1, x2, y2), label in zip(scene.boxes.tolist(), scene.labels):
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=index + 1,
                    category_id=int(label) + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
            )
    categories = [dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)]
    return dict(images=images, annotations=annotations, categories=categories)


def build(out: Union[str, Path], seed: int = 0, splits: dict = SPLITS) -> Path:
    """Write the set unless it exists.

    Args:
        out: Folder for ``annotations/SPLIT.json`` and ``images/SPLIT/*.png``.
        seed: Seed of the whole set.
        splits: Number of images of each split.

    Returns:
        ``out``.

    Raises:
        ValueError: If ``out`` contains a set of another seed or size.
    """
    out = Path(out)
    recipe = dict(version=VERSION, seed=seed, splits=dict(splits), size=[WIDTH, HEIGHT])
    if not out.is_dir():
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f'.{out.name}.', dir=out.parent))
        (partial / 'annotations').mkdir()
        for split, count in splits.items():
            scenes = split_scenes(split, count, seed)
            (partial / 'images' / split).mkdir(parents=True)
            for index, scene in enumerate(scenes):
                path = partial / 'images' / split / f'{index:04d}.png'
                if not cv2.imwrite(str(path), scene.image):
                    raise OSError(f'{path}: the image could not be written')
            path = partial / 'annotations' / f'{split}.json'
            path.write_text(json.dumps(coco_annotations(scenes)))
        (partial / 'recipe.json').write_text(json.dumps(recipe))
        partial.chmod(0o755)
        try:
            os.rename(partial, out)
        except OSError:
            # Another process was faster; its set is checked below.
            shutil.rmtree(partial)
            if not out.is_dir():
                raise
    path = out / 'recipe.json'
    found = json.loads(path.read_text()) if path.is_file() else None
    if found != recipe:
        raise ValueError(
            f'{out} contains another set ({found}) than the requested one ({recipe}): '
            'remove that folder, or choose another one'
        )
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('out', type=Path, help='folder to write')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    print(build(args.out, args.seed))


if __name__ == '__main__':
    main()
