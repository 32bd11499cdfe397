"""Run one of our tools, wherever the package is installed, or any other script.

python -m mmdet_consistent                      # list the tools
python -m mmdet_consistent train CONFIG --amp   # tools/train.py CONFIG --amp
python -m mmdet_consistent PATH/test.py CONFIG  # e.g. mmdet's, with our operators
"""

import ast
import runpy
import sys
from pathlib import Path
from types import ModuleType

from .utils.configs import config_root


def tools() -> dict[str, Path]:
    """Return the tools' files by name."""
    folder = config_root().parent / 'tools'
    files = sorted(folder.glob('*.py'))
    return {p.stem: p for p in files if '__main__' in p.read_text(encoding='utf-8')}


def run_script(path: Path, argv: list[str]) -> None:
    """Run a script that does not import this package as if it did, first of all.

    Processes that it spawns do not run it again, which they would before they could
    import anything else.
    """
    module = ModuleType('__main__')
    module.__spec__ = sys.modules['__main__'].__spec__
    module.__file__ = str(path)
    sys.modules['__main__'] = module
    sys.argv = argv
    sys.path[0] = str(path.parent)
    exec(compile(path.read_bytes(), str(path), 'exec'), module.__dict__)


def main() -> None:
    """Run the tool named by the first argument with the other arguments."""
    known = tools()
    name = sys.argv[1] if len(sys.argv) > 1 else '--help'
    if name in ('-h', '--help'):
        print('usage: python -m mmdet_consistent TOOL [arguments]\n')
        for tool, path in known.items():
            text = ast.get_docstring(ast.parse(path.read_text(encoding='utf-8')))
            print(f'  {tool:14} {(text or "").splitlines()[0]}')
        return
    if name not in known and name.endswith('.py') and Path(name).is_file():
        run_script(Path(name), sys.argv[1:])
        return
    if name not in known:
        sys.exit(
            f'there is no tool {name!r} here; there are {", ".join(known)} (a checkout '
            'also has quickstart, with its data)'
        )
    script = str(known[name])
    sys.argv = [script, *sys.argv[2:]]
    # As with any `python -m`, modules beside the config are found in this folder.
    runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    main()
