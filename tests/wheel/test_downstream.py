"""examples/downstream, from the installed wheel, under our tools and mmdet's."""

import shutil
import sys
from pathlib import Path

import mmdet
import pytest

from tests.support.processes import ROOT, run

EXAMPLE = ROOT / 'examples/downstream'
MMDET_TRAIN = Path(mmdet.__file__).parent / '.mim/tools/train.py'
OURS = ['-m', 'mmdet_consistent', 'train']
SHORT = ['--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1']


@pytest.fixture(scope='module')
def made(tmp_path_factory, installed):
    """The example with its data, as its readme says to make them."""
    folder = tmp_path_factory.mktemp('example') / 'project'
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns('data', 'work_dirs'))
    make = ('make_data.py', 'data', '--images', '8')
    run(sys.executable, *make, cwd=folder, env=installed)
    return folder


@pytest.fixture
def project(tmp_path, made):
    return Path(shutil.copytree(made, tmp_path / 'project'))


@pytest.mark.slow
@pytest.mark.parametrize(
    ('tool', 'config', 'base'),
    [
        (OURS, 'shapes_text', None),
        (
            [MMDET_TRAIN],
            'shapes_text',
            "__import__('mmdet_consistent').config_path('con_retinanet_r50_fpn.py')",
        ),
    ],
    ids=['ours', 'mmdet'],
)
@pytest.mark.works_with(
    "MMDetection's `tools/train.py`",
    'train a config of ours from another project',
    'downstream.md',
)
def test_example_trains_from_the_wheel(project, installed, tool, config, base):
    path = project / f'configs/{config}.py'
    if base is not None:
        given = "'mmdet_consistent::con_retinanet_r50_fpn.py'"
        text = path.read_text()
        assert given in text
        path.write_text(text.replace(given, base))
    log = run(sys.executable, *tool, path, *SHORT, cwd=project, env=installed)
    assert 'loss_bbox_s1' in log
    saved = project / f'work_dirs/{config}'
    assert (saved / f'{config}.py').is_file()
    assert 'Epoch(val) [1]' in log


@pytest.mark.docs
def test_readme_names_every_config():
    text = (EXAMPLE / 'README.md').read_text()
    for path in (EXAMPLE / 'configs').glob('*.py'):
        assert f'configs/{path.name}' in text
