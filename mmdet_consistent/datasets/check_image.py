"""Check that an image file exists, is complete and has the annotated size."""

import os
from typing import Optional

from PIL import Image, UnidentifiedImageError

from .problems import IMAGE, Finding

LEVELS = ('no', 'quick', 'full')
# Last bytes of a complete file. Decoders fill up what is missing with grey.
END = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
# OpenCV stops at a 32-bit pixel count; memory ends far below it.
MAX_PIXELS = 100_000_000


def check_image(
    path: str,
    size: Optional[tuple[float, float]] = None,
    level: str = 'full',
    max_pixels: int = MAX_PIXELS,
) -> Finding:
    """Check one image file.

    Args:
        path: The file.
        size: Annotated width and height in pixels; None if unknown.
        level: ``quick`` reads both ends of the file, ``full`` decodes all of it,
            ``no`` does nothing.
        max_pixels: Largest number of pixels that an image may have.

    Raises:
        ValueError: If there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f'level must be one of {LEVELS}, got {level!r}')
    if level == 'no':
        return None
    # Pillow's own limit is replaced by ours, on the size in the file's header.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as image:
            width, height = image.size
            found = check_pixels(width, height, max_pixels)
            found = found or _check_end(path, image.format or '')
            if found is not None:
                return found
            if level == 'full':
                image.load()
            # The EXIF orientations that swap width and height.
            if image.getexif().get(0x0112) in (5, 6, 7, 8):
                width, height = height, width
            if size is None or size == (width, height):
                return None
            detail = f'{width} × {height} in the file, {size[0]} × {size[1]} annotated'
            return 'image size differs', detail, IMAGE
    except FileNotFoundError:
        return 'missing image', 'there is no such file', IMAGE
    except UnidentifiedImageError:
        empty = os.path.getsize(path) == 0
        reason = 'the file is empty' if empty else 'unknown file format'
        return 'corrupt image', reason, IMAGE
    except (OSError, SyntaxError, ValueError) as error:
        kind = 'truncated image' if 'truncated' in str(error) else 'corrupt image'
        return kind, str(error), IMAGE
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def check_pixels(width: float, height: float, max_pixels: int) -> Finding:
    """Check that an image doesn't have too many pixels."""
    if width * height <= max_pixels:
        return None
    detail = f'{width} × {height} is more than {max_pixels} pixels'
    return 'huge image', detail, IMAGE


def _check_end(path: str, image_format: str) -> Finding:
    with open(path, 'rb') as file:
        # Some cameras write a little behind the image's end.
        file.seek(max(0, os.path.getsize(path) - 4096))
        if END.get(image_format, b'') in file.read():
            return None
    return 'truncated image', f'the file has no end of a {image_format}', IMAGE
