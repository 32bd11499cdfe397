"""Packs configs and tools into the wheel, where MIM and mmengine look for them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
# What only runs in a checkout: set-up, and the quickstart's data.
CHECKOUT_ONLY = ('setup', 'quickstart')


def packed_files() -> list:
    """(file of the checkout, its path below ``mmdet_consistent/.mim``)."""
    configs = [
        path
        for path in (ROOT / 'configs').rglob('*')
        if path.is_file() and path.parent.name not in CHECKOUT_ONLY
    ]
    tools = [
        path
        for path in (ROOT / 'tools').iterdir()
        if path.suffix in ('.py', '.sh')
        and path.stem not in (*CHECKOUT_ONLY, '__init__')
    ]
    files = [ROOT / 'model-index.yml', *configs, *tools]
    return sorted(
        (path, path.relative_to(ROOT))
        for path in files
        if '__pycache__' not in path.parts
    )


class BuildWithMim(build_py):
    """``build_py`` that also writes ``.mim/``; a link to the checkout needs none."""

    def run(self) -> None:
        """Build the package, then write what MIM looks for."""
        super().run()
        if not self.editable_mode:
            for source, target in self._mim_files():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)

    def _mim_files(self) -> list:
        mim = Path(self.build_lib) / 'mmdet_consistent' / '.mim'
        return [(source, mim / path) for source, path in packed_files()]

    def get_outputs(self, include_bytecode: bool = True) -> list:
        """The wheel's files, ours too."""
        outputs = super().get_outputs(include_bytecode)
        if not self.editable_mode:
            outputs += [str(target) for _, target in self._mim_files()]
        return outputs


setup(cmdclass=dict(build_py=BuildWithMim))
