"""Look at a Python environment for tools/setup.sh: what is here, what fits.

Runs under the interpreter of the environment in question, with the standard
library alone (and pip's own copy of ``packaging``). Nothing is ever installed
from here: setup.sh does that with what is printed.

    python check_env.py fast          # 0 when the last set-up still holds
    python check_env.py conflicts     # 1 and a message when something cannot fit
    python check_env.py constraints   # what pip must leave as it is
    python check_env.py missing base  # requirements to install (base | dev | ...)
    python check_env.py verify        # really import everything, print versions
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import platform
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PREFIX = Path(sys.prefix)
# setup.sh leaves this in a .venv of its own making.
OWN = (PREFIX / '.made-by-mmdet_consistent').exists()
STAMP = PREFIX / (
    '.mmdet_consistent-' + hashlib.sha256(str(ROOT).encode()).hexdigest()[:12] + '.json'
)
# Files that, when they change, call for a new look at the environment.
SETUP_FILES = (
    'requirements.txt',
    'setup.cfg',
    'setup.py',
    'pyproject.toml',
    'tools/setup.sh',
    'tools/setup/check_env.py',
    'tools/setup/tested.txt',
)
# What these four may be is decided by setup.sh, not by a line of tested.txt.
STACK = ('torch', 'mmcv', 'mmengine', 'mmdet')


class Package(NamedTuple):
    """One import name and the distributions that may stand behind it."""

    module: str
    dists: tuple[str, ...]
    group: str

    @property
    def requirement(self) -> str:
        """What to ask of pip when the module is missing."""
        return 'setuptools<81' if self.module == 'pkg_resources' else self.dists[0]


def _packages() -> list[Package]:
    """All packages of a finished set-up, the maintained forks among them."""
    stack = [
        Package('torch', ('torch',), 'torch'),
        Package('mmcv', ('mmcv', 'onedl-mmcv', 'mmcv-full', 'mmcv-lite'), 'mmcv'),
        Package('mmengine', ('mmengine', 'onedl-mmengine'), 'mm'),
        Package('mmdet', ('mmdet', 'onedl-mmdetection'), 'mm'),
    ]
    # mmengine and mmdet go in without their dependencies, which are named here
    # instead: mmengine asks for opencv-python, whose build needs a display's
    # libraries (libGL). The headless build gives the same `cv2` without them.
    # `pip check` says that opencv-python is missing; that is harmless.
    opencv = (
        'opencv-python',
        'opencv-contrib-python',
        'opencv-contrib-python-headless',
    )
    base = [Package('cv2', ('opencv-python-headless', *opencv), 'base')]
    # mmengine imports pkg_resources to find `_base_ = 'mmdet::...'`; setuptools
    # 82 no longer has it, and 81 announced as much.
    tools = [Package('pkg_resources', ('setuptools',), 'tools')]
    tools.append(Package('wheel', ('wheel',), 'tools'))
    base.append(Package('yaml', ('pyyaml',), 'base'))
    names = 'addict matplotlib numpy rich termcolor yapf pycocotools scipy shapely'
    names += ' six terminaltables tqdm'
    base += [Package(name, (name,), 'base') for name in names.split()]
    names = 'pytest hypothesis ruff mypy nox selenium pandas'
    dev = [Package(name, (name,), 'dev') for name in names.split()]
    dev.append(Package('seaborn', ('seaborn',), 'dev'))  # mmdet's analyze_logs.py
    dev.append(Package('sklearn', ('scikit-learn',), 'dev'))  # mmdet's PAAHead
    dev.append(Package('xdist', ('pytest-xdist',), 'dev'))
    dev.append(Package('pytest_cov', ('pytest-cov',), 'dev'))
    # COCO evaluation several times as fast, for tools/analyze.py; without it
    # pycocotools does the same.
    if sys.version_info >= (3, 10):
        dev.append(Package('faster_coco_eval', ('faster-coco-eval',), 'dev'))
    # tools/export.py, and the site of python -m tools.dev.docs.
    names = 'onnx onnxruntime mkdocs mkdocstrings'
    dev += [Package(name, (name,), 'dev') for name in names.split()]
    dev.append(Package('material', ('mkdocs-material',), 'dev'))
    dev.append(Package('mkdocstrings_handlers.python', ('mkdocstrings-python',), 'dev'))
    return stack + tools + base + dev


PACKAGES = _packages()


def version_of(package: Package) -> tuple[str, str] | None:
    """The distribution (name, version) that is installed, or None."""
    for name in package.dists:
        try:
            version = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
        if version:
            return name, version
    return None


def importable(module: str) -> bool:
    """Whether the module is found, without importing it."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    # An origin of None is an empty folder of that name, left by a removal.
    return spec is not None and spec.origin is not None


