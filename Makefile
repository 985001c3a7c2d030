# make test and make demo need root on Debian 12 or 13 with Go; test/prepare installs what else they need.

GO        ?= go
PREFIX    ?= /usr
DESTDIR   ?=
# For packages: the version, flags of Go's linker, and 1 where programs are linked by the C compiler.
VERSION     ?= devel
GO_LDFLAGS  ?=
CGO_ENABLED ?= 0
# Where zsh looks for the completions of packages; Debian's is vendor-completions.
ZSHDIR      ?= site-functions
# Writes the completions. A build for another machine names one that runs on this one.
UNITGEN   ?= bin/unitgen
# Further flags of go test, such as -v or -json.
TESTFLAGS ?=
# Versions of what make check runs; they are no requirement of this module.
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2
DEADCODE    ?= golang.org/x/tools/cmd/deadcode@v0.52.0

.PHONY: all build check unit race integration test test-all race-all chaos demo bench scale install install-files packages clean

all: build

# Static, so that the same files run on every distribution and in the tests' containers.
build:
	CGO_ENABLED=$(CGO_ENABLED) $(GO) build -trimpath -ldflags "-X main.version=$(VERSION) $(GO_LDFLAGS)" -o bin/ ./cmd/unitgen ./cmd/lbshim ./cmd/lbshim-balancer ./cmd/unitgen-metrics

# With the tag, vet reads all files: none is for builds without it.
check:
	$(GO) vet -tags integration ./...
	$(GO) run $(STATICCHECK) -tags integration ./...
	@dead=$$($(GO) run $(DEADCODE) -test -tags integration ./... | grep -v '^activation/') || true; \
		[ -z "$$dead" ] || { echo "nothing calls:"; echo "$$dead"; exit 1; } >&2
	@files=$$(find . -name '*.go' ! -path './build/*' ! -path './debian/*' | xargs gofmt -l); [ -z "$$files" ] || { echo "gofmt: not formatted:" $$files >&2; exit 1; }
	@marks=$$(git grep -lE '^(<<<<<<<|>>>>>>>)( |$$)' 2>/dev/null || true); [ -z "$$marks" ] || { echo "marks of a merge:" $$marks >&2; exit 1; }

unit:
	$(GO) test $(TESTFLAGS) ./...

# As unit, with the race detector for what has goroutines. The others are pure, or run as processes of their own.
race:
	$(GO) test $(TESTFLAGS) -vet=off -race ./activation ./internal/...
	$(GO) test $(TESTFLAGS) -vet=off ./cmd/... ./templates/... ./examples/... ./test/...

# Under a real systemd, see test/rig. Three packages at a time, as each waits for PID 1 and timers more than half of the time;
# two with the race detector, which two cores are busy with. Those that take longest come first. What this machine cannot run
# is skipped, or fails if UNITGEN_CI=1.
integration: build
	$(GO) test $(TESTFLAGS) $(RACE) -vet=off -tags integration -count=1 -p $(if $(RACE),2,3) -timeout 60m \
		./test/rollout ./test/packages ./test/node ./test/integration ./test/generator ./test/explain ./test/...

# Every behaviour once, on the newest systemd, and what differs on the oldest. One after the other, with -j too: prepare
# installs the compiler that the race detector needs.
test:
	test/prepare
	$(MAKE) check
	$(MAKE) race
	$(MAKE) integration

# Every test on every systemd, at full length; see rig.All. A unit test that fails does not keep those under systemd from a run
# that takes most of an hour.
test-all: export UNITGEN_ALL = 1
test-all:
	test/prepare
	$(MAKE) check
	$(MAKE) --keep-going -j1 race-all integration RACE=-race

race-all:
	$(GO) test $(TESTFLAGS) -vet=off -race ./...

# Random faults under load on both systemds, from a seed that is printed; see test/chaos. CHAOS_SEED=, CHAOS_MINUTES= (on
# each), CHAOS_SUITE=, CHAOS_STEPS=, CHAOS_WITHOUT=.
chaos: build
	test/prepare
	$(GO) run ./test/chaos $(if $(CHAOS_SEED),-seed=$(CHAOS_SEED)) $(if $(CHAOS_MINUTES),-minutes=$(CHAOS_MINUTES)) \
		$(if $(CHAOS_SUITE),-suite=$(CHAOS_SUITE)) $(if $(CHAOS_STEPS),-steps=$(CHAOS_STEPS)) $(if $(CHAOS_WITHOUT),-without=$(CHAOS_WITHOUT))

demo: build
	test/prepare
	$(GO) run ./test/demo

# Beside the peers that are installed (haproxy, nginx with its stream module, node, pm2); about 12 minutes. BENCH=quick shows in two that all works.
# BENCH_SETS=go,uvicorn,redis are programs that open their own port, alone, behind unitgen and behind HAProxy; see test/bench.
bench:
	$(GO) run ./test/bench $(if $(BENCH),-$(BENCH)) $(if $(BENCH_SETS),-sets=$(BENCH_SETS))

# How time, CPU and memory grow with instances, apps, connections and reloads, in a container. SCALE="-instances 512 -apps= -connections= -reloads 0"
# measures a part.
scale: build
	test/prepare
	$(GO) run ./test/scale $(SCALE)

install: build install-files

install-files:
	install -D -m 755 bin/unitgen $(DESTDIR)$(PREFIX)/bin/unitgen
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/lib/unitgen bin/lbshim bin/lbshim-balancer
	install -D -m 755 bin/unitgen-metrics $(DESTDIR)$(PREFIX)/lib/unitgen/metrics
	install -D -m 644 packaging/node/drain.cjs $(DESTDIR)$(PREFIX)/lib/unitgen/node/drain.cjs
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 packaging/man/unitgen.1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man5 packaging/man/unitgen.5
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 packaging/man/lbshim.8
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man7 packaging/man/lbshim.protocol.7
	mkdir -p $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/$(ZSHDIR) $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	$(UNITGEN) completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/unitgen
	$(UNITGEN) completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/$(ZSHDIR)/_unitgen
	$(UNITGEN) completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/unitgen.fish
	chmod 644 $(DESTDIR)$(PREFIX)/share/bash-completion/completions/unitgen $(DESTDIR)$(PREFIX)/share/zsh/$(ZSHDIR)/_unitgen \
		$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/unitgen.fish
	install -D -m 644 packaging/sysusers.d/unitgen.conf $(DESTDIR)$(PREFIX)/lib/sysusers.d/unitgen.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system packaging/systemd/unitgen-metrics.socket packaging/systemd/unitgen-metrics.service \
		packaging/systemd/unitgen-status.socket packaging/systemd/unitgen-status.service
	install -D -m 644 packaging/prometheus/unitgen.rules.yml $(DESTDIR)$(PREFIX)/share/unitgen/prometheus/unitgen.rules.yml
	install -D -m 644 packaging/grafana/unitgen.json $(DESTDIR)$(PREFIX)/share/unitgen/grafana/unitgen.json
	install -D -m 644 packaging/polkit/50-unitgen.rules $(DESTDIR)$(PREFIX)/share/polkit-1/rules.d/50-unitgen.rules

# All below build/; see docs/packaging.md.
packages:
	packaging/build dist deb rpm arch

clean:
	rm -rf bin build
