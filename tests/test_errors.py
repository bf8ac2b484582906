from __future__ import annotations

import inspect
import pickle

import pytest

from wasmlab import errors

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, errors.WasmlabError)
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_pickles_with_its_context(cls: type[errors.WasmlabError]) -> None:
    error = cls("tried and failed", remedy="do this", digest="sha256:00")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert copy.digest == "sha256:00"
    assert copy.remedy == "do this"


def test_the_docstring_draws_the_whole_tree() -> None:
    drawn = errors.__doc__ or ""
    assert [cls.__name__ for cls in CLASSES if cls.__name__ not in drawn] == []


def test_the_message_ends_in_the_remedy() -> None:
    assert str(errors.WasmlabError("it broke", remedy="mend it")) == "it broke\n  try: mend it"


def test_a_process_error_shows_exit_code_and_log() -> None:
    text = str(errors.ProcessError("etcd ended", argv=["etcd"], returncode=3, log_tail="one\ntwo"))
    assert "exit code 3" in text
    assert "    two" in text


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.InvalidReference, ValueError),
        (errors.InvalidModule, ValueError),
        (errors.RegistryUnavailable, ConnectionError),
        (errors.RegistryTimeout, TimeoutError),
        (errors.NotReady, TimeoutError),
    ],
)
def test_errors_are_also_the_builtin_that_callers_expect(
    cls: type[errors.WasmlabError], builtin: type[Exception]
) -> None:
    assert issubclass(cls, builtin)


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        _ = errors.WasmlabError("x").nonsense
