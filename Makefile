# Two commands: `make demo` shows the operator on a real three-node cluster on this machine, `make test` is all that CI runs.
#
#   make demo              cluster, operator, database; its pod is deleted, its node powered off; the cluster stays up
#   make down              end the demo's cluster
#   make kubectl ARGS=...  look around in it
#   make test              everything, cheapest first; CLUSTER=0 leaves out what needs root and nodes, and says so
#   make test-long         what takes too long for every run: an API server away for ten minutes, a detach held back for three
#   make soak              random faults on several databases at once, an hour and more: FAULTS=200 SEED=n; result in target/soak.json
#   make bench             outages, API requests and memory, ours beside the vendor's manifests (about an hour; docs/benchmarks.md)
#   make bench-failover    the faults of the headline, ours beside the vendor's manifests (RUNS=10: at most 100 minutes); ONLY=fault=drain,variant=default
#   make picture           docs/failover.svg from docs/failover.json, a result of make bench-failover
#   make generate          write anew what is derived from other files
#
# Programs are built once, outside the checkout: SQLEDGE_CACHE (default ~/.cache/sqledge). Results lie in ./target.

export SQLEDGE_CACHE ?= $(HOME)/.cache/sqledge
# one folder for all crates and all checkouts, so that dependencies are compiled once
export CARGO_TARGET_DIR ?= $(SQLEDGE_CACHE)/target
# static programs run in images without libraries; an explicit --target keeps the flag away from procedural macros
export RUSTFLAGS ?= -C target-feature=+crt-static
TARGET := $(shell uname -m)-unknown-linux-gnu
# the testbed remembers where it was compiled; another checkout may have compiled it into the shared folder
export SQLEDGE_TOOLS := $(CURDIR)/tests/testbed/tools
export SQLEDGE_PROGRAMS := $(CARGO_TARGET_DIR)/$(TARGET)/debug
CLUSTER ?= 1
DEMO ?= demo

