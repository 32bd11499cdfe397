"""Install what an environment lacks; tools/setup.sh runs this with its python."""

import hashlib
import importlib.util
import os
import platform
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FILES = ('setup.cfg', 'tools/setup.sh', __file__, 'tools/setup/tested.txt')
STAMP = Path(sys.prefix, '.mmdet_consistent-setup')
TESTED = dict(re.findall('^(.+)==(.+)$', (ROOT / FILES[-1]).read_text('utf-8'), re.M))
SETUPTOOLS = 'setuptools>=70.1,<81'  # mmengine imports its pkg_resources
MODULES = ('mmengine', 'mmcv', 'mmdet')
ORIGINALS = ('mmengine', 'mmcv-lite', 'mmdet')
FORKS = ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection')
# What the originals require; their own list has opencv-python, which needs libGL.
BASE = """addict matplotlib numpy packaging pillow pycocotools pyyaml rich scipy shapely
 six termcolor terminaltables tqdm yapf"""
BARE = 'label-studio-sdk sahi supervision'  # with `integrations`, see setup.cfg


def lacks(module: str) -> bool:
    spec = importlib.util.find_spec(module)
    return spec is None or spec.origin is None  # an empty folder has no origin


def installed() -> dict:
    """Return the version of each distribution by its normal name."""
    importlib.invalidate_caches()
    found = ((d.metadata['Name'], d.version) for d in metadata.distributions())
    return {re.sub(r'[-_.]+', '-', name).lower(): v for name, v in found if name}


def is_older(name: str, *than: int) -> bool:
    found = re.findall(r'\d+', installed().get(name, ''))
    return bool(found) and tuple(map(int, found[:2])) < than


def setuptools_fits() -> bool:
    return not lacks('pkg_resources') and not is_older('setuptools', 70, 1)


def constraints() -> list:
    """Return what pip must take: installed versions and, in .venv, tested ones."""
    held = {'numpy': '1.26.4'} if is_older('torch', 2, 3) else {}
    if not held and sys.version_info >= (3, 11) and Path(sys.prefix, '.made').exists():
        held = {name: version for name, version in TESTED.items() if name != 'torch'}
    free = {'pip', 'mmdet-consistent', *['setuptools'] * (not setuptools_fits())}
    held.update((name, v) for name, v in installed().items() if name not in free)
    return [f'{name}=={version}' for name, version in held.items()]


def try_install(*what: str) -> bool:
    print('setup: installing', *what, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'constraints.txt')
        path.write_text('\n'.join(constraints()), 'utf-8')
        pip = [sys.executable, '-m', 'pip', '-q', 'install', '--no-compile', '-c', path]
        return not subprocess.run([*pip, '--prefer-binary', *what]).returncode


def install(*what: str) -> None:
    if not try_install(*what):
        sys.exit(
            'setup: error: pip failed, see above. If an installed package conflicts '
            '(none is replaced), remove it, or deactivate the environment to use .venv'
        )


def install_torch() -> None:
    spec = os.environ.get('TORCH_SPEC', '').split()
    if not spec:
        version = TESTED['torch'] if sys.version_info >= (3, 10) else '2.8.0'
        if (sys.platform, platform.machine()) == ('darwin', 'x86_64'):
            version = '2.2.2'  # the last for Intel Macs
        gpu = not os.system('nvidia-smi >/dev/null 2>&1')
        spec = [f'torch=={version}', *['torchvision'] * gpu]
        if sys.platform == 'linux' and not gpu:
            spec = [f'torch=={version}+cpu']
            if try_install(SETUPTOOLS, *spec):
                return
            url = 'https://download.pytorch.org/whl/cpu'  # CPU builds are not on PyPI
            spec += ['--extra-index-url', os.environ.get('TORCH_INDEX_URL', url)]
    install(SETUPTOOLS, *spec)


def state(extras: str) -> str:
    """Return what differs when the environment must be looked at again."""
    digest = hashlib.sha256(b''.join((ROOT / name).read_bytes() for name in FILES))
    found = sorted(i for i in installed().items() if i[0] in ('mmcv', *FORKS, *TESTED))
    return f'{ROOT} {extras} {sys.version} {digest.hexdigest()} {found}'


def main() -> None:
    extras = os.environ.get('SETUP_EXTRAS', 'dev')
    if STAMP.is_file() and STAMP.read_text('utf-8') == state(extras):
        return
    if lacks('torch'):
        install_torch()
    if not setuptools_fits():
        install(SETUPTOOLS)
    missing = [i for i, module in enumerate(MODULES) if lacks(module)]
    if missing and {*FORKS} & {*installed()}:
        install(*(FORKS[i] for i in missing))
    elif missing:
        install(*BASE.split(), *['opencv-python-headless'] * lacks('cv2'))
        names = (ORIGINALS[i] for i in missing)
        install('--no-deps', *(f'{name}=={TESTED[name]}' for name in names))
    check = [sys.executable, '-c', 'import mmdet_consistent, mmdet.apis, mmcv.ops']
    process = subprocess.Popen(check, cwd=ROOT)  # compiles while pip works
    install('--no-build-isolation', '-e', f'{ROOT}[{extras}]')
    if 'integrations' in extras:
        install('--no-deps', *BARE.split())
    if process.wait():
        sys.exit('setup: error: the installed packages do not work together, see above')
    STAMP.write_text(state(extras), 'utf-8')


if __name__ == '__main__':
    main()
