"""Which builder builds, with which arguments, and the errors when none works."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from runpod_worker.build import Layer, find_builder, layer_table
from runpod_worker.core.errors import BuildError

Install = Callable[[str, str], Path]

DEAD = "echo 'Cannot connect to the daemon' >&2; exit 1"


def test_docker_is_the_first_choice(install: Install) -> None:
    for name in ("docker", "podman", "buildah"):
        install(name, "exit 0")

    assert find_builder().name == "docker"


def test_a_builder_that_is_installed_but_does_not_work_is_skipped(install: Install) -> None:
    install("docker", DEAD)
    install("buildah", "exit 0")

    assert find_builder().name == "buildah"


def test_buildah_without_a_container_runtime_changes_root_instead(install: Install, folder: Path) -> None:
    calls = install("buildah", "exit 0")
    find_builder().build(folder, folder / "Dockerfile", "hello")
    install("crun", "exit 0")
    find_builder().build(folder, folder / "Dockerfile", "hello")

    alone, with_runtime = [line for line in calls.read_text().splitlines() if " build " in line]
    assert "--isolation chroot" in alone
    assert "--isolation" not in with_runtime


def test_without_any_builder_the_error_says_what_to_install(install: Install) -> None:
    with pytest.raises(BuildError, match=r"install Docker .* `apt install podman` or `apt install buildah`"):
        find_builder()


def test_when_the_only_builder_does_not_work_the_error_quotes_it(install: Install) -> None:
    install("docker", DEAD)

    with pytest.raises(BuildError, match="docker is installed but does not work: Cannot connect to the daemon"):
        find_builder()


def test_a_named_builder_is_not_replaced_by_another(install: Install) -> None:
    install("buildah", "exit 0")

    with pytest.raises(BuildError, match="podman is not installed"):
        find_builder("podman")


def test_an_unknown_builder_is_refused_with_the_known_names() -> None:
    with pytest.raises(BuildError, match="unknown builder kaniko; expected one of docker, podman, buildah"):
        find_builder("kaniko")


def test_the_build_gets_file_tag_and_options(install: Install, folder: Path) -> None:
    calls = install("podman", "exit 0")

    find_builder().build(folder, folder / "Dockerfile", "hello:1", ["--build-arg", "A=1"])

    expected = f"podman build --format docker -f {folder}/Dockerfile -t hello:1 --build-arg A=1 {folder}"
    assert calls.read_text().splitlines()[-1] == expected


def test_a_failed_build_is_an_error_with_its_status(install: Install, folder: Path) -> None:
    install("docker", '[ "$1" = info ] || exit 7')

    with pytest.raises(BuildError, match=r"docker could not build hello \(exit status 7\)"):
        find_builder().build(folder, folder / "Dockerfile", "hello")


def test_an_image_is_known_or_not(install: Install) -> None:
    install("docker", 'case "$*" in *missing*) exit 1;; esac')

    assert find_builder().has("there")
    assert not find_builder().has("missing")


def test_dockers_history_is_read_from_the_bottom_up(install: Install) -> None:
    history = (
        '0\\tCMD ["a"]\\n1048576\\tCOPY . . # buildkit\\n2097152\\t/bin/sh -c #(nop) ADD file:12345678abcdef in / \\n'
    )
    install("docker", f"[ $1 = info ] || printf '{history}'")

    assert find_builder().layers("x") == [
        Layer(2 << 20, "ADD file:12345678 in /"),
        Layer(1 << 20, "COPY . ."),
        Layer(0, 'CMD ["a"]'),
    ]


@pytest.mark.parametrize(
    ("printed", "size"), [("0", 0), ("0 B", 0), ("3.58 kB", 3580), ("1.5MB", 1_500_000), ("2 GB", 2_000_000_000)]
)
def test_podmans_history_has_sizes_with_units(install: Install, printed: str, size: int) -> None:
    install("podman", f"[ $1 = info ] || printf '{printed}\\tCOPY . .\\n'")

    assert find_builder().layers("x") == [Layer(size, "COPY . .")]


def test_buildahs_sizes_come_from_its_storage(install: Install, tmp_path: Path) -> None:
    steps = [
        {"created_by": "/bin/sh"},
        {"created_by": "ENV A=1", "empty_layer": True},
        {"created_by": "|1 A=1 /bin/sh -c make"},
    ]
    image = {"OCIv1": {"rootfs": {"diff_ids": ["sha256:a", "sha256:b"]}, "history": steps}}
    info = {"store": {"GraphRoot": str(tmp_path), "GraphDriverName": "vfs"}}
    (tmp_path / "vfs-layers").mkdir()
    sizes = [{"diff-digest": "sha256:b", "diff-size": 7}, {"diff-digest": "sha256:a", "diff-size": 5}]
    (tmp_path / "vfs-layers" / "layers.json").write_text(json.dumps(sizes))
    (tmp_path / "image.json").write_text(json.dumps(image))
    (tmp_path / "info.json").write_text(json.dumps(info))
    install(
        "buildah",
        f'case $1 in inspect) F=image;; *) F=info;; esac\nwhile read -r L; do echo "$L"; done < {tmp_path}/$F.json\n'
        f'read -r L < {tmp_path}/$F.json; echo "$L"',
    )

    assert find_builder().layers("x") == [Layer(5, "/bin/sh"), Layer(0, "ENV A=1"), Layer(7, "RUN make")]


def test_the_table_omits_empty_layers_and_adds_up() -> None:
    layers = [Layer(300 << 20, "FROM"), Layer(0, "ENV"), Layer(1 << 30, "RUN pip"), Layer(2048, "COPY")]

    assert layer_table(layers).splitlines() == [
        " 300.0 MiB  FROM",
        "  1.00 GiB  RUN pip",
        "   2.0 KiB  COPY",
        "  1.29 GiB  in total",
    ]
