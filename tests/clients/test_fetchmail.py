"""fetchmail: twice, keeping the mail by UIDL, then removing it."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.client
PROGRAM = "fetchmail"
NO_MAIL = 1  # fetchmail's exit code where there was nothing to fetch.


def fetchmail(program, account, home, *options) -> int:
    rc = home / "fetchmailrc"
    rc.write_text(
        f'poll 127.0.0.1 protocol pop3 port {account.pop3} uidl username "{account.user}" '
        f"""password "{account.password}" sslproto '' mda "cat >> {home}/inbox"\n"""
    )
    rc.chmod(0o600)
    files = ("--fetchmailrc", str(rc), "--idfile", str(home / "ids"), "--pidfile", str(home / "pid"))
    done = subprocess.run(
        [program, *files, "--nosyslog", "--timeout", "20", *options],
        env=os.environ | {"HOME": str(home), "FETCHMAILHOME": str(home)},
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, NO_MAIL), done.stdout + done.stderr
    return done.returncode


def test_it_fetches_each_message_once_and_then_removes(program, account, tmp_path):
    account.deliver(*(b"Subject: letter %d\r\n\r\n.body %d\r\n" % (number, number) for number in range(3)))
    assert fetchmail(program, account, tmp_path, "--keep") == 0
    assert (tmp_path / "inbox").read_bytes().count(b"Subject: letter") == 3
    assert b"\n.body 2" in (tmp_path / "inbox").read_bytes()
    assert account.count() == 3
    account.deliver(b"Subject: letter 3\r\n\r\nbody 3\r\n")
    assert fetchmail(program, account, tmp_path, "--keep") == 0
    assert (tmp_path / "inbox").read_bytes().count(b"Subject: letter") == 4, "the UIDLs changed"
    assert fetchmail(program, account, tmp_path, "--keep") == NO_MAIL
    assert fetchmail(program, account, tmp_path, "--nokeep", "--fetchall") == 0
    assert account.count() == 0
    assert fetchmail(program, account, tmp_path) == NO_MAIL
