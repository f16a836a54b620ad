#!/bin/sh
# Makes the directory of the mail store and the account, and becomes the SMB server.
set -eu
: "${MAILROOT_SMB_PASSWORD:?the password of the account mailroot}"
install -d -m 711 /srv/nas
install -d -m 700 /srv/nas/state
install -d -m 700 -o mailroot -g mailroot /srv/nas/store
install -d -m 755 /run/samba
# On standard input: the list of processes shows a command's words.
printf '%s\n%s\n' "$MAILROOT_SMB_PASSWORD" "$MAILROOT_SMB_PASSWORD" | smbpasswd -L -a -s mailroot
unset MAILROOT_SMB_PASSWORD
exec smbd --foreground --no-process-group --debug-stdout
