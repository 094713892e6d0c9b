"""Every setting of every class refuses what it does not accept, from every source, in one line that names it."""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any, NamedTuple, get_type_hints

import pytest

from runpod_worker.cli.config import groups
from runpod_worker.config import load
from runpod_worker.config.bounds import Bounds, bare_type, is_url
from runpod_worker.core.errors import SettingsError
from runpod_worker.service.settings import ServiceSettings, WebhookSettings

CLASSES = (*groups().values(), ServiceSettings, WebhookSettings)


class Wrong(NamedTuple):
    """A value that a setting must refuse."""

    cls: type[Any]
    name: str
    about: Any
    value: Any


def wrong_values(kind: Any, bounds: Bounds) -> Iterator[Any]:
    if kind in (int, float):
        yield from ("soon", "1 2", "0x10", "nan", "inf", "-inf", "1e999", "\x00")
        if bounds.minimum is not None:
            yield bounds.minimum - 1
        if bounds.maximum is not None:
            yield bounds.maximum * 2 + 1
    elif kind is bool:
        yield from ("maybe", "2", "-1", "truee")
    elif bounds.url or bounds.pattern:
        yield from ("\x00", "not a value", "http://", "\udc80 ", "a\nb")
    if bounds.url:
        yield from ("http:///v2/e", "ftp://h/v2/e", "http://h:99999/v2/e", "http://[::/v2/e", "h:80/v2/e")


def all_wrong() -> Iterator[Wrong]:
    for cls in CLASSES:
        types = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            about = field.metadata
            for value in wrong_values(bare_type(types[field.name]), about.get("bounds") or Bounds()):
                yield Wrong(cls, field.name, about, value)


WRONG = list(all_wrong())


def nested(key: str, value: object) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def refusals(case: Wrong) -> Iterator[tuple[str, str]]:
    """The error from each source that can set the value, with the words that it must contain."""
    old, variables = case.about.get("old"), [*case.about.get("env", ())]
    variables += [old.env] if old and old.env else []
    sources: list[tuple[str, dict[str, Any]]] = [
        (case.about.get("cli") or case.name, {"given": {case.name: case.value}, "env": {}}),
        (case.name, {"given": {case.name: case.value}, "env": {}, "given_from": "code"}),
    ]
    scale = case.about.get("scale", 1)
    text = str(case.value / scale if isinstance(case.value, int | float) else case.value)
    sources += [(variable, {"env": {variable: text}}) for variable in variables]
    if case.about.get("file"):
        sources.append((case.about["file"], {"env": {}, "file": nested(case.about["file"], case.value)}))
    for words, source in sources:
        with pytest.raises(SettingsError) as refused:
            load(case.cls, **source)
        yield words, str(refused.value)


@pytest.mark.parametrize("case", WRONG, ids=[f"{case.name}={case.value!r}" for case in WRONG])
def test_a_wrong_value_is_refused_from_every_source(case: Wrong) -> None:
    for words, error in refusals(case):
        assert error.removeprefix("worker.yaml ").startswith(words)
        assert ": expected " in error
        assert ", got " in error
        assert "\n" not in error
        assert error.isprintable()


def test_every_number_has_a_least_value_and_every_time_and_size_a_largest() -> None:
    unbounded = []
    for cls in CLASSES:
        types = get_type_hints(cls)
        for field in dataclasses.fields(cls):
            bounds, kind = field.metadata.get("bounds"), bare_type(types[field.name])
            if kind in (int, float) and field.metadata.get("env"):
                largest = field.name.endswith(("_s", "_ms", "bytes", "port"))
                if bounds.minimum is None or (largest and bounds.maximum is None):
                    unbounded.append(field.name)

    assert not unbounded


def test_the_defaults_are_within_their_bounds() -> None:
    for cls in CLASSES:
        made = load(cls, env={})
        for field in dataclasses.fields(cls):
            bounds, value = field.metadata.get("bounds"), getattr(made, field.name)
            assert bounds is None or value is None or bounds.accepts(value), field.name


def test_numbers_are_described_in_the_unit_of_their_source() -> None:
    with pytest.raises(
        SettingsError, match=r"^RUNPOD_PING_INTERVAL: expected a number from 1 to 315360000000, got '0'$"
    ):
        load(groups()["worker"], env={"RUNPOD_PING_INTERVAL": "0"})


@pytest.mark.parametrize("url", ["http://h", "https://h:1/v2/e?x=1", "http://[::1]:80/v2", "http://u:p@h/"])
def test_urls_with_a_host_are_urls(url: str) -> None:
    assert is_url(url)


def test_no_number_is_not_finite() -> None:
    assert not Bounds().accepts(math.nan)
    assert not Bounds(minimum=0).accepts(math.inf)
    assert Bounds().accepts(0.5)
    assert Bounds().accepts(True)
