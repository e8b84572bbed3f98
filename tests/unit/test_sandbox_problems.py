"""What becomes of an error that nobody foresaw."""

import pytest
from flask import Flask

from mailrelay.sandbox import problems


def test_an_unforeseen_error_tells_its_place_only(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the client nor the log sees the error's text, which may hold an address."""
    app = Flask(__name__)
    problems.install(app)

    @app.get("/")
    def fail() -> str:
        raise ValueError("private@example.org")

    response = app.test_client().get("/")
    assert response.status_code == 500
    assert response.content_type == "application/problem+json"
    output = capsys.readouterr()
    assert "sandbox: ValueError at " in output.err
    assert __file__ in output.err
    for text in (response.text, output.out, output.err):
        assert "private" not in text
        assert "Traceback" not in text
