"""The wheel, built from a copy of the sources, in a throw-away folder."""

import json
import os
import shutil
import sys

import pytest

from tests.support.processes import ROOT, run

SOURCES = (
    'mmdet_consistent',
    'configs',
    'tools',
    'setup.py',
    'setup.cfg',
    'pyproject.toml',
    'MANIFEST.in',
    'README.md',
    'CHANGELOG.md',
    'LICENSE',
    'requirements.txt',
    'model-index.yml',
)


@pytest.fixture(scope='session')
def sources(tmp_path_factory):
    """A copy of what the wheel is built from: building leaves files behind."""
    copy = tmp_path_factory.mktemp('sources')
    for name in SOURCES:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns('__pycache__', '*.pyc')
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope='session')
def wheel(sources, tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    options = ['--no-deps', '--no-build-isolation', '--no-index', '-w', folder]
    run(sys.executable, '-m', 'pip', 'wheel', sources, *options)
    (path,) = folder.glob('*.whl')
    return path


@pytest.fixture(scope='session')
def installed(wheel, tmp_path_factory):
    """Environment of a process that has the package from the wheel alone."""
    target = tmp_path_factory.mktemp('site')
    options = ['--no-deps', '--no-index', '--target', target]
    run(sys.executable, '-m', 'pip', 'install', *options, wheel)
    return dict(
        os.environ,
        PYTHONPATH=str(target),
        PYTHONWARNINGS='ignore',
        OMP_NUM_THREADS='1',
    )


@pytest.fixture(scope='session')
def run_installed(installed, tmp_path_factory):
    """Run Python code beside the wheel; what it leaves in ``answer`` comes back."""
    folder = tmp_path_factory.mktemp('elsewhere')

    def run_installed(code):
        script = folder / 'script.py'
        out = folder / 'answer.json'
        last = f'import json; json.dump(answer, open({str(out)!r}, "w"))'
        script.write_text(f'{code}\n{last}\n')
        run(sys.executable, script, cwd=folder, env=installed)
        return json.loads(out.read_text())

    return run_installed
