"""Which faults in the code would the tests miss? docs/results/mutation.md says.

Losses, assigner, coder and heads are given one small fault after another (a mutant: a
sign, a comparison, a number, an argument left out), and each time the tests that reach
the place are run. A mutant that no test notices either shows that a test is missing, or
there is a reason why it can't be noticed; these stand in tests/surviving_mutants.toml.
A survivor without a reason makes this program fail; it prints the lines for that file.

    pip install --target work_dirs/mutation/lib mutmut    # once; needs Python 3.11
    python tools/mutation.py             # all of it: an hour or two on two cores
    python tools/mutation.py --again     # what changed, and survivors without a reason
    python tools/mutation.py --report    # try nothing; write the page again
"""

import argparse
import ast
import difflib
import filecmp
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
REASONS = ROOT / 'tests/surviving_mutants.toml'
PAGE = ROOT / 'docs/results/mutation.md'
MUTATED = ('losses', 'task_modules', 'heads')
# What goes beyond the paper: an experiment each, with tests of its own.
LEFT_OUT = ('heads/additions/*', 'heads/aligned_conv.py', 'heads/iou_guided_nms.py')
NEEDED = ('mmdet_consistent', 'tests', 'configs', 'data', 'pyproject.toml')
CONFIG = """[mutmut]
source_paths = mmdet_consistent
only_mutate =
    {mutated}
also_copy =
    conftest.py
    configs
    data
do_not_mutate =
    {left_out}
pytest_add_cli_args_test_selection =
    {tests}
pytest_add_cli_args =
    -k
    {without}
"""
# Broad tests that take most of the time, and tell less than the others.
WITHOUT = 'not (test_bad_numbers or every_retinanet_config or mmdets_ssd_configs)'
# Looking for the simplest failing example would take longer than all the rest.
CONFTEST = """from hypothesis import Phase, settings

settings.register_profile(
    'mutation',
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
)
settings.load_profile('mutation')
"""
WORDING = (
    'The wording of an error message. That there is an error, and that it names the '
    'field, the value and the way out, is tested; each of its words is not.'
)


# Of a run that was stopped; --again goes on.
UNTRIED = ('not checked', 'check was interrupted by user')
UNEXPLAINED = 'Unexplained. No test notices these, and nobody has said why.'


class Mutant(NamedTuple):
    """A mutant that was not killed, told by its text, which edits elsewhere keep."""

    place: str  # file below mmdet_consistent/, and function
    was: str
    now: str


def copy_files(folder: Path) -> None:
    """Bring what the tests need into the folder; mutmut sees changes by their time."""
    listed = subprocess.check_output(
        ['git', 'ls-files', '-co', '--exclude-standard', *NEEDED], cwd=ROOT, text=True
    )
    commit = ['git', 'describe', '--always', '--dirty']
    texts = {
        'commit': subprocess.check_output(commit, cwd=ROOT, text=True),
        'conftest.py': CONFTEST,
        'setup.cfg': CONFIG.format(
            mutated='\n    '.join(f'mmdet_consistent/{name}/*' for name in MUTATED),
            left_out='\n    '.join(f'mmdet_consistent/{name}' for name in LEFT_OUT),
            tests='\n    '.join(f'tests/{name}' for name in MUTATED),
            without=WITHOUT,
        ),
    }
    names = {name for name in listed.splitlines() if (ROOT / name).is_file()}
    for name in sorted(names):
        source, target = ROOT / name, folder / name
        if not target.is_file() or not filecmp.cmp(source, target, shallow=False):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            mutated = folder / 'mutants' / name
            if not any(name.startswith(f'mmdet_consistent/{m}/') for m in MUTATED):
                mutated.unlink(missing_ok=True)  # mutmut would keep the old copy
    for name, text in texts.items():
        (folder / name).write_text(text, encoding='utf-8')
    for top in ('mmdet_consistent', 'tests'):
        for path in (folder / top).rglob('*.py'):
            if str(path.relative_to(folder)) not in names:
                path.unlink()
                (folder / 'mutants' / path.relative_to(folder)).unlink(missing_ok=True)


def run_mutmut(folder: Path, library: Path, *args: str) -> None:
    """Call mutmut in the folder, one thread a process."""
    script = ROOT / 'tools/mutation_run.py'
    threads = dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
    env = dict(os.environ, PYTHONPATH=str(library), **threads)
    subprocess.run(
        [sys.executable, str(script), *args], cwd=folder, env=env, check=True
    )


def mutant_of(outcome: dict) -> Mutant:
    """The mutant's file, function, and lines."""
    lines = difflib.ndiff(outcome['was'].splitlines(), outcome['now'].splitlines())
    changed = [(line[0], line[2:].strip()) for line in lines if line[0] in '+-']
    was, now = (
        '\n'.join(text for sign, text in changed if sign == wanted) for wanted in '-+'
    )
    file = outcome['file'].split('/', 1)[1]
    return Mutant(f'{file} {outcome["function"]}', was, now)


def without_words(code: str) -> str:
    """The code as a tree, with the words of what is raised taken out."""
    tree = ast.parse(textwrap.dedent(code))
    for node in ast.walk(tree):
        for part in ast.walk(node) if isinstance(node, ast.Raise) else ():
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                part.value = ''
    return ast.dump(tree)


def is_wording(outcome: dict) -> bool:
    """Whether only the words of an error message were changed."""
    return without_words(outcome['was']) == without_words(outcome['now'])


def read_reasons() -> dict:
    """Reason of each mutant that can't be killed."""
    import tomllib  # Python 3.11

    groups = tomllib.loads(REASONS.read_text(encoding='utf-8'))['group']
    return {
        Mutant(m['place'], m['was'].strip(), m['now'].strip()): group['reason'].strip()
        for group in groups
        for m in group['mutants']
    }


