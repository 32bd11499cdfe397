"""Every kind of problem of a data set: what happens to it here, and in mmdet."""

from typing import NamedTuple, Optional

# What happens if the run goes on: nothing; a value is filled in; ids are replaced; an
# object or an image is left out.
KEPT, MENDED, RENUMBERED = 'kept', 'mended', 'ids renumbered'
OBJECT, IMAGE = 'object left out', 'image left out'
# Every run stops, or those that evaluate.
SET, TRAINING = 'data set refused', 'usable in training alone'
HARMLESS = (KEPT, MENDED)
# Leaving out an image, or other ids, would change the result of an evaluation.
STOPS_EVALUATION = (SET, TRAINING, IMAGE, RENUMBERED)

# Kind, detail and effect of a problem, if there is one.
Finding = Optional[tuple[str, str, str]]


class Kind(NamedTuple):
    """One kind of problem.

    Attributes:
        effect: One of the constants above.
        mmdet: What mmdet does with it.
    """

    effect: str
    mmdet: str


# docs/checks.md shows this table.
KINDS = {
    # the whole file
    'unusable file': Kind(SET, 'an error, often without the name of the file'),
    'file not in plain UTF-8': Kind(MENDED, 'JSONDecodeError'),
    'labels of other classes': Kind(SET, 'trains wrong labels silently'),
    'category twice': Kind(SET, 'trains wrong labels silently'),
    'class without a category': Kind(KEPT, 'never trains it; CocoMetric may fail'),
    'ids of two types': Kind(TRAINING, 'TypeError in CocoMetric after an epoch'),
    # images
    'missing image': Kind(IMAGE, 'FileNotFoundError in mid-epoch'),
    'corrupt image': Kind(IMAGE, 'AssertionError in mid-epoch'),
    'unreadable image': Kind(IMAGE, 'the error of the loader in mid-epoch'),
    'truncated image': Kind(IMAGE, 'trains on grey where pixels are missing'),
    'huge image': Kind(IMAGE, "OpenCV's error in mid-epoch"),
    'image size differs': Kind(IMAGE, 'trains on boxes of another image size'),
    'malformed image entry': Kind(IMAGE, 'KeyError or TypeError'),
    'duplicate image id': Kind(IMAGE, 'shows the objects of both in one image'),
    'missing annotation': Kind(IMAGE, 'FileNotFoundError'),
    'corrupt annotation': Kind(IMAGE, 'ParseError without the name of the file'),
    'encoding unknown to the XML parser': Kind(MENDED, 'ValueError'),
    'image size not in the annotation': Kind(MENDED, 'decodes the image'),
    'image size that is no integer': Kind(MENDED, 'ValueError'),
    # objects
    'malformed object': Kind(OBJECT, 'KeyError or ValueError'),
    'unknown image': Kind(OBJECT, 'leaves it out'),
    'unknown category': Kind(OBJECT, 'leaves it out'),
    'box that is no number': Kind(OBJECT, 'a loss that is NaN, or ValueError'),
    'inverted box': Kind(OBJECT, 'COCO: leaves it out; VOC: trains it'),
    'box without area': Kind(OBJECT, 'COCO: leaves it out; VOC: trains it'),
    'box outside the image': Kind(OBJECT, 'COCO: leaves it out; VOC: trains it'),
    'box under a pixel': Kind(OBJECT, 'leaves it out of training, and evaluates it'),
    'box reaches out of the image': Kind(KEPT, 'clips it when it resizes'),
    'duplicate object id': Kind(RENUMBERED, 'AssertionError; CocoMetric goes wrong'),
    'unusable object id': Kind(MENDED, 'CocoMetric counts it as missed, or fails'),
    'object without area field': Kind(MENDED, 'KeyError; area 0: leaves it out'),
    'object without iscrowd field': Kind(MENDED, "KeyError in CocoMetric; '0' is true"),
    'object without ignore field': Kind(MENDED, "'0': leaves it out"),
    'object to ignore': Kind(KEPT, 'leaves it out of training, and evaluates it'),
    'difficult that is no number': Kind(MENDED, 'ValueError'),
}


def finding(kind: str, detail: str) -> tuple[str, str, str]:
    """Return kind, detail and effect of a problem."""
    return kind, detail, KINDS[kind].effect
