"""References to a user's own code."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from transferscope.system.errors import UserError
from transferscope.system.references import ALLOWED, allow, is_allowed, resolve, source_file


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED, "{}")


def test_a_module_and_a_file_are_followed(tmp_path: Path) -> None:
    """`module:name` and `file.py:name` give the object; a file is executed once."""
    (tmp_path / "nets.py").write_text("made = []\nmade.append(1)\ndef build(): return len(made)\n")
    assert resolve("math:gcd", "key")(12, 18) == 6
    first = resolve(f"{tmp_path}/nets.py:build", "key")
    assert resolve(f"{tmp_path}/nets.py:build", "key") is first
    assert first() == 1


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nets.build", "key: 'nets.build' must read module:name"),
        ("math:not a name", "key: 'math:not a name' must read module:name"),
        ("no_such_package.nets:build", "key: no module is named 'no_such_package.nets'; put it into src/ or install"),
        ("math:gdc", "key: math has no 'gdc': near matches are gcd"),
        ("no_such.py:build", "key: there is no file .*no_such.py"),
    ],
)
def test_a_wrong_reference_is_one_line(reference: str, message: str) -> None:
    """Each mistake names the key and the fix."""
    with pytest.raises(UserError, match=message):
        resolve(reference, "key")


def test_code_that_fails_names_its_error(tmp_path: Path) -> None:
    """A file with a mistake is one line with the error, and one whose package is missing names the package."""
    (tmp_path / "broken.py").write_text("1 / 0\n")
    with pytest.raises(UserError, match=r"key: .*broken.py cannot be imported: ZeroDivisionError: division by zero"):
        resolve(f"{tmp_path / 'broken.py'}:build", "key")


def test_a_file_imports_the_modules_beside_it(tmp_path: Path) -> None:
    """As `python file.py` does; the path of imports is as before, and what is nowhere is named with the fix."""
    (tmp_path / "sibling_of_script.py").write_text("def build(): return 7\n")
    (tmp_path / "script.py").write_text("from sibling_of_script import build\n")
    (tmp_path / "lacking.py").write_text("import no_such_sibling\n")
    before = list(sys.path)
    assert resolve(f"{tmp_path}/script.py:build", "key")() == 7
    with pytest.raises(UserError, match=r"lacking.py needs the module no_such_sibling, which is neither in its folder"):
        resolve(f"{tmp_path}/lacking.py:build", "key")
    assert sys.path == before


def test_two_modules_of_one_name_are_not_confused(tmp_path: Path) -> None:
    """Files of two folders that each import a module beside them of one name: the second is refused, not mistaken."""
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one_name_twice.py").write_text(f"def build(): return {folder!r}\n")
        (tmp_path / folder / "script.py").write_text("from one_name_twice import build\n")
    assert resolve(f"{tmp_path}/a/script.py:build", "key")() == "a"
    with pytest.raises(UserError, match=r"imports one_name_twice, and .* another module of that name, .*/a/one_name_"):
        resolve(f"{tmp_path}/b/script.py:build", "key")


def test_code_that_ends_the_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sys.exit` in a file or a module is an error with its fix, not the silent end of the command."""
    (tmp_path / "quits_at_once.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for place in ("quits_at_once", str(tmp_path / "quits_at_once.py")):
        with pytest.raises(UserError, match=r"ends the program \(sys.exit\) when it is imported: put that below"):
            resolve(f"{place}:build", "key")


def test_a_module_that_lacks_a_package_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module is there, and what it imports is not: the message names what to install."""
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="module needs_more needs the package no_such_package, which is not installed"):
        resolve("needs_more:build", "key")


def test_a_named_file_lies_in_the_folder_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative file is found from any working folder once the study has named it."""
    (tmp_path / "nets.py").write_text("def build(): return 5\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert not is_allowed("nets.py:build")
    allow("nets.py:build", tmp_path)
    assert is_allowed("nets.py:build")
    assert resolve("nets.py:build", "key")() == 5


def test_the_source_file_is_known_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file of a module or of a file reference is found, and its code is not executed."""
    (tmp_path / "explodes.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert source_file("explodes:build", tmp_path) == tmp_path / "explodes.py"
    assert source_file("explodes.py:build", tmp_path) == tmp_path / "explodes.py"
    assert source_file("no_such_package.x:build", tmp_path) is None


def test_a_package_that_fails_has_no_source_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the package around a module raises, the file counts as unknown; following the reference reports it."""
    (tmp_path / "failing_package").mkdir()
    (tmp_path / "failing_package" / "__init__.py").write_text("{}['key']\n")
    (tmp_path / "failing_package" / "nets.py").write_text("def build(): return 5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert source_file("failing_package.nets:build", tmp_path) is None
    with pytest.raises(UserError, match=r"key: failing_package.nets cannot be imported: KeyError"):
        resolve("failing_package.nets:build", "key")
