"""Machine and versions of a measurement."""

import platform
from pathlib import Path

import mmcv
import mmdet
import mmengine
import torch

from mmdet_consistent.version import __version__

from .cases import all_cores


def cpu_name() -> str:
    """Return the processor's name, as far as the system knows it."""
    cpuinfo = Path('/proc/cpuinfo')
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        if line.startswith('model name'):
            return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def about_machine() -> dict[str, str]:
    """Return machine and versions, for the head of a page or a CSV file."""
    config = torch.__config__.show()
    about = {
        'machine': f'{cpu_name()}, {all_cores()} cores, {platform.system()}',
        'instructions': config.split('CPU capability usage: ')[-1].split()[0],
        'versions': (
            f'Python {platform.python_version()}, torch {torch.__version__}, '
            f'mmcv {mmcv.__version__}, mmengine {mmengine.__version__}, '
            f'mmdet {mmdet.__version__}, mmdet_consistent {__version__}'
        ),
    }
    if torch.cuda.is_available():
        about['gpu'] = f'{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}'
    return about