def state_of(package: Package) -> str:
    """``ok``, ``missing``, or ``broken`` (only partly there)."""
    found, version = importable(package.module), version_of(package)
    if not found:
        # setuptools without pkg_resources is whole, but of no use here.
        if version is None or package.module == 'pkg_resources':
            return 'missing'
        return 'broken'
    if OWN and version is None:
        return 'missing'  # pip was interrupted before it wrote the metadata
    if OWN and metadata.distribution(version[0]).read_text('RECORD') is None:
        return 'broken'  # pip was interrupted before the end
    return 'ok'


def packaging():
    """``packaging`` (requirements and versions), pip's copy if need be."""
    try:
        import packaging.requirements
        import packaging.version
    except ImportError:
        import pip._vendor.packaging.requirements
        import pip._vendor.packaging.version

        return pip._vendor.packaging
    return packaging


def requirement_lines(path: Path) -> dict[str, str]:
    """``{name: line}`` of a requirements file; comments are dropped."""
    lines = (line.split('#')[0].strip() for line in path.read_text().splitlines())
    return {re.split(r'[^\w.-]', line)[0].lower(): line for line in lines if line}


def tested(name: str) -> str:
    """The tested version of a package."""
    return requirement_lines(HERE / 'tested.txt')[name].partition('==')[2]


def normal(name: str) -> str:
    """A distribution's name in its one normal form."""
    return re.sub(r'[-_.]+', '-', name).lower()


def installed() -> dict[str, str]:
    """``{normal name: version}`` of all that is installed."""
    found: dict[str, str] = {}
    for dist in metadata.distributions():
        name = dist.metadata['Name'] if dist.metadata else None
        if name and dist.version:
            found.setdefault(normal(name), dist.version)  # first on the path wins
    return found


def is_fresh() -> bool:
    """Whether nothing but the tools of a newly made environment is there."""
    return not set(installed()) - {'pip', 'setuptools', 'wheel', 'packaging'}


def old_torch() -> bool:
    """Whether torch is installed and was built against numpy 1."""
    version = version_of(PACKAGES[0])
    return version is not None and release(version[1]) < (2, 3)


def release(version: str) -> tuple[int, ...]:
    """``(major, minor)`` of a version."""
    return tuple(int(part) for part in re.findall(r'\d+', version)[:2])


# ---------------------------------------------------------------- commands


def fingerprint() -> dict:
    """All that the stamp of a finished set-up holds."""
    digest = hashlib.sha256()
    for name in SETUP_FILES:
        digest.update((ROOT / name).read_bytes())
    return {
        'python': sys.version,
        'files': digest.hexdigest(),
        'package': (ROOT / 'mmdet_consistent/__init__.py').exists(),
        'versions': {p.module: version_of(p) and list(version_of(p)) for p in PACKAGES},
    }


def installed_from_here() -> bool:
    """Whether mmdet_consistent is installed as a link to this checkout."""
    try:
        text = metadata.distribution('mmdet_consistent').read_text('direct_url.json')
    except metadata.PackageNotFoundError:
        return False
    url = json.loads(text or '{}')
    return (
        url.get('url') == ROOT.as_uri() and url.get('dir_info', {}).get('editable')
    ) is True


