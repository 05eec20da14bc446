"""Records behave as frozen dataclasses with slots."""

import copy
import dataclasses
import inspect
import pickle
import pydoc
from typing import Any, ClassVar

import numpy as np
import pytest

from dcformat.graph import Linear
from dcformat.records import fresh, record, replace


@record
class Base:
    """A base class."""

    first: int
    kind: ClassVar[str] = "base"

    def doubled(self):
        return 2 * self.first


@record
class Derived(Base):
    """A derived class with defaults."""

    second: str = "two"
    third: list[int] = fresh(default_factory=list)
    kind: ClassVar[str] = "derived"


@record
class Default:
    """A base class with a default."""

    first: int = 1


@record
class Late(Default):
    """A class with a field without a default after a field with one."""

    second: str  # type: ignore[misc]  # mypy reads records as dataclasses, which have no keyword-only fields of this kind


@record(eq=False)
class Identity:
    """Compared by identity."""

    value: object


@dataclasses.dataclass(frozen=True, slots=True)
class Model:
    """The dataclass that records must behave like."""

    first: int
    second: str = "two"
    third: list[int] = dataclasses.field(default_factory=list)


def test_fields_come_by_position_name_and_default():
    assert repr(Derived(1)) == repr(Model(1)).replace("Model", "Derived")
    assert repr(Derived(1, third=[3], second="x")) == "Derived(first=1, second='x', third=[3])"
    assert (Derived.kind, Base.kind, Derived(4).doubled()) == ("derived", "base", 8)
    assert Derived(1).third is not Derived(1).third


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3, 4), {}), ((1,), {"first": 2}), ((1,), {"other": 2}), ((), {"second": "x"})],
)
def test_wrong_fields_are_refused(args, kwargs):
    for cls in (Derived, Model):
        with pytest.raises(TypeError):
            cls(*args, **kwargs)


def test_records_do_not_change_and_have_no_other_attributes():
    for one in (Derived(1), Identity(2)):
        for act in (lambda o: setattr(o, "first", 2), lambda o: setattr(o, "new", 2), lambda o: delattr(o, "first")):
            with pytest.raises(AttributeError, match="cannot change"):
                act(one)
        assert not hasattr(one, "__dict__")


def test_equality_and_hash():
    assert Base(1) == Base(1)
    assert Base(1) != Base(2)
    other: object = Model(1)
    assert Base(1) != other
    assert hash(Base(1)) == hash(Base(1))
    assert Derived(1) == Derived(1, "two", [])
    assert Identity([1]) != Identity([1])
    assert len({Identity([1]), Identity([1])}) == 2
    with pytest.raises(TypeError):
        hash(Derived(1))  # a list in it


def test_copies():
    ones: tuple[Any, ...] = (Base(1), Derived(1, "x", [1, 2]))
    for one in ones:
        assert pickle.loads(pickle.dumps(one)) == copy.deepcopy(one) == copy.copy(one) == one  # noqa: S301
        assert replace(one, first=3).first == one.__replace__(first=3).first == 3
    assert replace(Derived(1, "x", [1]), first=2) == Derived(2, "x", [1])
    with pytest.raises(TypeError):
        replace(Base(1), other=2)


def test_signatures():
    assert str(inspect.signature(Base)) == "(first: int) -> None"
    assert str(inspect.signature(Derived)) == ("(first: int, second: str = 'two', third: list[int] = Ellipsis) -> None")
    assert str(inspect.signature(Late)) == "(first: int = 1, *, second: str) -> None"
    for cls in (Base, Derived, Late):
        bound = inspect.signature(cls).bind(first=1, second="x") if cls is not Base else inspect.signature(cls).bind(1)
        assert cls(*bound.args, **bound.kwargs).first == 1
    assert str(inspect.signature(Linear)) == (
        "(inputs: 'tuple[Operand, ...]', weight: 'str', bias: 'str | None' = None) -> None"
    )
    assert "(inputs: 'tuple[Operand, ...]', weight: 'str'" in pydoc.plain(pydoc.render_doc(Linear))


def test_arrays_are_not_written_out():
    assert repr(Identity(np.zeros((300, 784), np.float32))) == "Identity(value=<float32 300x784>)"
    assert repr(Identity(np.float64(1.5))) == "Identity(value=<float64 scalar>)"


def test_matching_by_position():
    match Derived(1, "x"):
        case Derived(first, second):
            assert (first, second) == (1, "x")
