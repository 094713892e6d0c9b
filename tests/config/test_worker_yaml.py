"""worker.yaml: its keys, and its error messages."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from runpod_worker.core.errors import SettingsError
from runpod_worker.workerfile import Case, Model, Timeouts, WorkerFile, load_beside
from runpod_worker.workerfile.reader import read
from runpod_worker.workerfile.schema import as_text

ROOT = Path(__file__).parents[2]

EVERYTHING = """
endpoint: sdxl
handler: src/handler.py
python: 3.10
requirements: [torch>=2.6, pillow]
system: [ffmpeg, libgl1]
base: registry.example/base:1
models:
  - id: org/name
    revision: v1
    files: ["*.safetensors"]
    bake: true
device: cuda
concurrency: 4
prefetch: 1
ahead: 2
timeouts:
  load: 60
  grace: 10.5
spool: {dir: /tmp/spool, bytes: 1000}
env:
  DEBUG: 1
  SAFE: yes
tests:
  - name: capital
    input: {country: France}
    output: Paris
    timeout: 5
  - input: null
"""


def worker_yaml(folder: Path, text: str) -> Path:
    path = folder / "worker.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_key_is_read(tmp_path: Path) -> None:
    file = read(worker_yaml(tmp_path, EVERYTHING))

    assert file.endpoint == "sdxl"
    assert file.requirements == ("torch>=2.6", "pillow")
    assert file.models == (Model(id="org/name", revision="v1", files=("*.safetensors",), bake=True),)
    assert file.timeouts == Timeouts(load=60.0, grace=10.5)
    assert file.tests[0] == Case(name="capital", input={"country": "France"}, output="Paris", timeout=5)
    assert file.tests[1] == Case(input=None)


def test_a_version_is_text_even_where_yaml_sees_a_number(tmp_path: Path) -> None:
    assert read(worker_yaml(tmp_path, "python: 3.10")).python == "3.10"


def test_environment_variables_are_text_as_they_are_written(tmp_path: Path) -> None:
    assert read(worker_yaml(tmp_path, "env: {A: 1, B: yes, C: 007, D: ''}")).env == {
        "A": "1",
        "B": "yes",
        "C": "007",
        "D": "",
    }


def test_a_date_in_a_tests_input_stays_text(tmp_path: Path) -> None:
    assert read(worker_yaml(tmp_path, "tests: [{input: 2026-11-23}]")).tests[0].input == "2026-11-23"


@pytest.mark.parametrize("text", ["", "# nothing\n", "tests:\nenv:\ntimeouts:\n"])
def test_a_file_that_says_nothing_is_the_same_as_none(tmp_path: Path, text: str) -> None:
    assert read(worker_yaml(tmp_path, text)) == WorkerFile()


def test_a_folder_without_the_file_has_an_empty_one(tmp_path: Path) -> None:
    assert load_beside(tmp_path / "handler.py") == WorkerFile()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("concurency: 3", ":1: concurency: unknown key; did you mean concurrency?"),
        ("\nmodels:\n  - id: x\n    bak: 1", ":4: models[0].bak: unknown key; did you mean bake?"),
        ("spool: {zzz: 1}", ":1: spool.zzz: unknown key; expected one of: dir, bytes"),
        ("concurrency: 0", ":1: concurrency: expected a whole number >= 1, got 0 (int)"),
        ("timeouts:\n  load: fast", ":2: timeouts.load: expected a number, got 'fast' (str)"),
        ("timeouts: 3", ":1: timeouts: expected keys with values, got 3 (int)"),
        ("models:\n- bake: true", ":2: models[0]: lacks the key id"),
        ("tests:\n- name: x", ":2: tests[0]: lacks the key input"),
        ("requirements: {a: 1}", ":1: requirements: expected text or a list"),
        ("env:\n  A:", ":2: env.A: expected text, got nothing"),
        ("env:\n  a-b: 1", ":2: env.a-b: expected the name of an environment variable"),
        ("handler: a\nhandler: b", ":2: handler: appears for the second time"),
        ("- 1", ":1: the file: expected keys with values"),
        ("endpoint: [", ":1:12: not YAML: expected the node content"),
        ("tests: [{input: !!python/object:os.system x}]", ":1:17: not YAML: could not determine a constructor"),
        ("\0", ": not YAML: unacceptable character"),
    ],
)
def test_an_error_says_file_line_field_and_what_was_expected(tmp_path: Path, text: str, message: str) -> None:
    path = worker_yaml(tmp_path, text)

    with pytest.raises(SettingsError) as caught:
        read(path)

    assert str(caught.value).startswith(f"{path}{message}")


def test_a_file_that_is_not_text_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "worker.yaml"
    path.write_bytes(b"\xff\xfe\x00")

    with pytest.raises(SettingsError, match="expected UTF-8"):
        read(path)


KEYS = st.sampled_from(WorkerFile.__struct_fields__)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
    max_leaves=12,
)


@given(value=json_values)
@given_settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_yaml_is_read_or_refused_with_its_place(tmp_path: Path, value: Any) -> None:
    path = worker_yaml(tmp_path, yaml.safe_dump(value))

    try:
        answer = str(read(path))
    except SettingsError as error:
        answer = str(error)

    assert answer.startswith(("WorkerFile(", f"{path}:"))


def test_the_committed_schema_is_the_codes() -> None:
    committed = (ROOT / "docs" / "worker.schema.json").read_text(encoding="utf-8")

    assert committed == as_text(), "run: make docs"
