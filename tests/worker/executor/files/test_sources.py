import pytest

from runpod_worker.worker.executor.files import sources


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://host/songs/My%20song.mp3?key=1#top", "My song.mp3"),
        ("https://host/a/..%2f..%2fetc%2fpasswd", "passwd"),
        ("https://host/..", "file"),
        ("https://host/.bashrc", "bashrc"),
        ("https://host/a%00b;c.png", "a_b_c.png"),
        ("HTTPS://host", "file"),
        ("https://host/ü.wav", "ü.wav"),
        ("http://[1/a.wav", "file"),
        ("data:image/png;base64,AAAA", "file.png"),
        ("data:,hello", "file"),
        ("AAAA", "file"),
    ],
)
def test_the_name_is_the_one_the_url_ends_with(source, name):
    assert sources.file_name(source) == name


def test_long_names_keep_their_suffix_and_fit():
    name = sources.file_name("https://host/" + "ü" * 500 + ".jpeg")

    assert name.endswith("ü.jpeg")
    assert len(name.encode()) <= 255


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://user:pass@host/a.wav?signature=1#x", "https://host/a.wav"),
        ("data:image/png;base64,AAAA", "a data URL (image/png)"),
        ("data:,hello", "a data URL (text/plain)"),
        ("AAAA", "base64"),
    ],
)
def test_what_is_shown_holds_no_secret(source, shown):
    assert sources.describe(source) == shown


@pytest.mark.parametrize(
    ("source", "content"),
    [
        ("data:image/png;base64,AAEC", b"\0\1\2"),
        ("data:text/plain;charset=utf-8;base64,aGk%3D", b"hi"),
        ("data:,a%20b", b"a b"),
        ("aGk=", b"hi"),
    ],
)
def test_data_urls_and_base64_are_decoded(source, content):
    assert sources.decode(source) == content


@pytest.mark.parametrize("source", ["la la la!", "ftp://host/a", "data:;base64,?", "ü"])
def test_other_text_is_refused(source):
    with pytest.raises(ValueError, match="expected a URL, a data URL or base64, got other text"):
        sources.decode(source)
