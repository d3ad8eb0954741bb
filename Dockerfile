# The programs, static, on nothing: one binary each, and the certificate authorities that AWS is checked against.
#
#   docker buildx build --platform linux/amd64,linux/arm64 --target agent --tag REGISTRY/spotkeeper-agent:0.1.0 --push .
#   docker buildx build --platform linux/amd64,linux/arm64 --target provisioner --tag REGISTRY/spotkeeper-provisioner:0.1.0 --push .
#
# The files of an image come from a stage of its own, `agent-files` or `provisioner-files`. `--build-context
# agent-files=FOLDER` puts a folder with the same layout in its place, so that an image can be made of a binary that is
# already built (as `make images` does, which needs no base image); the image itself is described once, below.

FROM rust:1.95-alpine AS build
# aws-lc is C; the agent links it statically against musl, as Alpine's Rust does by default.
RUN apk add --no-cache build-base ca-certificates cmake
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
RUN cargo build --release --locked --no-default-features --features agent --bin spotkeeper-agent

FROM build AS build-provisioner
# The AWS SDK for EC2 takes 8 GB of memory.
RUN cargo build --release --locked --no-default-features --features provisioner --bin spotkeeper-provisioner

FROM scratch AS provisioner-files
COPY --from=build-provisioner /build/target/release/spotkeeper-provisioner /spotkeeper-provisioner
COPY --from=build-provisioner /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

FROM scratch AS provisioner
LABEL org.opencontainers.image.title="spotkeeper-provisioner" \
      org.opencontainers.image.description="Has a replacement on its way for every Kubernetes node that AWS is about to take" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=provisioner-files /spotkeeper-provisioner /spotkeeper-provisioner
COPY --from=provisioner-files /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 9734
ENTRYPOINT ["/spotkeeper-provisioner"]

FROM scratch AS agent-files
COPY --from=build /build/target/release/spotkeeper-agent /spotkeeper-agent
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt

FROM scratch AS agent
LABEL org.opencontainers.image.title="spotkeeper-agent" \
      org.opencontainers.image.description="Empties a Kubernetes node in time when AWS announces that its instance will be taken" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=agent-files /spotkeeper-agent /spotkeeper-agent
COPY --from=agent-files /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
EXPOSE 9732 9733
ENTRYPOINT ["/spotkeeper-agent"]
