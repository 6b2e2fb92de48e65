package store

import (
	_ "embed"

	"github.com/redis/go-redis/v9"
)

// script is what one method of the store runs in Redis.
type script struct {
	name   string
	writes bool // its effect is acknowledged to a caller
	lua    *redis.Script
}

var (
	//go:embed prelude.lua
	preludeLua string
	//go:embed claim.lua
	claimLua string
	//go:embed start.lua
	startLua string
	//go:embed begin.lua
	beginLua string
	//go:embed append.lua
	appendLua string
	//go:embed cancel.lua
	cancelLua string
	//go:embed events.lua
	eventsLua string
	//go:embed finish.lua
	finishLua string
	//go:embed update.lua
	updateLua string
	//go:embed delete.lua
	deleteLua string
	//go:embed erase.lua
	eraseLua string
	//go:embed count.lua
	countLua string
	//go:embed recall.lua
	recallLua string
	//go:embed get.lua
	getLua string
	//go:embed list.lua
	listLua string
	//go:embed describe.lua
	describeLua string
	//go:embed health.lua
	healthLua string

	claimScript    = &script{"claim", true, redis.NewScript(preludeLua + claimLua)}
	startScript    = &script{"start", true, redis.NewScript(preludeLua + startLua)}
	beginScript    = &script{"begin", true, redis.NewScript(preludeLua + beginLua)}
	appendScript   = &script{"append", false, redis.NewScript(preludeLua + appendLua)}
	cancelScript   = &script{"cancel", true, redis.NewScript(preludeLua + cancelLua)}
	eventsScript   = &script{"events", false, redis.NewScript(preludeLua + eventsLua)}
	finishScript   = &script{"finish", true, redis.NewScript(preludeLua + finishLua)}
	updateScript   = &script{"update", true, redis.NewScript(preludeLua + updateLua)}
	deleteScript   = &script{"delete", true, redis.NewScript(preludeLua + deleteLua)}
	eraseScript    = &script{"erase", true, redis.NewScript(preludeLua + eraseLua)}
	countScript    = &script{"count", false, redis.NewScript(countLua)}
	recallScript   = &script{"recall", false, redis.NewScript(preludeLua + recallLua)}
	getScript      = &script{"get", false, redis.NewScript(preludeLua + getLua)}
	listScript     = &script{"list", false, redis.NewScript(preludeLua + listLua)}
	describeScript = &script{"list", false, redis.NewScript(describeLua)}
	healthScript   = &script{"health", true, redis.NewScript(healthLua)}
)
