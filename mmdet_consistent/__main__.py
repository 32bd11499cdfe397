"""Run one of our tools, wherever the package is installed, or any other script.

python -m mmdet_consistent                      # which tools there are
python -m mmdet_consistent train CONFIG --amp   # tools/train.py CONFIG --amp
python -m mmdet_consistent PATH/test.py CONFIG  # e.g. mmdet's, with our operators
"""

import ast
import runpy
import sys
from pathlib import Path

from .utils.configs import config_root


def tools() -> dict[str, Path]:
    """The tools, by name."""
    folder = config_root().parent / 'tools'
    files = sorted(folder.glob('*.py'))
    return {p.stem: p for p in files if '__main__' in p.read_text(encoding='utf-8')}


def main() -> None:
    """Run the tool that the first argument names, with the other arguments."""
    known = tools()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print('usage: python -m mmdet_consistent TOOL [arguments]\n')
        for tool, path in known.items():
            text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
            print(f'  {tool:14} {(text or "").splitlines()[0]}')
        return
    script = Path(name)
    if name not in known and script.suffix == '.py' and script.is_file():
        known[name] = script
    if name not in known:
        sys.exit(
            f'there is no tool {name!r} here; there are {", ".join(known)} (in a '
            'checkout also quickstart, which needs its data)'
        )
    path = str(known[name])
    sys.argv = [path, *sys.argv[2:]]
    sys.path[0] = str(known[name].parent)
    runpy.run_path(path, run_name='__main__')


if __name__ == '__main__':
    main()
