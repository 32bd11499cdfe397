"""Check that an image file exists, is complete and has the annotated size."""

import io
import os
import re
from collections.abc import Iterable
from typing import Any, BinaryIO, NamedTuple, Optional, Union

import cv2
import mmcv
from mmcv.transforms import LoadImageFromFile
from mmengine.fileio import LocalBackend, get, get_file_backend
from PIL import Image, UnidentifiedImageError

from .kinds import Finding, finding

LEVELS = ('no', 'quick', 'full')
# Last bytes of a complete file. Decoders fill up what is missing with grey.
END = {'JPEG': b'\xff\xd9', 'PNG': b'IEND\xaeB`\x82'}
# A JPEG's marker: no stuffed zero, restart or filling.
MARKER = re.compile(rb'\xff[^\x00\xd0-\xd7\xff]')
# OpenCV's own limit.
MAX_PIXELS = int(os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS', 1 << 30))
Size = tuple[float, float]


class Loading(NamedTuple):
    """Settings by which a pipeline loads its images.

    Attributes:
        backend_args: mmengine's storage backend; None: by the path.
        raw: Whether pixels stay as stored, without regard to the EXIF orientation.
    """

    backend_args: Optional[dict] = None
    raw: bool = False

    @classmethod
    def of(cls, steps: Iterable[Any]) -> 'Loading':
        """Return the way in which the first loading step of a pipeline loads."""
        for step in steps:
            if isinstance(step, LoadImageFromFile):
                raw = (
                    step.color_type == 'unchanged'
                    or 'ignore_orientation' in step.color_type
                    or step.imdecode_backend in ('turbojpeg', 'tifffile')
                )
                return cls(step.backend_args, raw)
        return cls()

    def is_local(self, path: str) -> bool:
        """Return whether the file is on this machine's own file system."""
        backend = get_file_backend(path, backend_args=self.backend_args)
        return isinstance(backend, LocalBackend)


PLAIN = Loading()


def check_image(
    path: str,
    size: Optional[Size] = None,
    level: str = 'full',
    max_pixels: int = MAX_PIXELS,
    loading: Loading = PLAIN,
) -> Finding:
    """Check one image file.

    Args:
        path: The file.
        size: Annotated width and height in pixels; None if unknown.
        level: ``quick`` reads both ends of a local file, ``full`` decodes all of it,
            ``no`` does nothing.
        max_pixels: Largest number of pixels that an image may have.
        loading: How the pipeline loads images.

    Raises:
        ValueError: If there is no such level.
    """
    if level not in LEVELS:
        raise ValueError(f'level must be one of {LEVELS}, got {level!r}')
    if level == 'no' or (level == 'quick' and not loading.is_local(path)):
        return None
    found, real = inspect_image(path, level, max_pixels, loading)
    if found is not None or size is None or size == real:
        return found
    detail = f'{real[0]} × {real[1]} in the file, {size[0]} × {size[1]} annotated'
    return finding('image size differs', detail)


def inspect_image(
    path: str,
    level: str,
    max_pixels: int = MAX_PIXELS,
    loading: Loading = PLAIN,
) -> tuple[Finding, Size]:
    """Return what is wrong with a file, or its width and height as the pipeline's."""
    # Pillow's own limit is replaced by ours, on the size in the file's header.
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    found: Finding
    try:
        source: Union[str, io.BytesIO] = os.fspath(path)
        if not loading.is_local(path):
            source = io.BytesIO(get(path, loading.backend_args))
        with Image.open(source) as image:
            width, height = image.size
            found = check_pixels(width, height, max_pixels)
            found = found or _check_end(source, image.format or '')
            if found is None and level == 'full':
                image.load()
            # The EXIF orientations that swap width and height.
            turned = (5, 6, 7, 8)
            if not (found or loading.raw) and image.getexif().get(0x0112) in turned:
                width, height = height, width
            return found, (width, height)
    except FileNotFoundError:
        found = finding('missing image', 'there is no such file')
    except UnidentifiedImageError:
        return _ask_opencv(get(path, loading.backend_args))
    except (OSError, SyntaxError, ValueError) as error:
        kind = 'truncated image' if 'truncated' in str(error) else 'corrupt image'
        found = finding(kind, str(error))
    finally:
        Image.MAX_IMAGE_PIXELS = limit
    return found, (0, 0)


def check_pixels(width: float, height: float, max_pixels: int) -> Finding:
    """Check that an image doesn't have too many pixels."""
    if width * height <= max_pixels:
        return None
    detail = f'{width} × {height} is more than {max_pixels} pixels'
    return finding('huge image', detail)


def _ask_opencv(content: bytes) -> tuple[Finding, Size]:
    """Decode a format that Pillow doesn't know."""
    try:
        height, width = mmcv.imfrombytes(content).shape[:2]
        return None, (width, height)
    except (cv2.error, AttributeError):
        reason = 'unknown file format' if content else 'the file is empty'
        return finding('corrupt image', reason), (0, 0)


def _check_end(source: Union[str, io.BytesIO], image_format: str) -> Finding:
    end = END.get(image_format, b'')
    file: BinaryIO
    if isinstance(source, str):
        file = open(source, 'rb')  # noqa: SIM115
    else:
        file = io.BytesIO(source.getvalue())
    with file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - len(end)))
        if file.read() == end or not end:
            return None
        # Some cameras write a film or a second image behind the end.
        file.seek(0)
        content = file.read()
    if _jpeg_ends(content) if image_format == 'JPEG' else end in content:
        return None
    return finding('truncated image', f'the file has no end of a {image_format}')


def _jpeg_ends(content: bytes) -> bool:
    """Follow the segments of a JPEG to its end: a preview in them has one, too."""
    marker = MARKER.search(content, 2)
    while marker is not None and marker[0] != END['JPEG']:
        length = int.from_bytes(content[marker.end() : marker.end() + 2], 'big')
        marker = MARKER.search(content, marker.end() + length)
    return marker is not None
