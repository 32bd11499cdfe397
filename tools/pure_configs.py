"""Write mmdet_consistent/configs/: our configs for mmengine's pure-Python style.

A pure-Python config can only inherit pure-Python ones, and mmdet's wheel has none.
So those that others derive from are written out in full, from configs/.

Example:
    python tools/pure_configs.py            # write them
    python tools/pure_configs.py --check    # fail if they are out of date
"""

import re
import subprocess
import sys
from pathlib import Path

from generated import parse_args, write_or_check
from mmengine.config import Config

import mmdet_consistent

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / 'mmdet_consistent/configs'
WRITTEN_OUT = ('con_retinanet_r50_fpn', 'con_ssd512_vgg16', 'con_ssd512_r50')
SHORT = ('--config', 'format.skip-magic-trailing-comma=true')
HEAD = '''\
"""configs/{name}.py in pure-Python style, written out.

Made by `python tools/pure_configs.py`: edit configs/{name}.py.
"""

{imports}

'''


def without_scope(value: object) -> object:
    """A copy without the marks of the text style's inheritance."""
    if isinstance(value, dict):
        return {k: without_scope(v) for k, v in value.items() if k != '_scope_'}
    if isinstance(value, (list, tuple)):
        return type(value)(without_scope(v) for v in value)
    return value


def render(name: str) -> str:
    """Text of one config, formatted.

    Args:
        name: Of a file in configs/, without its ending.
    """
    fields = Config.fromfile(ROOT / f'configs/{name}.py').to_dict()
    # A class that is imported needs no custom_imports to be found.
    del fields['custom_imports']
    text = Config(without_scope(fields)).pretty_text
    ours = sorted(
        found
        for found in set(re.findall(r"type='(\w+)'", text))
        if found in mmdet_consistent.__all__
    )
    for cls in ours:
        text = text.replace(f"type='{cls}'", f'type={cls}')
    imports = '\n'.join(
        f'from {getattr(mmdet_consistent, cls).__module__} import {cls}' for cls in ours
    )
    text = HEAD.format(name=name, imports=imports) + text
    formatter = [sys.executable, '-m', 'ruff', '-q']
    path = str(TARGET / f'{name}.py')
    for command in (
        ['check', '--fix', '--stdin-filename', path, '-'],
        ['format', *SHORT, '--stdin-filename', path, '-'],
    ):
        text = subprocess.run(
            formatter + command, input=text, text=True, stdout=subprocess.PIPE
        ).stdout
    return text


def main() -> None:
    args = parse_args(__doc__)
    for name in WRITTEN_OUT:
        path = TARGET / f'{name}.py'
        refusal = f'{path.relative_to(ROOT)} is out of date: run {__file__}'
        write_or_check(path, render(name), args.check, refusal)


if __name__ == '__main__':
    main()