def fast(args: argparse.Namespace) -> int:
    """Compare the environment with the stamp of the last set-up."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return 1
    holds = stamp == fingerprint() and installed_from_here()
    if not holds or not all(importable(p.module) for p in PACKAGES):
        return 1
    versions = (version_of(p) for p in PACKAGES[:4])
    print(', '.join(' '.join(v) for v in versions if v))
    return 0


def stamp(args: argparse.Namespace) -> int:
    """Write the stamp of a finished set-up."""
    part = STAMP.with_suffix('.part')
    part.write_text(json.dumps(fingerprint()))
    part.replace(STAMP)
    return 0


def conflicts(args: argparse.Namespace) -> int:  # noqa: C901
    """Say which installed packages cannot be worked with."""
    pkg = packaging()
    python = shlex.quote(sys.executable)
    needs = requirement_lines(ROOT / 'requirements.txt')
    modules = {p.module: p for p in PACKAGES}
    found: list[tuple[str, str]] = []  # (what is wrong, the command against it)

    for module, package in modules.items():
        version = version_of(package)
        if version is None or module not in needs:
            continue
        name, number = version
        need = pkg.requirements.Requirement(needs[module])
        if name.startswith('onedl-'):
            continue  # a fork has its own numbers; that it imports is tested below
        fits = need.specifier.contains(number, prereleases=True)
        if not fits or name in ('mmcv-full', 'mmcv-lite'):
            why = f'{name} {number} is installed, but {needs[module]} is needed'
            if name == 'mmcv-lite':
                why += ' (mmcv-lite is mmcv without its compiled operators)'
            fix = (
                f'{python} -m pip uninstall {name}   # a fitting one is then installed'
            )
            found.append((why, fix))

    mmcv = version_of(modules['mmcv'])
    if mmcv and mmcv[0] == 'onedl-mmcv' and not version_of(modules['mmdet']):
        why = f'onedl-mmcv {mmcv[1]} is installed, but not the mmdet that goes with it'
        found.append((why, f'{python} -m pip install onedl-mmdetection'))

    setuptools = version_of(modules['pkg_resources'])
    if setuptools and not importable('pkg_resources') and not (OWN or is_fresh()):
        spec = importlib.util.find_spec('mmengine')
        utils = spec and spec.origin and Path(spec.origin).parent / 'utils'
        utils = utils and utils / 'package_utils.py'
        if not utils or not utils.exists() or 'pkg_resources' in utils.read_text():
            why = (
                f'setuptools {setuptools[1]} is installed, but mmengine imports '
                'pkg_resources, which was removed from it: setuptools<81 is needed'
            )
            found.append((why, f"{python} -m pip install 'setuptools<81'"))

    if not found:
        return 0
    print(f'These packages of {PREFIX} do not fit (nothing was changed):')
    for why, _ in found:
        print(f'  - {why}')
    print('Ways out, one of:')
    if OWN:
        print(f'  - start anew:  rm -rf {shlex.quote(str(PREFIX))}  and run again')
    else:
        print('  - leave this environment (deactivate, or conda deactivate) and run')
        print('    again: the project then makes a .venv of its own')
    print('  - change it yourself and run again:')
    for _, fix in found:
        print(f'      {fix}')
    return 1


def constraints(args: argparse.Namespace) -> int:
    """Print what pip is held to: all that is installed, then what was tested."""
    pkg = packaging()
    broken = {normal(p.dists[0]) for p in PACKAGES if state_of(p) != 'ok'}
    held = installed()
    held.pop('mmdet-consistent', None)
    for name, version in held.items():
        if name in broken:
            continue
        try:
            pkg.version.Version(version)
        except pkg.version.InvalidVersion:
            continue  # pip cannot read it either, and so cannot replace it
        if name == 'setuptools' and release(version) < (81,):
            # The one exception: a new virtualenv comes with a setuptools older
            # than PyTorch allows. setup.sh says so when pip raises it.
            print(f'{name}>={version},<81')
        else:
            print(f'{name}=={version}')
    if old_torch():
        if 'numpy' not in held:
            print('numpy<2')  # torch before 2.3 cannot talk to numpy 2
    elif args.tested and sys.version_info >= (3, 11):
        for name, line in requirement_lines(HERE / 'tested.txt').items():
            name = normal(name)
            mine = name not in held or name in broken or name == 'setuptools'
            if name not in STACK and mine:
                print(line)
    return 0


def missing(args: argparse.Namespace) -> int:
    """Print the requirements of a group that are not there."""
    for package in PACKAGES:
        if package.group == args.group and state_of(package) == 'missing':
            print(package.requirement)
    return 0


def broken(args: argparse.Namespace) -> int:
    """Print the packages of a group that are only partly there."""
    for package in PACKAGES:
        if package.group == args.group and state_of(package) == 'broken':
            print('=='.join(version_of(package)))
    return 0


def mmcv_spec(args: argparse.Namespace) -> int:
    """Print the mmcv to install: the tested one, or what the mmdet here takes."""
    mmdet = version_of(next(p for p in PACKAGES if p.module == 'mmdet'))
    if mmdet and mmdet[0] == 'onedl-mmdetection':
        print('onedl-mmcv==2.3.6')
        return 0
    version = tested('mmcv')
    spec = importlib.util.find_spec('mmdet')
    if spec is not None and spec.origin:
        text = Path(spec.origin).read_text(encoding='utf-8')
        limit = re.search(r"mmcv_maximum_version = '([\d.]+)'", text)
        if limit and release(version) >= release(limit[1]):
            version = '2.0.1'  # mmdet 3.0
    print(f'mmcv=={version}')
    return 0


def mmcv_ops(args: argparse.Namespace) -> int:
    """Run one of mmcv's compiled operators."""
    import torch
    from mmcv.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 9.0, 9.0], [0.0, 0.0, 9.0, 8.0]])
    kept = nms(boxes, torch.tensor([0.9, 0.8]), 0.5)[1]
    assert kept.tolist() == [0], kept
    return 0


