"""Recipients as people paste them and keep them in files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.web.console.recipients import BadFile, Recipient, from_csv, parse

ANA, PEDRO = Recipient("ana@example.org", "Ana"), Recipient("pedro@example.org")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", []),
        (" \n ;, \t\n", []),
        ("pedro@example.org", [PEDRO]),
        ("pedro@example.org,ana@example.org", [PEDRO, Recipient("ana@example.org")]),
        ("pedro@example.org ana@example.org", [PEDRO, Recipient("ana@example.org")]),
        ("Ana <ana@example.org>; pedro@example.org;", [ANA, PEDRO]),
        ("Ana <ana@example.org>\r\n\r\npedro@example.org\r\n", [ANA, PEDRO]),
        ("Ana <ana@example.org>, <pedro@example.org>", [ANA, PEDRO]),
        ("Ana ana@example.org", [ANA]),
        ("Ana\tana@example.org\npedro@example.org\t", [ANA, PEDRO]),
        ("ana@example.org\tAna", [ANA]),
        ("'Ana' <ana@example.org>, 'pedro@example.org'", [ANA, PEDRO]),
        ("Ana <mailto:ana@example.org>", [ANA]),
        ('"Roe, Ana" <ana@example.org>, pedro@example.org',
         [Recipient("ana@example.org", "Roe, Ana"), PEDRO]),
        ("Roe, Ana <ana@example.org>; pedro@example.org",
         [Recipient("ana@example.org", "Roe, Ana"), PEDRO]),
        ('"Ana \\"A\\" Roe" <ana@example.org>', [Recipient("ana@example.org", 'Ana "A" Roe')]),
        ('Ana "A" Roe <ana@example.org>', [Recipient("ana@example.org", 'Ana "A" Roe')]),
        ("María José <mj@example.org>", [Recipient("mj@example.org", "María José")]),
        ('"a,b"@example.org', [Recipient('"a,b"@example.org')]),
        ("ana@example.org <ana@example.org>", [Recipient("ana@example.org", "ana@example.org")]),
        ('"b@example.org" <ana@example.org>', [Recipient("ana@example.org", "b@example.org")]),
        ("Ana @ Work <ana@example.org>", [Recipient("ana@example.org", "Ana @ Work")]),
    ],
)  # fmt: skip
def test_what_people_paste(text: str, found: list[Recipient]) -> None:
    assert parse(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("pedro, ana@example.org", ["pedro", "ana@example.org"]),
        ("Ana <ana@example.org", ["<ana@example.org"]),
        ("Ana Roe", ["Ana Roe"]),
        ("a@@example.org", ["a@@example.org"]),
        ("Ana <>", [""]),
        ("b@example.org Ana <ana@example.org>", ["b@example.org Ana ana@example.org"]),
        ("Ana <ana@example.org> Bob <b@example.org>", ["Ana ana@example.org Bob b@example.org"]),
    ],
)
def test_what_is_no_address_is_kept_to_be_told(text: str, found: list[str]) -> None:
    """Nobody is left out without a word: the check of the API says what is wrong with it."""
    assert [recipient.email for recipient in parse(text)] == found


def test_two_people_without_a_comma_stay_wrong_when_a_file_is_added() -> None:
    [read] = parse("b@example.org Ana <ana@example.org>")
    assert parse(str(read)) == [read]


def test_each_address_is_written_to_once() -> None:
    assert parse("Ana <ana@example.org>, ANA@example.org; pedro@example.org") == [ANA, PEDRO]


_NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1, max_size=20
).map(lambda text: " ".join(text.split()))


@given(st.builds(Recipient, st.emails(), st.one_of(st.none(), _NAMES.filter(bool))))
def test_what_is_written_is_read_again(recipient: Recipient) -> None:
    """After a file is added the list stands in the form, and is sent from there."""
    assert parse(str(recipient)) == [recipient]


@given(st.text(max_size=200))
def test_no_text_is_too_strange(text: str) -> None:
    for recipient in parse(text):
        assert recipient.email == recipient.email.strip()


@pytest.mark.parametrize(
    "data",
    [
        b"email,name\nana@example.org,Ana\npedro@example.org,\n",
        b"name;email\r\nAna;ana@example.org\r\n;pedro@example.org\r\n",
        b"\xef\xbb\xbfName\tE-Mail\nAna\tana@example.org\n\tpedro@example.org\n",
        b'id,Email address,First name\n1,ana@example.org,Ana\n2,"pedro@example.org",\n\n',
        b"ana@example.org,Ana\npedro@example.org\n",
        b"Ana,ana@example.org\n,pedro@example.org\n",
        "email,name\nana@example.org,Ana\npedro@example.org,\n".encode("utf-16"),
    ],
)
def test_files(data: bytes) -> None:
    assert from_csv(data) == [ANA, PEDRO]


def test_a_file_of_windows() -> None:
    assert from_csv("email;name\nmj@example.org;María\n".encode("cp1252")) == [
        Recipient("mj@example.org", "María")
    ]


def test_first_and_last_names_are_one_name() -> None:
    data = b"first name,last name,email\nAna,Roe,ana@example.org\n"
    assert from_csv(data) == [Recipient("ana@example.org", "Ana Roe")]


def test_a_bad_address_in_a_file_is_kept_to_be_told() -> None:
    assert from_csv(b"email\nana@example.org\nnobody\n")[1] == Recipient("nobody")


@pytest.mark.parametrize(
    "data", [b"", b"\n\n", b"one,two\nthree,four\n", b"\x89PNG\r\n\x1a\n\x00"]
)
def test_a_file_without_addresses_is_refused(data: bytes) -> None:
    with pytest.raises(BadFile, match="column email"):
        from_csv(data)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"email,name\n", "nobody below it"),
        (b"email,name\nana@example.org,Ana\n\n,Pedro\n", "Line 4 has no address"),
        (b'email,name\nana@example.org,"Ana\npedro@example.org,P\n', "no CSV from line 2 on"),
        (b'email,name\n"a\nb"@example.org,\n,Pedro\n', "no CSV from line 2 on"),
    ],
)
def test_what_cannot_be_read_of_a_file_is_said_with_its_line(data: bytes, said: str) -> None:
    with pytest.raises(BadFile, match=said):
        from_csv(data)


def test_a_cell_may_have_lines() -> None:
    data = b'email,name\r\nana@example.org,"Ana\r\nRoe"\r\nb@example.org,\r\n'
    assert from_csv(data) == [Recipient("ana@example.org", "Ana Roe"), Recipient("b@example.org")]
