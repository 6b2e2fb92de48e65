-- finish ends a live turn: its message gets the state, and the replies follow it.
-- ARGV: 1 id   2 now, ms   3 owner   4 token   5 state   6 agent's id   7 agent's reference   8… replies, JSON
-- Empty agent's id or reference: the last one is kept.
-- Returns {'ok', time in ms}, {'damaged'} or {'lost'} (nothing is written). A turn that ended under the same token is this
-- call's own first execution: nothing is written again.

local now, token = tonumber(ARGV[2]), ARGV[4]
local c = load(ARGV[1], now, ARGV[3])
if not c then return {'lost'} end
if c.turn == token and c.ended > 0 then return {'ok', text(c.ended)} end
if c.turn ~= token or c.lease <= now then return {'lost'} end
if damaged(c) then return {'damaged'} end

close(c, ARGV[5])
push(c, 'complete', change(c, now), arguments(8))
if ARGV[6] ~= '' then c.external = ARGV[6] end
if ARGV[7] ~= '' then c.ref = ARGV[7] end
c.ended = c.updated
save(c, now)
return {'ok', text(c.ended)}
