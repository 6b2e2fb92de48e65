-- finish ends a live turn: its message gets the state, the replies follow it, and the guards of its request know how it ended.
-- ARGV: 1 id   2 now, ms   3 owner   4 token   5 state   6 agent's id   7 agent's reference   8 failure   9… replies, JSON
-- Empty agent's id or reference: the last one is kept.
-- Returns {'ok', time in ms}, {'damaged'} or {'lost'} (nothing is written). When a guard knows that the turn has ended under the same
-- token, that is this call's own first execution: nothing is written again, whatever has happened to the conversation since.

local now, token = tonumber(ARGV[2]), ARGV[4]
local c = load(ARGV[1], now, ARGV[3])
if not c then return {'lost'} end
for i = 9, #KEYS do
  local known = redis.call('HMGET', KEYS[i], 'turn', 'ended')
  if known[1] == token and known[2] then return {'ok', known[2]} end
end
if c.turn ~= token or c.lease <= now then return {'lost'} end
if damaged(c) then return {'damaged'} end

local replies = arguments(9)
close(c, ARGV[5])
push(c, 'complete', change(c, now), replies)
if ARGV[6] ~= '' then c.external = ARGV[6] end
if ARGV[7] ~= '' then c.ref = ARGV[7] end
save(c, now)
for i = 9, #KEYS do
  if redis.call('HGET', KEYS[i], 'turn') == token then
    redis.call('HSET', KEYS[i], 'replies', text(#replies), 'failure', ARGV[8], 'ended', text(c.updated))
  end
end
return {'ok', text(c.updated)}
