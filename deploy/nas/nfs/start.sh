#!/bin/sh
# Makes the directory of the mail store, once, and becomes the NFS server.
#
# Its log begins with complaints about DBus and a port mapper. There are none: nobody administers it, and version 4 has one port.
set -eu
: "${MAILROOT_NAS_CLIENT:?the address of the machine that may mount the store}"
install -d -m 711 /srv/nas
install -d -m 700 /srv/nas/state
install -d -m 700 -o 10001 -g 10001 /srv/nas/store
sed "s|@CLIENT@|$MAILROOT_NAS_CLIENT|" /etc/ganesha/ganesha.conf >/run/ganesha/ganesha.conf
exec ganesha.nfsd -F -x -L STDOUT -f /run/ganesha/ganesha.conf -p /run/ganesha/pid
