#!/usr/bin/env bash
# Makes the container images that the Compose lab pulls, on a machine that can reach Debian's packages but no container
# registry. Guarantees: an image that exists is left alone. Fails with a sentence and status 1.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/offline-images.sh [--all]

Makes stand-ins for the images that the lab pulls, from the packages of Debian 13, under the same names:

    debian:trixie-slim       what the node's own image is built on
    redis:8  haproxy:3.0     the lab
    prom/prometheus:v2.53.3  the profile `watch` (with --all only)
    grafana/grafana:12.3.1   the same; Grafana is in no package of Debian, so this one only says that it is not there

An image that exists already, pulled or made, is left alone: where there is a registry, `docker pull` them and this
has nothing to do. Needs root (or sudo), debootstrap and a Docker engine; takes about two minutes and, with --all, 200 MB of
packages from the Debian mirror that this machine itself uses (or MAILROOT_DEBIAN_MIRROR).

The certificates in /usr/local/share/ca-certificates come along, and PIP_CERT and SSL_CERT_FILE name them, so that
pip works in a build behind a proxy with a certificate of its own.
TEXT
}

BASE=debian:trixie-slim
STAND_INS=mailroot-stand-ins    # All lab packages in one layer; the images on top add only names and commands.
WATCH=mailroot-stand-ins-watch  # The same for --all: Prometheus is larger than everything else.

say() { echo "offline-images: $*"; }
fail() { say "$*" >&2; exit 1; }
exists() { docker image inspect "$1" >/dev/null 2>&1; }

# The stand-ins are plain Dockerfiles on standard input: both builders can do that. Quiet, unless something goes wrong.
build() {
    local log
    log=$(mktemp)
    docker build --tag "$1" - >"$log" 2>&1 || { cat "$log" >&2; rm -f "$log"; fail "could not build $1"; }
    rm -f "$log"
    say "made $1"
}

# The Debian mirror of this machine, from its one-line or its deb822 sources.
mirror() {
    local found
    # shellcheck disable=SC2016  # apt expands it
    found=${MAILROOT_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
        grep -E '/debian/?$' | head -n 1)}
    [ -n "$found" ] || fail "no Debian mirror in this machine's apt sources; name one in MAILROOT_DEBIAN_MIRROR"
    echo "$found"
}

make_base() {
    local root sudo="" from
    [ "$(id -u)" -eq 0 ] || sudo=sudo
    command -v debootstrap >/dev/null || [ -x /usr/sbin/debootstrap ] ||
        fail "needs debootstrap: apt-get install debootstrap"
    from=$(mirror)
    root=$(mktemp -d)
    chmod 755 "$root"  # It becomes the image's own `/`.
    # shellcheck disable=SC2064  # the values of now
    trap "$sudo rm -rf --one-file-system '$root'" EXIT
    say "making $BASE from $from, about a minute …"
    $sudo /usr/sbin/debootstrap --variant=minbase --include=ca-certificates trixie "$root" "$from" >"$root.log" 2>&1 ||
        { tail -n 20 "$root.log" >&2; fail "debootstrap failed; its whole log is $root.log"; }
    rm -f "$root.log"
    $sudo bash -euo pipefail -s "$root" <<'AS_ROOT'
cd "$1"
find /usr/local/share/ca-certificates -name '*.crt' -exec cp -t usr/local/share/ca-certificates {} + 2>/dev/null || true
chroot . update-ca-certificates >/dev/null 2>&1
# As the official image: no service starts at its installation, no package stays in a cache, no manuals.
printf '#!/bin/sh\nexit 101\n' >usr/sbin/policy-rc.d
chmod 755 usr/sbin/policy-rc.d
echo 'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };' >etc/apt/apt.conf.d/docker-clean
echo force-unsafe-io >etc/dpkg/dpkg.cfg.d/docker-apt-speedup
printf 'path-exclude /usr/share/%s/*\n' doc info locale man lintian >etc/dpkg/dpkg.cfg.d/docker
rm -rf usr/share/{doc,info,locale,man,lintian}/* var/lib/apt/lists/* var/cache/apt/archives/*.deb var/log/*.log proc/* sys/* dev/*
AS_ROOT
    $sudo tar -C "$root" -c . | docker import \
        --change 'CMD ["bash"]' \
        --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
        - "$BASE" >/dev/null
    say "made $BASE"
}

make_stand_ins() {
    exists "$STAND_INS" || build "$STAND_INS" <<DOCKERFILE
FROM $BASE
RUN groupadd --system --gid 999 redis \\
 && useradd --system --uid 999 --gid redis --home-dir /data --shell /usr/sbin/nologin redis \\
 && apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends haproxy redis-server redis-sentinel \\
 && rm -rf /var/lib/apt/lists/* \\
 && install -d -o redis -g redis /data
DOCKERFILE
}

make_redis() {
    make_stand_ins
    build redis:8 <<DOCKERFILE
FROM $STAND_INS
WORKDIR /data
VOLUME /data
CMD ["redis-server"]
DOCKERFILE
}

make_haproxy() {
    make_stand_ins
    build haproxy:3.0 <<DOCKERFILE
FROM $STAND_INS
USER haproxy
WORKDIR /var/lib/haproxy
STOPSIGNAL SIGUSR1
CMD ["haproxy", "-W", "-db", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]
DOCKERFILE
}

make_prometheus() {
    exists "$WATCH" || build "$WATCH" <<DOCKERFILE
FROM $BASE
RUN apt-get update \\
 && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends prometheus \\
 && rm -rf /var/lib/apt/lists/* \\
 && install -d -o nobody -g nogroup /prometheus
DOCKERFILE
    build prom/prometheus:v2.53.3 <<DOCKERFILE
FROM $WATCH
USER nobody
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/usr/bin/prometheus"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
DOCKERFILE
}

make_grafana() {
    build grafana/grafana:12.3.1 <<DOCKERFILE
FROM $BASE
CMD ["echo", "This is not Grafana: its image could not be had on this machine. Prometheus has the same figures, at its own port. Where there is a registry: docker pull grafana/grafana:12.3.1"]
DOCKERFILE
}

case "${1:-}" in
    "" | --all) ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
esac
command -v docker >/dev/null || fail "needs Docker: apt-get install docker.io"
docker info >/dev/null 2>&1 || fail "no Docker engine answers; start it (systemctl start docker), or use sudo"

exists "$BASE" || make_base
exists redis:8 || make_redis
exists haproxy:3.0 || make_haproxy
if [ "${1:-}" = --all ]; then
    exists prom/prometheus:v2.53.3 || make_prometheus
    exists grafana/grafana:12.3.1 || make_grafana
fi
say "all images are there"
