# make run and make test are all that a newcomer needs. Everything else is a part of them or of a deployment.

TOOL = go tool -modfile=scripts/tools/go.mod

.PHONY: run test go-test infra-check check lint vulncheck fuzz torture abuse bench bench-go package start coldstart tools

run: ## serve in memory, with a local issuer and the playground; REDIS=1 starts a Redis, REDIS_URL=redis://… uses one, PORT=8081 listens there
	@scripts/run.sh

test: infra-check go-test ## everything, on real Redis

go-test: tools
	CGO_ENABLED=1 $(TOOL) gotestsum --format pkgname -- -race -shuffle=on -p 4 -timeout 14m ./...

infra-check: ## the infrastructure, without Azure; BICEP names the compiler
	@infra/check/run.sh

check: lint test ## what must pass before a push

lint:
	@test -z "$$(gofmt -l handler scripts)" || { echo "gofmt these:"; gofmt -l handler scripts; exit 1; }
	go vet ./...
	go vet -tags playground ./handler
	@test -z "$$(go fix -diff ./...)" || { echo "go fix these:"; go fix -diff ./...; exit 1; }
	$(TOOL) golangci-lint run --allow-serial-runners ./...
	shellcheck scripts/*.sh infra/check/*.sh .ci/run
	scripts/luacheck.sh

vulncheck: ## published faults in what the program calls
	@scripts/vulncheck.sh

fuzz: ## every fuzz target of FUZZ for FUZZTIME
	scripts/fuzz.sh $(or $(FUZZTIME),30s) $(or $(FUZZ),./handler/...)

torture: ## break everything around two handlers for FOR, and keep books; SEED repeats a run's faults
	go test ./handler/torture -run 'TestTorture$$' -v -count=1 -timeout 0 -torture.for $(or $(FOR),5m) -torture.seed $(or $(SEED),0)

abuse: ## one user takes more than its share while another talks, each way for FOR; prints what that one notices
	go test ./handler/torture -run 'TestAbuse$$' -v -count=1 -timeout 0 -abuse.for $(or $(FOR),10s)

bench: ## what a request costs, beside a yardstick server, in about 75 seconds; OPS=start,send and ROUNDS=3 make it less, WITH="NAME=value" sets the handler up
	@go run ./scripts/bench $(if $(OPS),-ops $(OPS)) $(if $(ROUNDS),-rounds $(ROUNDS)) $(WITH)

bench-go: ## the benchmarks of single packages
	go test -run '^$$' -bench . -benchmem ./handler/...

package: ## dist/, the root that Azure Functions runs, and its zip
	@go run ./scripts/package

start: package ## under the real Functions host
	@command -v func >/dev/null || { echo "The func CLI is missing. Get it with: npm install -g azure-functions-core-tools@4"; exit 1; }
	@test -f local.settings.json || { echo "Settings are missing: cp local.settings.json.example local.settings.json, then edit it"; exit 1; }
	cp local.settings.json dist/
	func start --script-root dist

coldstart: package ## how long the program takes to its first answer
	scripts/coldstart.sh

tools:
	@scripts/install-test-tools.sh
