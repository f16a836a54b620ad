"""Perl's Net::POP3 (libnet, in Perl's core): what many old scripts are made of."""

import subprocess

import pytest

pytestmark = pytest.mark.client
PROGRAM = "perl"

SCRIPT = r"""
use strict; use warnings; use Net::POP3;
my ($port, $user, $password) = @ARGV;
my $pop = Net::POP3->new('127.0.0.1', Port => $port, Timeout => 20) or die "no connection: $@";
my $count = $pop->login($user, $password); defined $count or die "no login: " . $pop->message;
print "count=" . ($count + 0) . "\n";
my $list = $pop->list; my $uids = $pop->uidl;
print "uid $_ $uids->{$_} $list->{$_}\n" for sort keys %$uids;
print "top=" . join('', grep { /^Subject/ } @{ $pop->top(1, 0) });
print "last=" . $pop->get(2)->[-1];
$pop->delete(1) or die; $pop->reset; $pop->ok or die; $pop->delete(2) or die;
my ($left) = $pop->popstat; print "left=$left\n";
$pop->quit or die "quit: " . $pop->message;
"""


def test_net_pop3(program, account, lacking):
    if subprocess.run([program, "-MNet::POP3", "-e", "1"], capture_output=True, check=False).returncode:
        lacking("this Perl has no Net::POP3; Debian's package perl has")
    uids = account.deliver(b"Subject: one\r\n\r\nbody\r\n", b"Subject: two\r\n\r\n.dotted\r\n")
    command = [program, "-e", SCRIPT, str(account.pop3), account.user, account.password]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "count=2"
    assert [line.split()[2] for line in lines if line.startswith("uid ")] == uids
    assert lines[3:] == ["top=Subject: one", "last=.dotted", "left=1"]
    assert account.count() == 1


SENDING = r"""
use strict; use warnings; use Net::SMTP;
my ($port, @to) = @ARGV;
my $smtp = Net::SMTP->new('127.0.0.1', Port => $port, Hello => 'old.example', Timeout => 20) or die "no connection: $@";
$smtp->mail('perl@example.net') or die $smtp->message;
my @good = $smtp->recipient(@to, { SkipBad => 1 });
print "good=@good\n";
$smtp->data("Subject: p\n\n.dotted\n.\nend\n") or die $smtp->message;
$smtp->quit or die;
"""


def test_net_smtp(program, account, lacking):
    if subprocess.run([program, "-MNet::SMTP", "-e", "1"], capture_output=True, check=False).returncode:
        lacking("this Perl has no Net::SMTP; Debian's package perl has")
    command = [program, "-e", SENDING, str(account.smtp), account.user, "nobody@example.com"]
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"good={account.user}\n"
    (message,) = account.contents()
    assert message.startswith(b"Return-Path: <perl@example.net>\r\n")
    assert message.endswith(b"\r\nSubject: p\r\n\r\n.dotted\r\n.\r\nend\r\n")
