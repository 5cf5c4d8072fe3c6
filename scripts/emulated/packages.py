"""Builds the demo's packages with rattler-build and whl2conda, offline.

``python -m scripts.emulated.packages FOLDER`` writes artifacts to ``FOLDER/SUBDIR/`` and prints a
description as JSON. It is a separate program because py-rattler-build may abort at exit.

- ``python``, for this machine's platform, from a recipe: a stand-in that runs the current interpreter,
  so that the other packages can run without a download of Python.
- ``greeting``, noarch, from a recipe, with a ``+`` in its version.
- ``greeting-legacy``, noarch, from a recipe, as ``.tar.bz2``.
- ``fairway-hello``, a wheel that whl2conda converts to ``.conda``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rattler_build import Stage0Recipe, ToolConfiguration

_PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_SITE_PACKAGES = f"lib/python{_PYTHON}/site-packages"

_RECIPES = {
    "python": f"""
package:
  name: python
  version: "{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
build:
  number: 0
  string: standin_0
  script:
    - mkdir -p $PREFIX/bin $PREFIX/{_SITE_PACKAGES}
    - echo '#!/bin/sh' > $PREFIX/bin/python{_PYTHON}
    - echo 'export PYTHONPATH="$(dirname "$0")/../{_SITE_PACKAGES}"' >> $PREFIX/bin/python{_PYTHON}
    - echo 'exec "{sys.executable}" "$@"' >> $PREFIX/bin/python{_PYTHON}
    - chmod +x $PREFIX/bin/python{_PYTHON}
    - touch $PREFIX/{_SITE_PACKAGES}/stand-in
about:
  summary: Runs the Python that runs the demo
  license: BSD-3-Clause
""",
    "greeting": """
package:
  name: greeting
  version: "1.0+demo"
build:
  number: 0
  noarch: generic
  script:
    - mkdir -p $PREFIX/share/greeting
    - echo 'hello from a package with a plus' > $PREFIX/share/greeting/greeting.txt
about:
  summary: A text to greet with
  license: BSD-3-Clause
""",
    "greeting-legacy": """
package:
  name: greeting-legacy
  version: "0.9"
build:
  number: 0
  noarch: generic
  script:
    - mkdir -p $PREFIX/share/greeting
    - echo 'hello from a .tar.bz2' > $PREFIX/share/greeting/legacy.txt
about:
  summary: A text to greet with, packed as in old times
  license: BSD-3-Clause
""",
}

_PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "fairway-hello"
version = "1.2.3"
description = "Prints the greetings of its environment"
requires-python = ">=3.11"
dependencies = ["greeting", "greeting-legacy"]

[tool.hatch.build.targets.wheel]
packages = ["fairway_hello"]
"""

_MODULE = '''\
"""Prints the greetings of the environment that it is installed in."""

from pathlib import Path

for text in sorted((Path(__file__).resolve().parents[4] / "share" / "greeting").iterdir()):
    print(text.read_text(), end="")
print("hello from a wheel")
'''


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltPackage:
    """An artifact on disk."""

    path: str
    subdir: str
    tool: str
    seconds: float


def build_recipe(name: str, folder: Path) -> BuiltPackage:
    """Build one of the recipes with rattler-build."""
    started = time.monotonic()
    recipe = folder / "recipes" / name / "recipe.yaml"
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(_RECIPES[name], encoding="utf-8")
    (variant,) = Stage0Recipe.from_file(recipe).render()
    built = variant.run_build(
        tool_config=ToolConfiguration(test_strategy="skip"),
        output_dir=folder,
        channels=[],
        package_format="tar-bz2" if name == "greeting-legacy" else "conda",
    )
    path = Path(built.packages[0])
    return BuiltPackage(
        path=str(path), subdir=path.parent.name, tool="rattler-build", seconds=time.monotonic() - started
    )


def build_wheel(folder: Path) -> BuiltPackage:
    """Build a wheel and convert it to ``.conda``."""
    started = time.monotonic()
    project = folder / "recipes" / "fairway-hello"
    (project / "fairway_hello").mkdir(parents=True, exist_ok=True)
    (project / "pyproject.toml").write_text(_PYPROJECT, encoding="utf-8")
    (project / "fairway_hello" / "__init__.py").write_text("", encoding="utf-8")
    (project / "fairway_hello" / "__main__.py").write_text(_MODULE, encoding="utf-8")
    _run([sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", "wheels"], project)
    (wheel,) = (project / "wheels").glob("*.whl")
    subdir = folder / "noarch"
    whl2conda = str(Path(sys.executable).with_name("whl2conda"))
    _run([whl2conda, "convert", str(wheel), "--ignore-pyproject", "--overwrite", "--out-dir", str(subdir)], project)
    (path,) = subdir.glob("fairway-hello-*.conda")
    return BuiltPackage(path=str(path), subdir="noarch", tool="whl2conda", seconds=time.monotonic() - started)


def _run(command: list[str], folder: Path) -> None:
    """Run a tool; print its output only if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Build all packages into the folder that the command line names."""
    folder = Path(sys.argv[1]).resolve()
    built = [build_wheel(folder), *(build_recipe(name, folder) for name in _RECIPES)]
    print(json.dumps([asdict(package) for package in built]), flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
