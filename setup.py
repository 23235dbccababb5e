"""Maps the repository's folders to packages; everything else is in pyproject.toml.

Packages and data files are read off the folders, so that none can be forgotten.
"""

from pathlib import Path

from setuptools import setup

ROOTS = {"onnx_rewrite": "core", "onnx_rewrite.passes": "passes", "onnx_rewrite.plugins": "plugins"}


def packages() -> list[str]:
    found = []
    for package, folder in ROOTS.items():
        for init in sorted(Path(folder).rglob("__init__.py")):
            found.append(".".join([package, *init.parent.relative_to(folder).parts]))
    return found


setup(packages=packages(), package_dir=ROOTS, include_package_data=False, package_data={"": ["*"]})
