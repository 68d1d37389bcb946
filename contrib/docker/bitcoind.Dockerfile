# bitcoind from Debian's own archive (Bitcoin Knots: the RPC, REST, ZMQ and files of Bitcoin Core), checked by apt with
# Debian's keys. For an image of Bitcoin Core that you trust, set BITCOIND_IMAGE, see compose.yaml.
FROM docker.io/library/debian:forky-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends bitcoin-knots systemd-standalone-sysusers \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 1000 -g 1000 /bitcoin
USER 1000:1000
VOLUME /bitcoin
EXPOSE 8333
# It writes its coins to disk before it ends: give it time (stop_grace_period).
STOPSIGNAL SIGTERM
CMD ["bitcoind", "-datadir=/bitcoin", "-printtoconsole"]
