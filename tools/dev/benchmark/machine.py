"""Which machine and which versions a measurement belongs to."""

import platform
from pathlib import Path

import mmcv
import mmdet
import mmengine
import torch

from mmdet_consistent.version import __version__

from .cases import all_cores


def cpu_name() -> str:
    """The processor's name, as far as the system tells."""
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.processor() or platform.machine()


def _instructions() -> str:
    """The vector instructions that torch uses on this processor."""
    if hasattr(torch.backends, 'cpu'):
        return torch.backends.cpu.get_cpu_capability()
    return torch.__config__.show().split('CPU capability usage: ')[-1].split()[0]


def about_machine() -> dict[str, str]:
    """Machine and versions, for the head of a table or a CSV file."""
    about = {
        'machine': f'{cpu_name()}, {all_cores()} cores, {platform.system()}',
        'instructions': _instructions(),
        'versions': (
            f'Python {platform.python_version()}, torch {torch.__version__}, '
            f'mmcv {mmcv.__version__}, mmengine {mmengine.__version__}, '
            f'mmdet {mmdet.__version__}, mmdet_consistent {__version__}'
        ),
    }
    if torch.cuda.is_available():
        about['gpu'] = f'{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}'
    return about
