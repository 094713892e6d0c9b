"""The pip settings that `make image` gives to a build, and the paths that it mounts."""

from pathlib import Path

import pytest

from tools.image.pip_config import pip_options, pip_settings


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of pip with one setting of each kind; returns its folder."""
    for name in ("wheels", "index/simple", "work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ca.pem").write_text("")
    (tmp_path / "pip.conf").write_text(
        f"[global]\ncert = {tmp_path}/ca.pem\ntimeout = 60\n"
        f"find-links = {tmp_path}/wheels https://example.org/wheels\nextra-index-url = file://{tmp_path}/index/simple\n"
    )
    for name in ("PIP_CERT", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_DEFAULT_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def test_local_paths_are_written_as_the_build_sees_them(pip: Path) -> None:
    options = pip_options(pip / "work")

    volumes = dict(word.rsplit(":", 2)[:2] for word in options[1::2])
    text = (pip / "work" / "pip.conf").read_text()
    assert f"cert = {volumes[f'{pip}/ca.pem']}\n" in text
    assert f"find-links = {volumes[f'{pip}/wheels']} https://example.org/wheels\n" in text
    assert f"extra-index-url = file://{volumes[f'{pip}/index']}/simple\n" in text
    assert str(pip) not in text


def test_volumes_are_read_only_and_below_one_folder(pip: Path) -> None:
    volumes = pip_options(pip / "work")[1::2]

    assert volumes[0] == f"{pip}/work:/mnt:ro"
    assert all(word.endswith(":ro") for word in volumes)
    assert {word.rsplit(":", 2)[1].split("/")[1] for word in volumes} == {"mnt", "etc"}


def test_the_environment_wins_over_the_file(pip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TIMEOUT", "7")

    assert pip_settings()["timeout"] == "7"
