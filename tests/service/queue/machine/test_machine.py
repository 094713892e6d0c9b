"""Queue and journal under everything that the machine of this folder does to them."""


def test_told_is_kept_and_memory_is_what_the_journal_says(run):
    assert run(100)
