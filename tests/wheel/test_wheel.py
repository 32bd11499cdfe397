"""What is in the wheel, and what works when only that is installed."""

import configparser
import re
import sys
import tarfile
import zipfile

import mmengine.hub
import pytest
import yaml
from mmengine.config import Config

import mmdet_consistent
from mmdet_consistent import __main__
from tests.support.processes import ROOT, STUB_OPERATORS, run

CONFIGS = sorted(
    str(p.relative_to(ROOT / 'configs'))
    for p in (ROOT / 'configs').rglob('*.py')
    if p.parent.name != 'quickstart'  # they need the checkout's data
)
# Each kind: in the first folder, below it, through several bases, SSD.
SOME = (
    'con_retinanet_r50_fpn.py',
    'ablations/table1_cascade.py',
    'con_ssd512_r50.py',
)


def test_wheel_holds_package_types_configs_and_tools(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(n for n in names if n.endswith('.dist-info/METADATA'))
        text = archive.read(metadata).decode()
    assert len(names) == len(set(names))
    tops = {name.split('/')[0] for name in names}
    assert tops == {'mmdet_consistent', metadata.split('/')[0]}
    mim = 'mmdet_consistent/.mim/'
    packed = {n.removeprefix(mim) for n in names if n.startswith(mim)}
    configs = {name for name in packed if re.fullmatch(r'configs/.*\.py', name)}
    assert configs == {f'configs/{name}' for name in CONFIGS}
    assert {'model-index.yml', 'configs/metafile.yml'} <= packed
    scripts = ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'launch.sh')
    tools = ('train.py', 'test.py', *scripts, 'analyze.py')
    assert {f'tools/{name}' for name in tools} <= packed
    unwanted = ('setup', 'quickstart', 'pyc', 'tests/', 'tools/dev')
    assert not [n for n in names if any(word in n for word in unwanted)]
    assert 'mmdet_consistent/py.typed' in names
    extras = set(re.findall(r'Provides-Extra: (\w+)', text))
    users = {'analysis', 'convert', 'export', 'onedl', 'openmmlab', 'recommended'}
    assert extras == {*users, 'dev', 'docs', 'integrations'}


@pytest.mark.slow
def test_source_archive_builds_the_same_wheel(sources, wheel, tmp_path):
    build = 'from setuptools import build_meta as b; print(b.build_{}({!r}))'
    run(sys.executable, '-c', build.format('sdist', str(tmp_path)), cwd=sources)
    (archive,) = tmp_path.glob('*.tar.gz')
    with tarfile.open(archive) as content:
        for member in content.getmembers():
            content.extract(member, tmp_path)
    (unpacked,) = (p for p in tmp_path.iterdir() if p.is_dir())
    run(sys.executable, '-c', build.format('wheel', str(tmp_path)), cwd=unpacked)
    (again,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())


def test_requirements_are_the_core_and_the_openmmlab_family():
    lines = (ROOT / 'requirements.txt').read_text().splitlines()
    listed = [line.split('#')[0].strip() for line in lines]
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    core = setup['options']['install_requires'].split()
    family = setup['options.extras_require']['openmmlab'].split()
    assert sorted(filter(None, listed)) == sorted(core + family)
    names = {re.match(r'[\w-]+', line)[0] for line in core}
    assert names == {'torch', 'pycocotools', 'numpy', 'filelock'}


