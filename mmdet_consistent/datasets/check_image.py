"""Check that an image file exists, is complete and has the annotated size."""

import os
from typing import Optional

from PIL import Image, UnidentifiedImageError

LEVELS = ('no', 'quick', 'full')
# Last bytes of a complete file. Decoders fill up what is missing with grey.
END = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
ROTATED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
ORIENTATION = 0x0112
# OpenCV stops at a 32-bit pixel count; memory ends far below it.
MAX_PIXELS = 100_000_000


def check_image(
    path: str,
    size: Optional[tuple[float, float]] = None,
    level: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> Optional[tuple[str, str]]:
    """Check one image file.

    Args:
        path: The file.
        size: Annotated width and height in pixels; None if unknown.
        level: ``quick`` reads both ends of the file, ``full`` decodes all of it,
            ``no`` does nothing.
        max_pixels: Largest number of pixels that an image may have.

    Returns:
        Kind and detail of the problem, or None.

    Raises:
        ValueError: If there is no such level.
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
        # Pillow's own limit is replaced by ours, on the size in the file's header.
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        with Image.open(path) as image:
            return _check_opened(image, path, size, level, max_pixels)
    except UnidentifiedImageError:
        return 'corrupt image', 'unknown file format'
    except (OSError, SyntaxError, ValueError) as error:
        kind = 'truncated image' if 'truncated' in str(error) else 'corrupt image'
        return kind, str(error)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _check_opened(
    image: Image.Image,
    path: str,
    size: Optional[tuple[float, float]],
    level: str,
    max_pixels: int,
) -> Optional[tuple[str, str]]:
    width, height = image.size
    if width * height > max_pixels:
        return 'huge image', f'{width} × {height} is more than {max_pixels} pixels'
    with open(path, 'rb') as file:
        # Some cameras write a little behind the image's end.
        file.seek(max(0, os.path.getsize(path) - 4096))
        if END.get(image.format or '', b'') not in file.read():
            return 'truncated image', f'the file has no end of a {image.format}'
    if level == 'full':
        image.load()
    if image.getexif().get(ORIENTATION) in ROTATED:
        width, height = height, width
    if size is not None and (width, height) != size:
        annotated = f'{size[0]} × {size[1]} in the annotation'
        return 'image size differs', f'{width} × {height} in the file, {annotated}'
    return None
