"""The module ``mmcv._ext``: who finds it, and what it says about missing operators."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import mmcv
import mmdet
import pytest

from mmdet_consistent.ops import catalogue, extension
from tests.support.operators import compiled
from tests.support.tiny_detector import tiny_config

ROOT = Path(__file__).resolve().parents[2]
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim/tools'
# Hides modules from every process that has this file's folder on its path: mmcv's
# compiled operators, if there are any.
HIDE = """
from importlib.machinery import PathFinder
original = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name in {names!r} else original(name, path, target)
PathFinder.find_spec = find_spec
"""


def names_in_mmcv():
    """The functions that mmcv.ops loads from its extension."""
    names = set()
    for path in (Path(mmcv.__file__).parent / 'ops').glob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call) and 'load_ext' in ast.unparse(node.func):
                names.update(ast.literal_eval(node.args[1]))
    return names


@pytest.fixture
def without(tmp_path):
    """Run Python where modules cannot be found; by default, compiled operators."""

    def run(*command, names=('mmcv._ext',), succeeds=True, **variables):
        (tmp_path / 'sitecustomize.py').write_text(HIDE.format(names=set(names)))
        path = os.pathsep.join([str(tmp_path), str(ROOT)])
        env = dict(os.environ, PYTHONPATH=path, PYTHONWARNINGS='ignore', **variables)
        env.pop('COVERAGE_PROCESS_CONFIG', None)
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
        )
        output = done.stdout + done.stderr
        assert (done.returncode == 0) == succeeds, output
        return output

    return run


def test_every_operator_of_mmcv_is_provided_or_has_known_users():
    names = names_in_mmcv()
    assert len(names) >= 112
    provided = {name for row in catalogue.PROVIDED.values() for name in row[0]}
    assert provided == set(extension.__all__) <= names
    for name in names - provided:
        assert catalogue.users_of(name) != catalogue.users_of('no such name'), name


def test_missing_operator_says_which_it_is_and_how_to_compile_it():
    operator = extension.nms_rotated
    message = r"operator 'nms_rotated' \(used by: rotated .*pip install --no-build-iso"
    with pytest.raises(NotImplementedError, match=message):
        operator(1, iou_threshold=0.5)
    with pytest.raises(AttributeError, match='no attribute'):
        _ = extension._private


@pytest.mark.skipif(compiled is None, reason='mmcv is not compiled')
@pytest.mark.parametrize(
    ('choice', 'file'), [('auto', '_ext.c'), ('torch', 'extension')]
)
def test_compiled_operators_win_unless_the_variable_says_torch(without, choice, file):
    code = 'import mmdet_consistent, mmcv._ext; print(mmcv._ext.__file__)'
    assert file in without('-c', code, names=(), MMDET_CONSISTENT_OPS=choice)


@pytest.mark.parametrize(
    ('choice', 'code', 'message'),
    [
        ('fast', '', "MMDET_CONSISTENT_OPS is 'fast'; use 'auto'"),
        ('torch', 'sys.modules["mmcv._ext"] = 1; ', 'import mmdet_consistent first'),
    ],
)
def test_variable_that_cannot_be_obeyed_is_an_error(without, choice, code, message):
    code = f'import sys; {code}import mmdet_consistent'
    output = without('-c', code, succeeds=False, MMDET_CONSISTENT_OPS=choice)
    assert message in output


def test_missing_mmdet_is_said_in_one_sentence(without):
    code = 'import mmdet_consistent'
    output = without('-c', code, names=('mmcv', 'mmdet'), succeeds=False)
    last = output.strip().splitlines()[-1]
    assert last.startswith(
        'ImportError: mmdet_consistent needs MMDetection, but mmcv, '
    )
    assert 'mmdet_consistent[openmmlab]' in last
    assert 'mmdet_consistent[onedl]' in last


@pytest.mark.parametrize('tool', sorted((ROOT / 'tools').glob('*.py')))
def test_tool_imports_the_package_before_mmdets_models(tool):
    modules = []
    for node in ast.parse(tool.read_text(encoding='utf-8')).body:
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules.append(node.module)
    tops = [name.split('.')[0] for name in modules if name != 'mmdet']
    if 'mmdet' in tops:
        assert tops.index('mmdet_consistent') < tops.index('mmdet')


@pytest.mark.slow
def test_operators_are_provided_after_a_first_import_failed(without):
    """As in a notebook whose first cell forgot the package."""
    output = without(
        '-c',
        'try:\n'
        '    import mmdet.apis\n'
        'except ModuleNotFoundError as error:\n'
        '    print(error)\n'
        'import mmdet_consistent, mmdet.apis, mmcv.ops\n'
        'print(mmcv.ops.get_compiler_version())',
    )
    assert "No module named 'mmcv._ext'" in output
    assert 'none: operators in PyTorch' in output


@pytest.mark.slow
@pytest.mark.parametrize('method', ['fork', 'spawn', 'forkserver'])
def test_data_loader_workers_find_the_operators(without, method):
    """Without a main module that a spawned worker would import, as in a notebook."""
    output = without(
        '-c',
        'import mmdet_consistent\n'
        'from mmdet.structures import DetDataSample\n'
        'from torch.utils.data import DataLoader\n'
        'samples = [DetDataSample(metainfo=dict(img_id=i)) for i in range(4)]\n'
        'loader = DataLoader(samples, batch_size=None, num_workers=2,\n'
        f'                    multiprocessing_context={method!r})\n'
        'print([sample.img_id for sample in loader])',
    )
    assert '[0, 1, 2, 3]' in output


@pytest.fixture
def config(tmp_path):
    """A small RetinaNet of mmdet's, and 4 images."""
    cfg = tiny_config('retinanet_bccd')
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.dataset.update(indices=4, data_root='data/bccd/')
        loader.update(num_workers=1, batch_size=2, persistent_workers=False)
    cfg.val_dataloader = cfg.test_dataloader
    cfg.train_cfg.max_epochs = 1
    cfg.env_cfg = dict(
        mp_cfg=dict(mp_start_method='spawn', opencv_num_threads=0),
        dist_cfg=dict(backend='gloo'),
    )
    cfg.custom_imports = dict(imports=['mmdet_consistent.engine.safe'])
    path = tmp_path / 'tiny.py'
    data = str(ROOT / 'data/bccd')
    path.write_text(cfg.pretty_text.replace("'data/bccd/", f"'{data}/"))
    return path


@pytest.mark.slow
@pytest.mark.works_with(
    'mmcv-lite',
    'run MMDetection without compiled operators',
    'getting_started.md#installation',
)
def test_mmdets_own_tools_find_the_operators(without, config):
    """train.py by the config's custom_imports; test.py by our launcher."""
    work_dir = config.parent / 'run'
    train = (MMDET_TOOLS / 'train.py', config, '--work-dir', work_dir)
    assert 'Epoch(val) [1]' in without(*train)
    test = (MMDET_TOOLS / 'test.py', config, work_dir / 'epoch_1.pth')
    assert "No module named 'mmcv._ext'" in without(*test, succeeds=False)
    output = without('-m', 'mmdet_consistent', *test, '--work-dir', work_dir)
    assert 'Epoch(test)' in output


@pytest.mark.slow
def test_our_tools_find_the_operators_under_torchrun(without, config):
    output = without(
        *('-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2'),
        *(ROOT / 'tools/train.py', config, '--launcher', 'pytorch'),
    )
    assert 'Epoch(val) [1]' in output
