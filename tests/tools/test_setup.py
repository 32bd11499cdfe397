"""tools/setup.sh, without a package index."""

import importlib.util
import os
import subprocess
from types import SimpleNamespace

import pytest

from tests.support.processes import ROOT


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Return what pip is asked for in an environment, and its constraints each time."""
    monkeypatch.delenv('SETUP_EXTRAS', raising=False)
    spec = importlib.util.spec_from_file_location(
        'install', ROOT / 'tools/setup/install.py'
    )
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)

    def run(held, lacks):
        calls, constraints = [], []

        def run_pip(command):
            calls.append(command[command.index('--prefer-binary') + 1 :])
            constraints.append(command[command.index('-c') + 1].read_text().split())
            return SimpleNamespace(returncode=0)

        check = SimpleNamespace(wait=lambda: 0)
        fake = SimpleNamespace(run=run_pip, Popen=lambda *_, **__: check)
        monkeypatch.setattr(install, 'subprocess', fake)
        monkeypatch.setattr(install, 'STAMP', tmp_path / 'stamp')
        monkeypatch.setattr(install.sys, 'prefix', str(tmp_path))
        monkeypatch.setattr(install, 'lacks', lambda module: module in lacks)
        monkeypatch.setattr(install, 'installed', lambda: held)
        monkeypatch.setattr(install.os, 'system', lambda command: 1)
        install.main()
        return calls, constraints

    return run


HELD = {'pip': '24.0', 'setuptools': '80.0', 'torch': '2.6.0', 'numpy': '2.1.0'}


def test_empty_environment_gets_the_cpu_build_and_mmcv_lite(commands):
    lacks = ['torch', 'mmengine', 'mmcv', 'mmdet', 'cv2', 'pkg_resources']
    words, _ = commands({'pip': '24.0'}, lacks)
    assert any(word.endswith('+cpu') for word in words[0])
    assert not any('mmcv==' in word for call in words for word in call)
    assert 'opencv-python-headless' in words[2]
    assert words[3][0] == '--no-deps'
    assert 'mmcv-lite==2.1.0' in words[3]
    assert words[-1][-1] == f'{ROOT}[dev]'


def test_installed_packages_are_constraints_and_nothing_else_is_asked_for(commands):
    words, constraints = commands({**HELD, 'mmcv': '2.1.0'}, [])
    assert words == [['--no-build-isolation', '-e', f'{ROOT}[dev]']]
    wanted = {'torch==2.6.0', 'numpy==2.1.0', 'mmcv==2.1.0', 'setuptools==80.0'}
    assert set(constraints[0]) == wanted


def test_libraries_with_an_opencv_of_their_own_come_without_dependencies(
    commands, monkeypatch
):
    monkeypatch.setenv('SETUP_EXTRAS', 'dev,integrations')
    words, _ = commands(HELD, [])
    assert words[0][-1] == f'{ROOT}[dev,integrations]'
    assert words[1] == ['--no-deps', 'label-studio-sdk', 'sahi', 'supervision']


def test_environment_that_setup_made_takes_tested_versions(commands, tmp_path):
    (tmp_path / '.made').touch()
    _, constraints = commands(HELD, [])
    assert {'mmcv-lite==2.1.0', 'numpy==2.1.0'} <= set(constraints[0])


def test_fork_is_completed_with_forks(commands):
    held = {**HELD, 'onedl-mmdetection': '3.5.1', 'onedl-mmengine': '0.10.12'}
    words, _ = commands(held, ['mmcv'])
    assert words[0] == ['onedl-mmcv']


def test_old_torch_holds_numpy_1_and_torch_spec_is_passed_on(commands, monkeypatch):
    held = {'pip': '24.0', 'setuptools': '80.0', 'torch': '2.0.1'}
    assert 'numpy==1.26.4' in commands(held, [])[1][0]
    monkeypatch.setenv('TORCH_SPEC', 'torch==2.4.1 --pre')
    words, _ = commands({}, ['torch'])
    assert words[0][1:] == ['torch==2.4.1', '--pre']


def test_setuptools_without_pkg_resources_is_replaced(commands):
    words, constraints = commands({**HELD, 'setuptools': '82.0'}, ['pkg_resources'])
    assert words[0] == ['setuptools>=70.1,<81']
    assert 'setuptools==82.0' not in constraints[0]


def test_second_run_installs_nothing(commands):
    commands(HELD, [])
    assert commands(HELD, []) == ([], [])


@pytest.mark.parametrize('script', ['setup.sh', 'quickstart.sh'])
def test_help_installs_nothing(script, tmp_path):
    env = dict(
        os.environ, SETUP_PYTHON=str(tmp_path / 'missing'), PATH=os.environ['PATH']
    )
    command = ['bash', ROOT / 'tools' / script, '--help']
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == ''


def test_missing_python_is_named(tmp_path):
    env = dict(os.environ, SETUP_PYTHON=str(tmp_path / 'missing'))
    command = ['bash', ROOT / 'tools/setup.sh']
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert 'missing is missing or older than Python 3.9' in done.stderr
