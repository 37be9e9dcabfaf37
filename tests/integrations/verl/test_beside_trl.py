"""A TRL beside verl is refused exactly where verl would fail on it; neither needs to be installed to tell."""

import sys
from types import ModuleType

import pytest

from entrostat.integrations import verl
from entrostat.integrations.verl import WANTED, ExclusiveExtrasError, refuse_trl_beside_verl
from entrostat.integrations.verl.loss import METHODS, fixed_loss


@pytest.fixture
def installed(monkeypatch):
    """Pretend that a TRL is installed, whose modules have the names given."""

    def pretend(**modules):
        monkeypatch.setattr(verl, "find_spec", lambda name: object() if modules else None)
        for home in ("trl", "trl.experimental", "trl.experimental.ppo"):
            module = ModuleType(home)
            module.__path__ = []
            for name in modules.get(home.replace(".", "_"), ()):
                setattr(module, name, object)
            monkeypatch.setitem(sys.modules, home, module)
        verl._broken.cache_clear()

    yield pretend
    verl._broken.cache_clear()


def test_without_trl_and_with_one_that_has_verls_class_nothing_is_refused(installed):
    for modules in ({}, {"trl": [WANTED]}, {"trl": [], "trl_experimental_ppo": [WANTED]}):
        installed(**modules)
        refuse_trl_beside_verl()


def test_a_trl_without_verls_class_is_refused_with_the_remedy_when_a_loss_is_called(installed):
    installed(trl=["GRPOTrainer"])
    for name, method in METHODS.items():
        with pytest.raises(ExclusiveExtrasError, match="pip uninstall trl"):
            fixed_loss(name, method)(None, None, None, None)
