"""The files that a user's code imports are found without running it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transferscope.system.imported_files import with_imported_files

FILES = {
    "nets.py": "import parts\nfrom kit.blocks import Block\nimport os, torch\nimport transferscope.models\n",
    "parts.py": "def f():\n    from deep import g\n",
    "deep.py": "import nets\n",
    "kit/__init__.py": "from . import names\n",
    "kit/names.py": "from .sub.more import x\n",
    "kit/blocks.py": "from .names import x\nclass Block: pass\n",
    "kit/sub/__init__.py": "",
    "kit/sub/more.py": "from ..last import x\n",
    "kit/last.py": "x = 1\n",
    "kit/unused.py": "",
    "unused.py": "import nets\n",
    "transferscope/__init__.py": "",
    "transferscope/models.py": "",
}
IMPORTED = [
    "deep.py", "kit/__init__.py", "kit/blocks.py", "kit/last.py", "kit/names.py", "kit/sub/__init__.py",
    "kit/sub/more.py", "nets.py", "parts.py",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of networks, what it imports, and other files."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_all_files_that_are_imported_are_found(folder: Path) -> None:
    """Through others, in functions, in packages, in a circle; none that is not imported, and none of this package."""
    found = [str(path.relative_to(folder)) for path in with_imported_files(folder / "nets.py")]
    assert found == IMPORTED


def test_python_imports_the_same_files(folder: Path) -> None:
    """An independent list: those of `sys.modules` after the imports, with that of the function's body."""
    code = (
        "import sys; before = set(sys.modules); sys.modules['torch'] = sys; import nets, deep\n"
        "print(*(m.__file__ for n, m in list(sys.modules.items()) if n not in before and getattr(m, '__file__', None)))"
    )
    shown = subprocess.run([sys.executable, "-S", "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    known = {str(Path(path).relative_to(folder)) for path in shown.stdout.split() if path.startswith(str(folder))}
    assert {name for name in known if not name.startswith("transferscope")} == set(IMPORTED)


def test_a_module_of_a_package_begins_where_its_package_lies(folder: Path) -> None:
    """`kit.blocks` and its relative imports; the package alone by its name."""
    found = with_imported_files(folder / "kit/blocks.py", "kit.blocks")
    assert [str(path.relative_to(folder)) for path in found] == [
        "kit/__init__.py", "kit/blocks.py", "kit/last.py", "kit/names.py", "kit/sub/__init__.py", "kit/sub/more.py",
    ]  # fmt: skip
    assert folder / "kit/names.py" in with_imported_files(folder / "kit/__init__.py", "kit")


def test_installed_code_and_code_that_is_none_count_alone(tmp_path: Path) -> None:
    """Versions of packages are not watched file by file; what cannot be parsed fails where it is imported."""
    for folder in ("site-packages", "dist-packages"):
        installed = tmp_path / folder / "nets.py"
        installed.parent.mkdir()
        installed.write_text("import parts\n")
        (installed.parent / "parts.py").write_text("")
        assert with_imported_files(installed, "nets") == [installed]
    for number, code in enumerate((b"import (\0", b"x = " + b"(" * 10_000, b"x = 1" + b" + 1" * 30_000)):
        broken = tmp_path / f"broken_{number}.py"
        broken.write_bytes(code)
        assert with_imported_files(broken) == [broken]
    assert with_imported_files(tmp_path / "missing.py") == [tmp_path / "missing.py"]
