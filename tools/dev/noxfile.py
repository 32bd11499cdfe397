"""Run the quick tests on other versions of the stack, and record the outcome.

Example:
    python -m nox -f tools/dev/noxfile.py                     # all stacks
    python -m nox -f tools/dev/noxfile.py -s oldest forks     # some of them
    python -m nox -f tools/dev/noxfile.py -s oldest -- tests/heads    # some tests
    python -m nox -f tools/dev/noxfile.py -s newest -- telling        # see TELLING

Every stack has an environment of its own below work_dirs/nox, made by tools/setup.sh
and reused by a second run. The outcome becomes a row of docs/versions.md; the rows of
stacks that are not run, or whose Python is not installed, stay as they are. Only
`compiled` needs a compiler: it builds mmcv in 20 minutes on two cores, and compares our
operators with it. MMCV_WHEEL may name a wheel that was built before.
"""

import os
import re
from datetime import date
from functools import partial
from pathlib import Path

import nox

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs/versions.md'
END = '<!-- versions:end -->'
# Name to Python, PyTorch, and what is installed before tools/setup.sh adds the rest.
STACKS = {
    'oldest': (
        'python3.9',
        'torch==2.0.1',
        'mmengine==0.7.4 mmcv-lite==2.0.1 mmdet==3.0.0 yapf==0.40.1 numpy<2',
    ),
    '2024': (
        'python3.10',
        'torch==2.4.1',
        'mmengine==0.10.4 mmcv-lite==2.1.0 mmdet==3.3.0',
    ),
    'today': (None, '', ''),
    'newest': ('python3.13', 'torch', ''),
    'forks': (
        None,
        '',
        'onedl-mmengine==0.10.12 onedl-mmcv==2.3.6 onedl-mmdetection==3.5.1',
    ),
    'compiled': (None, '', 'mmcv==2.1.0'),
}
# The tests that depend on versions most: `-- telling`.
TELLING = (
    *('tests/engine', 'tests/losses', 'tests/ops', 'tests/task_modules'),
    *('tests/heads/test_retina_head.py', 'tests/heads/test_ssd_head.py'),
)
VERSIONS = """
import platform, torch, numpy, mmcv, mmengine, mmdet, cv2
from importlib.metadata import version
print('python', platform.python_version(), end='')
for module in (torch, numpy, mmcv, mmengine, mmdet, cv2):
    print(f', {module.__name__} {module.__version__}', end='')
print(', pycocotools', version('pycocotools'))
"""

nox.options.envdir = str(ROOT / 'work_dirs/nox')
nox.options.reuse_venv = 'yes'


def write_row(session: nox.Session, name: str, *cells: str) -> None:
    """Replace (or add) the row of a stack in docs/versions.md."""
    python, torch, others = STACKS[name]
    wanted = ' '.join([python or 'python3', torch or 'tools/setup/tested.txt', others])
    git = partial(session.run, 'git', external=True, silent=True, log=False)
    commit = git('rev-parse', '--short', 'HEAD').strip()
    dirty = git('status', '--short', '-uno', '--', '.', ':!docs/versions.md')
    changed = ', changed' if dirty.strip() else ''
    when = f'{date.today().isoformat()}, {commit}{changed}'
    row = ' | '.join(['', name, wanted.strip(), *cells, when, '']).strip()
    page, found = re.subn(
        rf'^\| {name} \|.*', lambda _: row, PAGE.read_text('utf-8'), flags=re.MULTILINE
    )
    PAGE.write_text(page if found else page.replace(END, f'{row}\n{END}'), 'utf-8')


def check_forks(session: nox.Session) -> None:
    """Check that ``pip install .`` would install nothing over the forks."""
    pip = partial(session.run, 'python', '-m', 'pip', silent=True)
    output = pip('install', '--dry-run', '--no-build-isolation', '.')
    if re.findall(r'Would install (.*)', output) != ['mmdet_consistent-0.1.0']:
        session.error(output)
    pip('check')


def install_mmcv(session: nox.Session, version: str) -> None:
    """Install mmcv with compiled operators: MMCV_WHEEL, or built from its source."""
    wheel = os.environ.get('MMCV_WHEEL')
    if wheel:
        session.install('--no-deps', wheel)
        return
    session.install('ninja', 'wheel')
    build = ('--no-build-isolation', '--no-deps', '--no-binary', 'mmcv', version)
    session.install(*build, env={'MMCV_WITH_OPS': '1'})


def test_stack(session: nox.Session, name: str) -> None:
    """Set a stack up, run the quick tests, and write its row."""
    _, torch, others = STACKS[name]
    session.chdir(ROOT)
    env = {'SETUP_PYTHON': str(Path(session.bin) / 'python')}
    if torch:
        env['TORCH_SPEC'] = torch
    try:
        if name == 'compiled':
            session.run_install('bash', 'tools/setup.sh', env=env, external=True)
            session.run_install('python', '-m', 'pip', 'uninstall', '-qy', 'mmcv-lite')
            install_mmcv(session, others)
        elif others:
            session.install(*others.split())
        session.run_install('bash', 'tools/setup.sh', env=env, external=True)
        if name == 'forks':
            check_forks(session)
        versions = session.run('python', '-c', VERSIONS, silent=True).splitlines()[-1]
    except nox.command.CommandFailed:
        write_row(session, name, '–', 'the set-up failed', '–')
        raise
    telling = session.posargs == ['telling']
    output = session.run(
        *('python', '-m', 'pytest', '-q', '-rfEs', '-p', 'no:cacheprovider'),
        *(TELLING if telling else session.posargs or ['tests']),
        env=dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1'),
        silent=True,
        success_codes=range(256),
    )
    outcome = re.sub(r'^=* *| in [0-9.]+s.*', '', output.splitlines()[-1])
    paths = [x for x in session.posargs if telling or x.startswith('tests')]
    reasons = sorted(set(re.findall(r'^SKIPPED \[\d+\] [^ ]*: (.*)', output, re.M)))
    cells = (
        f'{" ".join(paths)}: {outcome}' if paths else outcome,
        '<br>'.join(reasons),
    )
    write_row(session, name, versions, *cells)
    session.log(outcome)
    if 'failed' in outcome or 'error' in outcome or 'passed' not in outcome:
        session.error(output[-3000:])


for _name, (_python, _, _) in STACKS.items():
    nox.session(partial(test_stack, name=_name), name=_name, python=_python)
