# The operator's image: two static programs and nothing else (no shell, no libraries, no package manager).
#
#   sqledge-operator  the controller
#   sqledge-guard     copied by the init container into every database pod
#
# Where no base image can be pulled, the compile stage is replaced by a folder that holds the two programs under out/:
#
#   buildah bud --isolation chroot --build-context build=DIR -t NAME .     (deploy/build-image.sh does that)

ARG RUST_IMAGE=docker.io/library/rust:1.95-bookworm
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# An explicit --target, even for the machine's own: without it cargo would hand crt-static to procedural macros and
# build scripts too, which are shared objects and cannot be static.
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --target "$target" \
      --package sqledge-operator --bin sqledge-operator --bin sqledge-guard \
 && install -D -t /out "target/$target/release/sqledge-operator" "target/$target/release/sqledge-guard"

FROM scratch
COPY --from=build /out/sqledge-operator /sqledge-operator
COPY --from=build /out/sqledge-guard /sqledge-guard
# A number, because `runAsNonRoot` cannot judge a name, and an image of this kind has no /etc/passwd to resolve one.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/sqledge-operator"]
CMD ["run"]
