# docker build -t ambra .
#
# docker run --name ambra -v ~/.bitcoin:/bitcoin:ro -v ambra:/data -p 127.0.0.1:50001:50001 \
#     -p 127.0.0.1:50009:50009 --add-host host.docker.internal:host-gateway \
#     -e AMBRA_DAEMON_RPC_URL=http://host.docker.internal:8332 ambra
#
# /bitcoin is the node's data directory: its cookie and its block files are read from there, so the container's user
# (1000, or another with --user UID) has to be bitcoind's, or allowed to read them. contrib/docker/compose.yaml has a
# node of its own beside it. More: docs/docker.md.

FROM docker.io/library/rust:1.95-trixie AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /ambra
# Dependencies are a layer of their own, built again only when Cargo.lock or Cargo.toml change: RocksDB takes many
# minutes. Empty programs stand in for ours. (A Raspberry Pi 5 has memory pages of 16 KiB, other ARM systems of 64 KiB; an
# allocator that is built for those runs on all.)
COPY .cargo .cargo
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src contrib/bench \
    && for file in src/main.rs $(grep -o 'contrib/bench/.*\.rs' Cargo.toml); do echo 'fn main() {}' >$file; done \
    && touch src/lib.rs \
    && if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo build --release --locked --bin ambra \
    && rm -r src contrib
COPY . .
# Cargo goes by the time of change, and the empty program is younger than ours.
RUN find src -name '*.rs' -exec touch {} + \
    && if [ "$(uname -m)" = aarch64 ]; then export JEMALLOC_SYS_WITH_LG_PAGE=16; fi \
    && cargo build --release --locked --bin ambra \
    && strip --strip-debug -o /usr/local/bin/ambra target/release/ambra \
    && ambra --version

FROM docker.io/library/debian:trixie-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home ambra \
    && install -d -o ambra -g ambra /data
COPY --from=build /usr/local/bin/ambra /usr/local/bin/ambra
COPY contrib/docker/healthcheck.sh /usr/local/bin/healthcheck
USER ambra
# Within the container all addresses; what is reached from outside is what `docker run -p` says.
ENV AMBRA_DAEMON_DIR=/bitcoin \
    AMBRA_DB_DIR=/data \
    AMBRA_LISTEN=tcp://0.0.0.0:50001 \
    AMBRA_ADMIN_LISTEN=0.0.0.0:50009
VOLUME /data
# Wallets; status page, metrics and health.
EXPOSE 50001 50009
# The first sync may take hours, in which wallets are told to wait: not ready, and nothing that a restart mends.
HEALTHCHECK --interval=30s --timeout=5s --start-period=24h --retries=3 CMD ["healthcheck"]
# Ambra stops within two seconds of SIGTERM.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ambra"]
