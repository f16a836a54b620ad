"""mpop: twice with its list of UIDLs, then removing."""

import subprocess

import pytest

pytestmark = pytest.mark.client
PROGRAM = "mpop"


def mpop(program, account, home, *options, delivery="mbox") -> None:
    rc = home / "mpoprc"
    rc.write_text(
        f"account default\nhost 127.0.0.1\nport {account.pop3}\nuser {account.user}\ntls off\n"
        f"passwordeval \"printf '%s' '{account.password}'\"\n"
        f"delivery {delivery} {home}/inbox\nuidls_file {home}/uidls\ntimeout 20\n"
    )
    rc.chmod(0o600)
    command = [program, f"--file={rc}", *options]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("auth", ["user", "plain"])
def test_it_fetches_each_message_once_and_then_removes(program, account, tmp_path, auth):
    account.deliver(*(b"Subject: letter %d\r\n\r\n.body %d\r\n" % (number, number) for number in range(3)))
    mpop(program, account, tmp_path, f"--auth={auth}", "--keep=on")
    assert (tmp_path / "inbox").read_bytes().count(b"Subject: letter") == 3
    account.deliver(b"Subject: letter 3\r\n\r\nbody 3\r\n")
    mpop(program, account, tmp_path, f"--auth={auth}", "--keep=on")
    assert (tmp_path / "inbox").read_bytes().count(b"Subject: letter") == 4, "the UIDLs changed"
    assert account.count() == 4
    mpop(program, account, tmp_path, f"--auth={auth}", "--keep=off")
    assert account.count() == 0


def test_a_maildir_has_each_message_as_it_is(program, account, tmp_path):
    for folder in ("cur", "new", "tmp"):
        (tmp_path / "inbox" / folder).mkdir(parents=True)
    account.deliver(*(b"Subject: %d\r\n\r\n.a\r\n..b\r\n.\r\nend\r\n" % number for number in range(3)))
    stored = account.contents()
    mpop(program, account, tmp_path, "--auth=user", "--keep=off", "--received-header=off", delivery="maildir")
    found = sorted(path.read_bytes() for path in (tmp_path / "inbox" / "new").iterdir())
    assert found == sorted(message.replace(b"\r\n", b"\n") for message in stored)
    assert account.count() == 0