def torch_facts(args: argparse.Namespace) -> int:
    """Print shell variables: a key for built wheels, CUDA, OpenMMLab's index."""
    import torch

    version = torch.__version__
    cuda = nvcc = False
    if torch.cuda.is_available():
        from torch.utils.cpp_extension import CUDA_HOME

        cuda, nvcc = True, CUDA_HOME is not None
    tag = f'cp{sys.version_info[0]}{sys.version_info[1]}'
    kind = 'cuda' if nvcc else 'cpu'
    system, machine = platform.system().lower(), platform.machine().lower()
    index = ''
    # OpenMMLab published wheels up to this version and for this platform.
    if release(version) <= (2, 4) and (system, machine) == ('linux', 'x86_64'):
        toolkit = (
            'cu' + torch.version.cuda.replace('.', '') if torch.version.cuda else ''
        )
        index = 'https://download.openmmlab.com/mmcv/dist/'
        index += '{}/torch{}.{}.0/index.html'.format(
            toolkit or 'cpu', *release(version)
        )
    facts = {
        'WHEEL_KEY': f'{tag}-torch{version}-{system}-{machine}-{kind}',
        'TORCH_CUDA': 'yes' if cuda else 'no',
        'TORCH_NVCC': 'yes' if nvcc else 'no',
        'MMCV_INDEX': index,
    }
    for name, value in facts.items():
        print(f'{name}={shlex.quote(value)}')
    return 0


def python_header(args: argparse.Namespace) -> int:
    """Succeed when extensions can be compiled against this Python."""
    import sysconfig

    return 0 if Path(sysconfig.get_paths()['include'], 'Python.h').exists() else 1


def verify(args: argparse.Namespace) -> int:
    """Import everything for real and print the versions."""
    import cv2
    import mmcv
    import mmdet
    import mmengine
    import numpy
    import pycocotools.mask
    import torch

    mmcv_ops(args)
    pycocotools.mask.frPyObjects([[0, 0, 4, 0, 4, 4]], 5, 5)
    print('python', platform.python_version())
    for module in (torch, numpy, mmcv, mmengine, mmdet, cv2):
        print(module.__name__, module.__version__)
    print(*version_of(next(p for p in PACKAGES if p.module == 'pycocotools')))
    return 0


def main() -> int:
    """Run the command named on the command line."""
    commands = {
        f.__name__: f
        for f in (fast, stamp, conflicts, constraints, missing, broken, verify)
    }
    commands.update(
        {f.__name__: f for f in (mmcv_spec, mmcv_ops, torch_facts, python_header)}
    )
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = parser.add_subparsers(required=True)
    for name, function in commands.items():
        command = sub.add_parser(name, help=function.__doc__)
        command.set_defaults(run=function)
        if name == 'constraints':
            command.add_argument('--tested', action='store_true')
        if function in (missing, broken):
            command.add_argument('group', choices=sorted({p.group for p in PACKAGES}))
    sub.add_parser('tested', help='the tested version of a package').add_argument(
        'name'
    )
    sub.choices['tested'].set_defaults(run=lambda a: print(tested(a.name)) or 0)
    sub.add_parser('is_present', help='0 when it is installed').add_argument('module')
    sub.choices['is_present'].set_defaults(
        run=lambda a: any(version_of(p) for p in PACKAGES if p.module == a.module) - 1
    )
    sub.add_parser('is_fresh').set_defaults(run=lambda a: 0 if OWN or is_fresh() else 1)
    sub.add_parser('is_own').set_defaults(run=lambda a: 0 if OWN else 1)
    args = parser.parse_args()
    return args.run(args)


if __name__ == '__main__':
    sys.exit(main())
