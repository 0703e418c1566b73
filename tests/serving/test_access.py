"""Who may use the server: loopback without a token, others with one, pages of other origins never."""

import pytest
from served_models import load_small, served

from autoseg.errors import UsageError
from autoseg.serving.access import Access, choose_token, is_loopback, join_address
from autoseg.serving.limits import Refusal

TOKEN = "a-token-of-24-characters"  # noqa: S105 - of a test


@pytest.mark.parametrize(
    ("host", "token", "content", "part"),
    [
        ("0.0.0.0", None, None, "other machines reach 0.0.0.0"),  # noqa: S104 - nothing listens
        ("workstation", None, None, "other machines reach workstation"),
        ("127.0.0.1", "short", None, "16 or more letters"),
        ("127.0.0.1", "with a space in its middle", None, "without a space"),
        ("127.0.0.1", "µ" * 20, None, "of ASCII"),
        ("127.0.0.1", TOKEN, TOKEN, "stated twice"),
        ("127.0.0.1", None, "", "16 or more letters"),
    ],
)
def test_tokens_that_are_none(tmp_path, host, token, content, part):
    """One line; the token is not in it."""
    file = None if content is None else tmp_path / "token"
    if file is not None:
        file.write_text(content)
    with pytest.raises(UsageError) as refused:
        choose_token(host, token, file)
    assert part in str(refused.value)
    assert TOKEN not in str(refused.value)


def test_tokens(tmp_path):
    """Loopback needs none; a file is read without its line feed; a file that cannot be read is named."""
    assert choose_token("127.0.0.1", None, None) is None
    assert choose_token("::1", None, None) is None
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert choose_token("0.0.0.0", None, tmp_path / "token") == TOKEN  # noqa: S104 - nothing listens
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
    for name in ("missing", "bytes"):
        with pytest.raises(UsageError, match=name):
            choose_token("127.0.0.1", None, tmp_path / name)
    assert [is_loopback(host) for host in ("127.9.9.9", "LOCALHOST", "::", "10.0.0.1")] == [True, True, False, False]
    assert join_address("::1", 80) == "[::1]:80"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8000"}, None),
        ({"host": "localhost:8000", "origin": "http://localhost:8000"}, None),
        ({"host": "[::1]:8000", "sec-fetch-site": "same-origin"}, None),
        ({}, 403),
        ({"host": "127.0.0.1"}, 403),
        ({"host": "rebound.example:8000"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "null"}, 403),
        ({"host": "127.0.0.1:8000", "origin": "http://127.0.0.1:9000"}, 403),
        ({"host": "127.0.0.1:8000", "sec-fetch-site": "cross-site"}, 403),
    ],
)
def test_pages_of_others_reach_nothing(headers, status):
    """Neither by a name that leads here, nor by a form."""
    access = Access(token=None, host="127.0.0.1", port=8000)
    if status is None:
        access.check("/segment", headers)
        return
    with pytest.raises(Refusal) as refused:
        access.check("/segment", headers)
    assert refused.value.status == status


def test_a_token_is_wanted(model, scan):
    """For the model and for scans, not for the empty page and the state; it is never printed."""
    with served(load_small(model), token=TOKEN) as (client, folder, lines):
        for path in ("/", "/page.js", "/page.css", "/health"):
            assert client.get(path).status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
            answer = client.get("/model", headers=headers)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            with scan.open("rb") as file:
                refused = client.post("/segment", headers=headers, files={"scan": file})
            assert refused.status_code == 401
        right = {"Authorization": f"bearer {TOKEN}"}
        assert client.get("/model", headers=right).status_code == 200
        with scan.open("rb") as file:
            assert client.post("/segment", headers=right, files={"scan": file}).status_code == 200
        assert not any(TOKEN in line for line in lines)
        assert [path.name for path in folder.iterdir()] == []


def test_answers_may_not_be_kept_or_embedded(client):
    """Each has the headers for that, refusals too; the page may load nothing from elsewhere."""
    for path in ("/", "/model", "/nothing"):
        headers = client.get(path).headers
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert "access-control-allow-origin" not in headers
