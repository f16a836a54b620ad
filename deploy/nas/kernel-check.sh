#!/bin/sh
# Does this machine's kernel have the client for a share, loaded? A container sees the host's kernel, so this needs no rights.
#
#     kernel-check.sh FILESYSTEM MODULE [LIST]    ends with status 0, or with 1 and a sentence
#
# Loaded is all that can be seen from here: whether a module could be loaded only the host's root finds out.
set -eu
filesystem=$1
module=$2
list=${3:-/proc/filesystems}

if grep -q -w -- "$filesystem" "$list"; then
    echo "kernel-check: this machine's kernel can mount $filesystem."
    exit 0
fi
cat >&2 <<TEXT
kernel-check: $filesystem is not loaded in this machine's kernel ($(uname -r)): it can't mount the store, so nothing else is started.
kernel-check: Try on the machine: sudo modprobe $module
kernel-check: Where there is no such module, take a machine with another kernel, or the lab without this overlay.
TEXT
exit 1
