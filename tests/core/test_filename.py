"""Names of output files."""

from runpod_worker.core.filename import describe_file_name


def test_an_error_shows_only_the_beginning_of_a_refused_name() -> None:
    assert describe_file_name("a/b.png") == "'a/b.png'"
    assert describe_file_name(b"\xff" * 200_000).endswith("(bytes)")
    assert len(describe_file_name(b"\xff" * 200_000)) < 500
    assert len(describe_file_name("x" * 200_000)) < 200