CARGO := cargo
# always the whole workspace: with fewer packages cargo would choose other features, and compile the dependencies once more
FOR := --locked --target $(TARGET) --workspace
TESTBED := $(SQLEDGE_PROGRAMS)/testbed
IMAGES := $(SQLEDGE_CACHE)/archives
# every file and folder of tests/ but the one that wants etcd and an API server
OPERATOR_TESTS := $(filter-out control_plane,$(basename $(notdir $(wildcard tests/*.rs))) $(patsubst tests/%/main.rs,%,$(wildcard tests/*/main.rs)))
MODEL_TESTS := $(basename $(notdir $(wildcard tests/model/tests/*.rs)))
STANDIN_TESTS := $(basename $(notdir $(wildcard tests/standin/tests/*.rs)))

.PHONY: fresh demo down kubectl test test-long test-rust test-control-plane test-e2e generate check-generated build fmt deps \
	machine programs former images format lints unit standin docs storage sanity testbed-itself policies e2e e2e-programs bench soak \
	soak-short bench-failover picture

# ------------------------------------------------------------------------------------------------------------ the demo
demo: machine images
	@$(SQLEDGE_PROGRAMS)/demo --name $(DEMO) --archives $(IMAGES) --checkout . --output target/demo.json

down: $(TESTBED)
	@$(TESTBED) --name $(DEMO) down

kubectl: $(TESTBED)
	@$(TESTBED) --name $(DEMO) kubectl $(ARGS)

$(TESTBED):
	@$(CARGO) build --quiet $(FOR) --bin testbed

# ------------------------------------------------------------------------------------------------------------- the tests
test:
	@tests/e2e/stages.sh $(CLUSTER)

test-rust: format lints unit standin docs
test-control-plane: programs former
	$(CARGO) test $(FOR) --test control_plane -- --include-ignored
	$(CARGO) test $(FOR) --test guarded -- --ignored real
test-e2e: e2e
test-long: images
	$(CARGO) test $(FOR) --test protocol -- --ignored --nocapture
	$(CARGO) test $(FOR) --test cluster -- --ignored --test-threads=1 --nocapture long_

# ---- the stages of `make test`, in its order (tests/e2e/stages.sh)
machine: deps
	@$(CARGO) build --quiet $(FOR) --bin testbed
	@if [ "$(CLUSTER)" != 0 ]; then $(TESTBED) check || { echo "Without nodes, \`make test CLUSTER=0\` runs the rest." >&2; exit 1; }; fi

deps: fresh
	@tests/e2e/deps.sh $(CLUSTER)

# Cargo takes a file for built if it is older than the result, and results of all checkouts lie in one folder: a source that another
# checkout has in another version must look new.
fresh:
	@mkdir -p $(CARGO_TARGET_DIR); stamp=$(CARGO_TARGET_DIR)/.checkout; \
	[ "$$(cat $$stamp 2>/dev/null)" = "$(CURDIR)" ] || { git ls-files -z '*.rs' '*.toml' | xargs -0 touch -c; echo "$(CURDIR)" >$$stamp; }

format:
	$(CARGO) fmt --all --check
	@unformatted=$$(gofmt -l tests/storage tests/standin/drivers); [ -z "$$unformatted" ] || { echo "gofmt: $$unformatted"; exit 1; }

lints:
	$(CARGO) clippy $(FOR) --all-targets -- -D warnings
	cd tests/storage && go vet ./...

unit:
	$(CARGO) test $(FOR) --lib --bins $(addprefix --test ,$(OPERATOR_TESTS) $(MODEL_TESTS))
	$(CARGO) test $(FOR) --doc

# the stand-in engine as a program, with drivers of three languages
standin:
	$(CARGO) test $(FOR) $(addprefix --test ,$(STANDIN_TESTS))

docs:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --quiet $(FOR) --no-deps

programs:
	@tests/testbed/tools/build.sh $(if $(filter 0,$(CLUSTER)),etcd kubernetes helm) >/dev/null

# the operator of an earlier commit, to upgrade from
former:
	@tests/control_plane/former.sh

check-generated: programs e2e-programs
	@$(SQLEDGE_PROGRAMS)/sqledge-operator crd | diff -u crds/sqledgeinstances.sqledge.io.yaml - \
		|| { echo "crds/ is stale: run \`make generate\` and commit the result" >&2; exit 1; }
	deploy/generate.sh --check
	$(SQLEDGE_PROGRAMS)/bench picture --from docs/failover.json --to docs/failover.svg --check

generate: programs e2e-programs
	$(SQLEDGE_PROGRAMS)/sqledge-operator crd >crds/sqledgeinstances.sqledge.io.yaml.new
	mv crds/sqledgeinstances.sqledge.io.yaml.new crds/sqledgeinstances.sqledge.io.yaml
	deploy/generate.sh

policies: programs
	tests/e2e/policies.sh

storage:
	cd tests/storage && TEST_STORAGE_NODE_TESTS=$(if $(filter 0,$(CLUSTER)),,required) go test ./...

sanity:
	tests/storage/sanity.sh

testbed-itself: programs
	$(CARGO) test $(FOR) --test promises -- --ignored --test-threads=1 --nocapture

e2e: images
	$(CARGO) test $(FOR) --test cluster -- --ignored --test-threads=1 --nocapture --skip long_

FAULTS ?= 200
SEED ?= $(shell date +%s)
soak: machine images
	@$(SQLEDGE_PROGRAMS)/soak --seed $(SEED) --faults $(FAULTS) --out target/soak.json $(ARGS)

# always the same faults, so that it says something about a change
soak-short: images
	@$(SQLEDGE_PROGRAMS)/soak --seed 4 --faults 9 --instances 4 --minutes 3 --without-control --name soak-short --out target/soak-short.json

# ----------------------------------------------------------------------------------------------------------- what they need
build: fresh
	$(CARGO) build $(FOR) --bins

e2e-programs: fresh
	@$(CARGO) build --quiet $(FOR) --bins

images: e2e-programs
	@tests/e2e/images.sh $(SQLEDGE_PROGRAMS) $(IMAGES)

fmt:
	$(CARGO) fmt --all
	gofmt -w tests/storage tests/standin/drivers

# ------------------------------------------------------------------------------------------------------------ the figures
bench: machine images
	@$(SQLEDGE_PROGRAMS)/bench --name bench --out target/bench/outage.json $(if $(ONLY),--only $(ONLY)) $(ARGS)

RUNS ?= 10
bench-failover: machine images
	@$(SQLEDGE_PROGRAMS)/bench failover --runs $(RUNS) --out target/bench/failover.json $(if $(ONLY),--only $(ONLY)) $(ARGS)

picture: e2e-programs
	@$(SQLEDGE_PROGRAMS)/bench picture --from docs/failover.json --to docs/failover.svg
