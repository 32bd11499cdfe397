"""Whether an image file is there, whole, and of the size it should have."""

import os
from typing import Optional

from PIL import Image, UnidentifiedImageError

LEVELS = ('no', 'quick', 'full')
# Where a file of this format must end. Decoders fill up what is missing with grey.
END = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112
# A 32-bit pixel count is where OpenCV stops; far below it memory does.
MAX_PIXELS = 100_000_000


def check_image(
    path: str,
    size: Optional[tuple[int, int]] = None,
    level: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> Optional[tuple[str, str]]:
    """Judge one image file.

    Args:
        path: The file.
        size: Width and height in pixels that the annotation says, if it does.
        level: ``quick`` reads both ends of the file, ``full`` decodes all of it,
            ``no`` does nothing.
        max_pixels: More pixels than this are too many.

    Returns:
        Kind and detail of what is wrong, or None.
    """
    if level not in LEVELS:
        raise ValueError(f'level must be one of {LEVELS}, got {level!r}')
    if level == 'no':
        return None
    if not os.path.isfile(path):
        return 'missing image', 'there is no such file'
    if os.path.getsize(path) == 0:
        return 'corrupt image', 'the file is empty'
    try:
        # What is too large is judged below, by the size in the file's head.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        with Image.open(path) as image:
            return _judge(image, path, size, level, max_pixels)
    except UnidentifiedImageError:
        return 'corrupt image', 'not a format that is known'
    except (OSError, SyntaxError, ValueError) as error:
        kind = 'truncated image' if 'truncated' in str(error) else 'corrupt image'
        return kind, str(error)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _judge(
    image: Image.Image,
    path: str,
    size: Optional[tuple[int, int]],
    level: str,
    max_pixels: int,
) -> Optional[tuple[str, str]]:
    width, height = image.size
    if width * height > max_pixels:
        return (
            'huge image',
            f'{width} × {height} is more than {max_pixels} pixels',
        )
    end = END.get(image.format or '')
    if end is not None and end not in _tail(path):
        return 'truncated image', f'the file has no end of a {image.format}'
    if level == 'full':
        image.load()
    if size is not None:
        if image.getexif().get(ORIENTATION) in ROTATED:
            width, height = height, width
        if (width, height) != tuple(size):
            return (
                'image size differs',
                f'{width} × {height} in the file, {size[0]} × {size[1]} in the '
                'annotation',
            )
    return None


def _tail(path: str, length: int = 4096) -> bytes:
    """The last bytes; some cameras write a little behind the image's end."""
    with open(path, 'rb') as file:
        file.seek(max(0, os.path.getsize(path) - length))
        return file.read()
