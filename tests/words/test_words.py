"""No name contains a word that docs/glossary.md bans."""

import pytest

from tools.words import glossary, names

WORDS = glossary.load()


def banned(source: str, path: str = "runpod_worker/sample.py") -> list[str]:
    return [finding.name.text for finding in names.findings(source, path, WORDS)]


def test_no_name_contains_a_banned_word():
    assert [str(finding) for finding in names.all_findings(WORDS)] == []


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("class HostageJob: ...", "HostageJob"),
        ("def bury_executor(): ...", "bury_executor"),
        ("async def give_back(job): ...", "give_back"),
        ("def f(*, the_desk): ...", "the_desk"),
        ("def f(**told): ...", "told"),
        ("said = 1", "said"),
        ("self._bank = 1", "_bank"),
        ("self.found: int = 1", "found"),
        ("[one for one in jobs]", "one"),
        ("(rest := 1)", "rest"),
        ("with a as news: ...", "news"),
        ("try: ...\nexcept E as heard: ...", "heard"),
        ("match a:\n  case {'k': asked}: ...", "asked"),
        ("match a:\n  case [*rest]: ...", "rest"),
        ("import a as bells", "bells"),
        ("log.info('job.hostage')", "job.hostage"),
        ("log.info('job.released', extra={'last_words': 1})", "last_words"),
        ("setting('RUNPOD_WORKER_GATE')", "RUNPOD_WORKER_" + "GATE"),
        ("setting(file='limits.bench')", "limits.bench"),
        ("Option('-b/--bench-size')", "--" + "bench-size"),
        ("def test_no_job_is_held_hostage(): ...", "test_no_job_is_held_hostage"),
    ],
)
def test_a_planted_word_is_found(source: str, name: str):
    assert banned(source) == [name]


def test_a_planted_module_is_found():
    assert banned("", "runpod_worker/worker/agent/gate.py") == ["gate"]
    assert banned("", "runpod_worker/desk/agent.py") == ["desk"]


@pytest.mark.parametrize(
    "source",
    [
        "class JobNotFound: ...",
        "benchmark = 1",
        "def find_one_job(): ...",
        "class FoundJob: ...",
        "def negate(): ...",
        "def restart(): ...",
        "def give(back): ...",
        "def f():\n    'The last words of a hostage.'",
    ],
)
def test_other_words_pass(source: str):
    assert banned(source) == []


def test_wire_names_are_exempt():
    words = glossary.parse(
        "\n## Banned anywhere\n| banned |\n| gate |\nAs a whole name\n| told |\n\n## Wire names\n`openGate`\n"
    )

    assert words.banned_in("openGate") is None
    assert words.banned_in("open_gate") == "gate"


def test_a_page_without_its_tables_is_refused():
    with pytest.raises(ValueError, match="no banned words"):
        glossary.parse("# Glossary\n")
