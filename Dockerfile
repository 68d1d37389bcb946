# docker build -t ambra .
# docker run -v ~/.bitcoin:/bitcoin:ro -v ambra:/data -p 127.0.0.1:50001:50001 \
#     -e AMBRA_DAEMON_RPC_URL=http://HOST:8332 ambra
#
# /bitcoin is the node's data directory: its block files are read from there, and its cookie. The user in the
# container (1000) has to be allowed to read it; bitcoind's rpccookieperms=group helps with the cookie.
FROM rust:1-trixie AS build
RUN apt-get update && apt-get install -y --no-install-recommends clang libclang-dev
WORKDIR /ambra
COPY . .
RUN cargo build --release --locked --bin ambra

FROM debian:trixie-slim
RUN useradd --uid 1000 --create-home ambra && install -d -o ambra -g ambra /data
COPY --from=build /ambra/target/release/ambra /usr/local/bin/ambra
USER ambra
ENV AMBRA_DAEMON_DIR=/bitcoin AMBRA_DB_DIR=/data AMBRA_LISTEN=tcp://0.0.0.0:50001
VOLUME /data
EXPOSE 50001
# Ambra stops cleanly on SIGTERM within two seconds.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ambra"]
