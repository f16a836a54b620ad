#!/bin/sh
# Starts a part of a ledger with Sentinel: start.sh primary | replica | sentinel
#
# Redis and Sentinel rewrite their own configuration: who follows whom is kept there. So each has a copy in its volume,
# made at the first start only: a primary of before must not come back as one because the file says so.
set -eu

replicas_follow() { redis-cli -h redis info replication | grep -q min_slaves_good_slaves:2; }

if [ ! -e /data/server.conf ]; then
    case $1 in
        primary) cat /etc/ledger/redis.conf ;;
        replica) cat /etc/ledger/redis.conf; echo "replicaof redis 6379" ;;
        sentinel)
            # A Sentinel looks for replicas at its start and again after ten seconds: let them be there. At a later start
            # it knows them; then the primary may be another, and nobody is waited for.
            tries=0
            until replicas_follow; do
                tries=$((tries + 1))
                [ "$tries" -lt 300 ] || { echo "start.sh: the replicas never followed redis" >&2; exit 1; }
                sleep 0.2
            done
            cat /etc/ledger/sentinel.conf ;;
    esac >/data/server.conf.new
    mv /data/server.conf.new /data/server.conf
fi
case $1 in
    sentinel) exec redis-server /data/server.conf --sentinel ;;
    *) exec redis-server /data/server.conf --replica-announce-ip "$(hostname)" ;;
esac
