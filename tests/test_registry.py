"""Methods by name: ours, an installed package's, and any importable one."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from entrostat import registry
from entrostat.registry import Registry, UnknownMethodError


class Shape:
    def __init__(self, size: int = 1) -> None:
        self.size = size


class Square(Shape):
    pass


def shapes(**names) -> Registry[Shape]:
    found: Registry[Shape] = Registry("shape", Shape)
    for name, method in names.items():
        found(name)(method)
    return found


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package that nobody has installed, with one module."""
    (tmp_path / "far_away.py").write_text("class Circle:\n    size = 3\n\nradius = 2\n")
    (tmp_path / "broken_here.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "far_away"
    sys.modules.pop("far_away", None)


def test_a_decorated_class_is_found_and_stays_what_it_was():
    kind = shapes(square=Square)
    assert kind.find("square") is Square
    assert list(kind) == ["square"]
    assert kind("again")(Square) is Square


def test_a_name_may_fix_arguments():
    kind = shapes()
    kind("large", size=9)(Square)
    assert kind.find("large")().size == 9


def test_every_module_of_a_home_is_read_before_the_first_look_up(tmp_path, monkeypatch):
    home = tmp_path / "some_home"
    home.mkdir()
    (home / "__init__.py").write_text("")
    (home / "kind.py").write_text(
        "from entrostat.registry import Registry\nkind = Registry('k', object, 'some_home')\n"
    )
    (home / "far.py").write_text("from some_home.kind import kind\n\n@kind('far')\nclass Far: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    from some_home.kind import kind

    assert list(kind) == ["far"]


def test_a_reference_is_imported(package):
    assert shapes().find("far_away:Circle").size == 3
    assert shapes().knows("far_away:Circle")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("squre", r"'squre' is no shape; did you mean 'square'\? choose one of .*square"),
        ("far_away:Oval", "no attribute 'Oval'; give MODULE:NAME of a shape"),
        ("far_away:radius", "is a int; give a class or function"),
        ("nowhere.at_all:Circle", "cannot be imported.*put its folder on PYTHONPATH"),
        ("broken_here:Circle", "not_installed_anywhere"),
        ("../far_away:Circle", "is no shape"),
        ("", "is no shape"),
    ],
)
@pytest.mark.usefixtures("package")
def test_a_name_that_leads_nowhere_is_refused_with_the_names_that_do(name, said):
    with pytest.raises(UnknownMethodError, match=said):
        shapes(square=Square).find(name)


def test_a_name_that_is_taken_is_refused():
    with pytest.raises(ValueError, match=r"shape 'square' is both .*Square and .*Shape; rename one"):
        shapes(square=Square)("square")(Shape)


def test_an_entry_point_is_found_by_its_name(package, monkeypatch):
    points = [EntryPoint("round", f"{package}:Circle", registry.GROUP), EntryPoint("gone", "no_such:X", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: [p for p in points if p.group == group])
    kind = shapes(square=Square)
    assert kind.find("round").size == 3
    assert kind.knows("round")
    with pytest.raises(UnknownMethodError, match="choose one of gone, round, square"):
        kind.find("oval")
    with pytest.raises(UnknownMethodError, match=r"'gone' of no_such.*cannot be imported"):
        kind.find("gone")


def test_a_name_of_ours_and_of_another_package_is_refused_and_the_other_stays_within_reach(package, monkeypatch):
    points = [EntryPoint("square", f"{package}:Circle", registry.GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    kind = shapes(square=Square)
    with pytest.raises(UnknownMethodError, match="write 'far_away:Circle'"):
        kind.find("square")
    assert kind.find("far_away:Circle").size == 3


def test_what_is_made_must_be_of_the_kind():
    kind = shapes(square=Square)
    assert isinstance(kind.made("square", Square()), Square)
    with pytest.raises(ValueError, match="'x' makes a int, which is no shape; give one that makes a Shape"):
        kind.made("x", 3)


def test_the_order_of_the_methods_is_that_of_their_modules_whatever_was_imported_first():
    code = "from entrostat.control.part import weighting; print(*weighting)"
    first = ("", "import entrostat.control.stare;", "import entrostat.control.aepo, entrostat.control.repo_r;")
    printed = {subprocess.check_output([sys.executable, "-c", each + code], text=True) for each in first}
    assert len(printed) == 1
    assert "stare" in printed.pop().split()