def read_outcomes(folder: Path, library: Path) -> list:
    """What became of each mutant, and why it is alive, as far as that is known."""
    path = folder / 'outcomes.json'
    run_mutmut(folder, library, 'outcomes', str(path))
    outcomes = json.loads(path.read_text(encoding='utf-8'))
    reasons = read_reasons()
    for outcome in outcomes:
        outcome['alive'] = outcome['status'] not in ('killed', 'timeout', *UNTRIED)
        if outcome['alive']:
            outcome['mutant'] = mutant_of(outcome)
            known = WORDING if is_wording(outcome) else UNEXPLAINED
            outcome['reason'] = reasons.get(outcome['mutant'], known)
    return outcomes


def totals_table(outcomes: list) -> list:
    """Lines of the table of files."""
    lines = [
        '| file | mutants | killed | timed out | survived | not tried |',
        '| --- | --: | --: | --: | --: | --: |',
    ]
    for file in [*sorted({o['file'] for o in outcomes}), None]:
        of_file = [o for o in outcomes if file in (None, o['file'])]
        count = Counter(o['status'] for o in of_file)
        name = f'`{file.split("/", 1)[1]}`' if file else '**all**'
        alive = sum(o['alive'] for o in of_file)
        untried = sum(count[status] for status in UNTRIED)
        numbers = (len(of_file), count['killed'], count['timeout'], alive, untried)
        lines.append(f'| {name} | ' + ' | '.join(map(str, numbers)) + ' |')
    return lines


def survivors_by_reason(outcomes: list) -> dict:
    """The mutants that live, for each reason; the unexplained first, wording last."""
    groups: dict = {UNEXPLAINED: []}
    for outcome in outcomes:
        if outcome['alive']:
            groups.setdefault(outcome['reason'], []).append(outcome['mutant'])
    wording = groups.pop(WORDING, [])
    return {k: v for k, v in {**groups, WORDING: wording}.items() if v}


def page(outcomes: list, groups: dict, versions: str, commit: str) -> str:
    """Text of docs/results/mutation.md."""
    lines = [
        '# Mutation',
        '',
        f'Generated by `python tools/mutation.py` from commit {commit}.',
        '',
        'Losses, assigner, coder and heads were given one small fault after another, '
        'a *mutant*, and each time the tests of `tests/losses`, `tests/task_modules` '
        'and `tests/heads` that reach the place were run, but for the slowest. A '
        'mutant is killed by a test that fails, or by tests that come to no end. '
        'Left out: ' + ', '.join(f'`{name}`' for name in LEFT_OUT) + '.',
        '',
        *totals_table(outcomes),
        '',
        '## Survivors',
        '',
        'And why they are not killed, as `tests/surviving_mutants.toml` has it.',
        '',
    ]
    for reason, mutants in groups.items():
        title, _, rest = reason.partition('. ')
        lines += [f'### {len(mutants)} × {title.rstrip(".").lower()}', '']
        lines += [rest, ''] if rest else []
        lines.append('```diff')
        for place, of_place in by_place(mutants).items():
            lines.append(f'# {place}')
            for mutant in of_place:
                lines += [f'-{line}' for line in mutant.was.splitlines()]
                lines += [f'+{line}' for line in mutant.now.splitlines()]
        lines += ['```', '']
    return '\n'.join([*lines, versions, ''])


def by_place(mutants: list) -> dict:
    """The mutants of each function."""
    places: dict = {}
    for mutant in mutants:
        places.setdefault(mutant.place, []).append(mutant)
    return places


def as_toml(mutant: Mutant) -> str:
    """The mutant as tests/surviving_mutants.toml has it."""
    parts = (f"{name} = '''{text}'''" for name, text in mutant._asdict().items())
    return '  {' + ', '.join(parts) + '},'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--again', action='store_true', help='keep what was killed')
    parser.add_argument('--report', action='store_true', help='try nothing')
    parser.add_argument('--workers', type=int, default=os.cpu_count(), help='processes')
    parser.add_argument(
        '--folder', type=Path, default=ROOT / 'work_dirs/mutation', help='of the copy'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    folder = args.folder.resolve()
    library = folder / 'lib'
    if not (library / 'mutmut').is_dir():
        sys.exit(
            'mutmut is missing; it is kept apart from your environment:\n'
            f'    {sys.executable} -m pip install --target {library} mutmut'
        )
    if not args.report:
        if args.again:
            before = read_outcomes(folder, library)
            keys = [o['key'] for o in before if o.get('reason') == UNEXPLAINED]
            run_mutmut(folder, library, 'forget', *keys)
            (folder / 'mutants/mutmut-stats.json').unlink(missing_ok=True)
        else:
            shutil.rmtree(folder / 'mutants', ignore_errors=True)
        copy_files(folder)
        run_mutmut(folder, library, 'run', '--max-children', str(args.workers))
    outcomes = read_outcomes(folder, library)
    groups = survivors_by_reason(outcomes)
    commit = (folder / 'commit').read_text(encoding='utf-8').strip()
    import torch

    from mmdet_consistent.utils import atomic

    versions = f'torch {torch.__version__}, Python {sys.version.split()[0]}.'
    atomic.write(PAGE, page(outcomes, groups, versions, commit).encode())
    print(f'wrote {PAGE}')
    alive = {mutant for mutants in groups.values() for mutant in mutants}
    for mutant in sorted(set(read_reasons()) - alive):
        print(f'killed or gone, its reason can go: {mutant}')
    unexplained = groups.get(UNEXPLAINED, [])
    for mutant in unexplained:
        print(as_toml(mutant))
    if unexplained:
        sys.exit(f'{len(unexplained)} survivors have no reason in {REASONS}')


if __name__ == '__main__':
    main()