def plain(value):
    """Dicts and lists without marks of inheritance, classes by name."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, str) and value.startswith('mmdet_consistent.'):
        return value.rpartition('.')[2]
    return value


@pytest.fixture(scope='module')
def looked_up(run_installed):
    """What a process with the wheel alone finds.

    First what importing the package adds to what mmdet brings along, then what is
    read for each way to name a config.
    """
    return run_installed(
        f'{STUB_OPERATORS}'
        'import time\n'
        'import mmdet.models, mmdet.datasets, mmdet.evaluation, mmdet.engine\n'
        'import mmcv.ops, mmengine.runner, mmengine.hub\n'
        'before = set(sys.modules)\n'
        'start = time.process_time()\n'
        'import mmdet_consistent\n'
        'seconds = time.process_time() - start\n'
        'new = {m.split(".")[0] for m in set(sys.modules) - before}\n'
        'ours = [m for m in sys.modules if m.startswith("mmdet_consistent.")]\n'
        'importing = dict(new=sorted(new), seconds=seconds, ours=ours,\n'
        '                 file=mmdet_consistent.__file__)\n'
        'from pathlib import Path\n'
        'from mmengine.config import Config\n'
        'from mmengine.hub import get_config, get_model\n'
        'text = {}\n'
        f'for name in {SOME!r}:\n'
        '    Path("own.py").write_text(f"_base_ = \'mmdet_consistent::{name}\'")\n'
        '    text[name] = Config.fromfile("own.py").to_dict()\n'
        'by_hub = get_config("mmdet_consistent::con_ssd512_r50.py").to_dict()\n'
        'model = get_model("mmdet_consistent::con_retinanet_r50_fpn.py")\n'
        'assert type(model.bbox_head) is mmdet_consistent.ConsistentRetinaHead\n'
        'answer = dict(importing=importing, text=text, hub=by_hub)'
    )


@pytest.mark.slow
def test_importing_adds_our_modules_alone(looked_up):
    """What mmdet brings along is there already; we add our own modules alone."""
    answer = looked_up['importing']
    assert 'site' in answer['file']
    assert str(ROOT) not in answer['file']
    stdlib = getattr(sys, 'stdlib_module_names', set(answer['new']))  # Python 3.9
    assert set(answer['new']) - set(stdlib) <= {'mmdet_consistent'}
    rooms = {name.split('.')[1] for name in answer['ours']}
    assert not rooms & {'analysis', 'export'}
    assert answer['seconds'] < 1


@pytest.mark.slow
@pytest.mark.works_with(
    '`mmengine.hub`',
    'get configs and models by name',
    'downstream.md#hub-and-mim',
)
def test_installed_configs_are_found_by_prefix_and_by_the_hub(looked_up):
    assert tuple(looked_up['text']) == SOME
    for name, config in looked_up['text'].items():
        ours = Config.fromfile(ROOT / 'configs' / name).to_dict()
        assert plain(config) == plain(ours), name
    assert plain(looked_up['hub']) == plain(looked_up['text']['con_ssd512_r50.py'])


def test_unknown_config_is_refused_with_the_nearest_names():
    with pytest.raises(FileNotFoundError, match=r'did you mean con_retinanet_r50_fpn'):
        mmdet_consistent.config_path('con_retinanet_r50.py')
    with pytest.raises(ValueError, match='publishes no trained weights'):
        mmengine.hub.get_config(
            'mmdet_consistent::con_retinanet_r50_fpn.py', pretrained=True
        )


@pytest.mark.docs
def test_metafile_says_that_its_figures_are_the_papers():
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    models = [
        model
        for path in index['Import']
        for model in yaml.safe_load((ROOT / path).read_text())['Models']
    ]
    assert len(models) > 15
    for model in models:
        assert (ROOT / model['Config']).is_file()
        assert all('not run here' in r['Dataset'] for r in model['Results'])


def test_package_lists_and_runs_its_tools(monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['mmdet_consistent'])
    __main__.main()
    tools = re.findall(r'^  (\w+) +\w', capsys.readouterr().out, re.MULTILINE)
    assert {'train', 'test', 'analyze', 'export', 'compare'} <= set(tools)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(sys, 'argv', ['mmdet_consistent', 'convert', '--help'])
    with pytest.raises(SystemExit) as done:
        __main__.main()
    assert done.value.code == 0
    assert 'Examples:' in capsys.readouterr().out
    monkeypatch.setattr(sys, 'argv', ['mmdet_consistent', 'trian'])
    with pytest.raises(SystemExit, match="no tool 'trian' here"):
        __main__.main()
