# Everything a developer types. `make` alone lists it.

export GOTOOLCHAIN ?= local
export GOFLAGS ?= -buildvcs=false

GOLANGCI_LINT = go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
# Not optimised: it is compiled for longer than it runs.
GORELEASER    = go run -gcflags='all=-N -l' github.com/goreleaser/goreleaser/v2@v2.16.0

# Packages whose goroutines meet run with the race detector as well.
RACE = ./orchestrate/... ./cmd/internal/... ./forward/...

.PHONY: help
help:
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: build
build: ## the program, static, as ./zeekdemo
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o zeekdemo ./cmd/zeekdemo

.PHONY: images
images: ## the stack's images from source, for a machine without a registry
	@testdata/images/build $(IMAGES)

# The scenarios change settings of the whole host, so they run by themselves.
.PHONY: test
test: ## every test that this machine can run; it says what it skips
	go test -timeout 30m $$(go list ./... | grep -v '/cmd/zeekdemo$$')
	go test -timeout 30m ./cmd/zeekdemo
	cd testdata/images && go test ./...
	CGO_ENABLED=1 go test -race -short -timeout 15m $(RACE)

.PHONY: lint
lint: ## gofmt, vet for linux and darwin, golangci-lint
	@test -z "$$(git ls-files '*.go' | xargs gofmt -l | tee /dev/stderr)"
	go vet ./... ./testdata/bench/receive ./testdata/testenv
	cd testdata/images && go vet ./...
	GOOS=darwin go vet ./...
	$(GOLANGCI_LINT) run

.PHONY: fuzz
fuzz: ## each fuzz target for FUZZTIME, 30 s unless said otherwise
	@testdata/fuzz.sh

.PHONY: release-check
release-check: ## whether the release recipe is valid
	$(GORELEASER) check

.PHONY: snapshot
snapshot: ## all release binaries into dist/, without a tag
	$(GORELEASER) build --snapshot --clean
