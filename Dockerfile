# The agent, static, on nothing: one binary and the certificate authorities that SQS is checked against.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --tag REGISTRY/spotkeeper-agent:0.1.0 --push .
#
# The two files of the image come from the stage `files`. `--build-context files=FOLDER` puts a folder with the same
# layout in its place, so that an image can be made of a binary that is already built (`make image` does where no base
# image can be pulled); the image itself is described once, below.

FROM rust:1.95-alpine AS build
# aws-lc is C; the agent links it statically against musl, as Alpine's Rust does by default.
RUN apk add --no-cache build-base ca-certificates cmake
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked --no-default-features --features agent --bin spotkeeper-agent

FROM scratch AS files
COPY --from=build /build/target/release/spotkeeper-agent /spotkeeper-agent
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

FROM scratch AS agent
LABEL org.opencontainers.image.title="spotkeeper-agent" \
      org.opencontainers.image.description="Empties a Kubernetes node in time when AWS announces that its instance will be taken" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=files /spotkeeper-agent /spotkeeper-agent
COPY --from=files /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 9732 9733
ENTRYPOINT ["/spotkeeper-agent"]
