# podbeat's image for amd64 or arm64: `docker build --tag podbeat .`, or the same with buildah
# or podman. Without any of them, `just image` builds an image with the same files.
#
# The digest identifies the image for all architectures. Another tag has another digest:
#   docker buildx imagetools inspect rust:1.95-slim-bookworm
ARG RUST_IMAGE=rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082

FROM ${RUST_IMAGE} AS build
# Nothing is installed: the slim image has Rust, gcc (for ring) and the static glibc.
WORKDIR /source
COPY . .
# The time of the files, in seconds since 1970: `git log -1 --format=%ct`.
ARG SOURCE_DATE_EPOCH=0
RUN binary=$(bash image/static.sh) && \
    cargo run --quiet --locked --package podbeat-image -- rootfs --binary "$binary" --output /rootfs

# The image has only two files. A static glibc needs no other files to resolve names (/etc/hosts
# first, then DNS with the search list; Kubernetes provides resolv.conf and hosts), and a numeric
# user needs no passwd.
FROM scratch
COPY --from=build /rootfs/ /
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/podbeat"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="podbeat" \
      org.opencontainers.image.description="Reports the containers of a Kubernetes pod, and how they end, to the task-run service" \
      org.opencontainers.image.licenses="Apache-2.0 AND CDLA-Permissive-2.0 AND LGPL-2.1-or-later" \
      org.opencontainers.image.source="https://github.com/podbeat/podbeat" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}"
