"""mutmut's own command line, for tools/mutation.py, with three things more.

It takes decorated functions as well, which mutmut leaves alone, other than static and
class methods, as it would decorate every mutant too. Here they are the heart of the
matter (those under ``torch.no_grad()``, those of an ``autograd.Function``), so the
mutants go bare, and only what chooses among them keeps the decorators. And the tests
that take long come last.

``outcomes`` writes what became of each mutant as JSON; ``forget`` has some tried again.
"""

import json
from pathlib import Path

import click
import libcst as cst
from mutmut.__main__ import cli
from mutmut.mutation import file_mutation
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import read_functions_from_index
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import walk_mutatable_files
from mutmut.utils.format_utils import orig_function_and_class_names_from_key

plain_skip = file_mutation.MutationVisitor._skip_node_and_children
plain_arrangement = file_mutation.function_trampoline_arrangement
plain_arguments = PytestRunner._pytest_args_regular_run


def is_left_to_us(node: cst.CSTNode) -> bool:
    """Whether it is a function that mutmut would leave alone for its decorators."""
    if not isinstance(node, cst.FunctionDef) or not node.decorators:
        return False
    names = [getattr(d.decorator, 'value', None) for d in node.decorators]
    return names not in (['staticmethod'], ['classmethod'])


def skip(self: file_mutation.MutationVisitor, node: cst.CSTNode) -> bool:
    """Whether to leave a piece of code alone."""
    if is_left_to_us(node):
        node = node.with_changes(decorators=())
    return plain_skip(self, node)


def arrangement(function: cst.FunctionDef, mutants: list, class_name: str) -> tuple:
    """The function, its mutants, and what chooses among them."""
    declarations, (chooser, *copies), *rest = plain_arrangement(
        function, mutants, class_name
    )
    if is_left_to_us(function):
        copies = [copy.with_changes(decorators=()) for copy in copies]
    return (declarations, [chooser, *copies], *rest)


def quick_first(self: PytestRunner, tests: list) -> list:
    """The arguments of a test run: what takes long comes last."""
    durations = state().duration_by_test
    return plain_arguments(self, sorted(tests, key=lambda test: durations.get(test, 0)))


def mutated_files() -> list:
    """What mutmut knows of each file."""
    files = [SourceFileMutationData(path=path) for path in walk_mutatable_files()]
    for file in files:
        file.load()
    return files


@cli.command()
@click.argument('output', type=Path)
def outcomes(output: Path) -> None:
    """Write file, function and status of each mutant, and the code of those alive."""
    found = []
    for file in mutated_files():
        for key, code in file.exit_code_by_key.items():
            function, class_name = orig_function_and_class_names_from_key(key)
            found.append(
                dict(
                    key=key,
                    file=str(file.path),
                    function='.'.join(filter(None, (class_name, function))),
                    status=status_by_exit_code[code],
                )
            )
            if found[-1]['status'] != 'killed':
                codes = read_functions_from_index(key, file.path)
                was, now = (cst.Module([node]).code for node in codes)
                found[-1].update(was=was, now=now)
    output.write_text(json.dumps(found), encoding='utf-8')


@cli.command()
@click.argument('keys', nargs=-1)
def forget(keys: tuple) -> None:
    """Have these mutants tried again by the next run."""
    for file in mutated_files():
        for key in file.exit_code_by_key.keys() & keys:
            file.exit_code_by_key[key] = None
        file.save()


if __name__ == '__main__':
    file_mutation.MutationVisitor._skip_node_and_children = skip
    file_mutation.function_trampoline_arrangement = arrangement
    PytestRunner._pytest_args_regular_run = quick_first
    cli()
