-- finish ends a live turn: its message gets the state, the replies follow it, and the guards of its request know how it ended.
-- ARGV: 1 id   2 now, ms   3 owner   4 token   5 state   6 agent's id   7 agent's reference   8 failure   9… replies, JSON
-- Empty agent's id or reference: the last one is kept.
-- Returns {'ok', time in ms}, {'damaged'} or {'lost'} (nothing is written). A turn that ended under the same token is this
-- call's own first execution: nothing is written again.

local now, token = tonumber(ARGV[2]), ARGV[4]
local c = load(ARGV[1], now, ARGV[3])
if not c then return {'lost'} end
if c.turn == token and c.ended > 0 then return {'ok', text(c.ended)} end
if c.turn ~= token or c.lease <= now then return {'lost'} end
if damaged(c) then return {'damaged'} end

local replies = arguments(9)
close(c, ARGV[5])
push(c, 'complete', change(c, now), replies)
if ARGV[6] ~= '' then c.external = ARGV[6] end
if ARGV[7] ~= '' then c.ref = ARGV[7] end
c.ended = c.updated
save(c, now)
for i = 9, #KEYS do
  if redis.call('HGET', KEYS[i], 'turn') == token then
    redis.call('HSET', KEYS[i], 'replies', text(#replies), 'failure', ARGV[8])
  end
end
return {'ok', text(c.ended)}
