"""curl: LIST, RETR, UIDL, TOP, DELE, and a delivery by SMTP."""

import subprocess

import pytest

pytestmark = pytest.mark.client
PROGRAM = "curl"
QUIETLY = ("--silent", "--show-error", "--max-time", "20")

FIRST = b"Subject: first\r\n\r\n.a line with a dot\r\n..and two\r\n.\r\nend\r\n"
SECOND = b"Subject: second\r\n\r\nsecond body\r\n"


def curl(program, account, path="", *options, code=0) -> bytes:
    user = f"{account.user}:{account.password}"
    url = f"pop3://127.0.0.1:{account.pop3}/{path}"
    done = subprocess.run([program, *QUIETLY, "--user", user, *options, url], capture_output=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def test_it_lists_reads_and_removes(program, account):
    uids = account.deliver(FIRST, SECOND)
    sizes = [int(line.split()[1]) for line in curl(program, account).splitlines()]
    assert len(sizes) == 2
    message = curl(program, account, "1")
    assert message.endswith(FIRST)
    assert len(message) == sizes[0]
    listed = curl(program, account, "", "--request", "UIDL").decode().split()
    assert listed == ["1", uids[0], "2", uids[1]]
    top = curl(program, account, "", "--request", "TOP 1 1")
    assert b"Subject: first\r\n\r\n.a line with a dot\r\n" in top
    assert b"and two" not in top
    curl(program, account, "", "--request", "DELE 1", "--head")
    assert curl(program, account, "1").endswith(SECOND)
    assert account.count() == 1


def test_it_says_that_the_password_is_wrong(program, account):
    curl(program, account, "", "--user", f"{account.user}:wrong", code=67)


def test_it_delivers_by_smtp(program, account, tmp_path):
    letter = tmp_path / "letter.eml"
    letter.write_bytes(FIRST)
    smtp = [program, *QUIETLY, "--mail-from", "curl@example.net"]
    smtp += ["--upload-file", str(letter), f"smtp://127.0.0.1:{account.smtp}/client.example"]
    subprocess.run([*smtp, "--mail-rcpt", account.user], check=True, capture_output=True)
    assert curl(program, account, "1").endswith(FIRST)
    refused = subprocess.run([*smtp, "--mail-rcpt", "nobody@example.com"], check=False, capture_output=True)
    assert refused.returncode == 55
    assert b"550" in refused.stderr
