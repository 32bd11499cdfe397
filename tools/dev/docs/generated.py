"""Pages and files that a tool writes, and that a test holds up to date."""

import argparse
import os
import sys
from pathlib import Path


def parse_args(description: str) -> argparse.Namespace:
    """The command line of a tool that only writes such files: ``--check``."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; fail if it would change'
    )
    return parser.parse_args()


def write_or_check(path: Path, text: str, check: bool, refusal: str) -> None:
    """Write a file, beside and renamed; or end the program if it would change.

    Args:
        path: The file.
        text: What it shall hold.
        check: Whether to write nothing.
        refusal: What to end with if the file holds anything else.
    """
    if not check:
        beside = path.with_suffix('.tmp')
        beside.write_text(text, encoding='utf-8')
        os.replace(beside, path)
    elif not path.is_file() or path.read_text(encoding='utf-8') != text:
        sys.exit(refusal)


def with_block(path: Path, name: str, text: str) -> str:
    """The file with another text between ``<!-- name:begin -->`` and ``:end``."""
    before, begin, rest = path.read_text(encoding='utf-8').partition(
        f'<!-- {name}:begin -->'
    )
    _, end, after = rest.partition(f'<!-- {name}:end -->')
    if not begin or not end:
        sys.exit(f'{path}: <!-- {name}:begin --> and <!-- {name}:end --> are missing')
    return f'{before}{begin}\n{text}\n{end}{after}'
