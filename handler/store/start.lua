-- start makes a conversation with its first messages.
-- ARGV: 1 id   2 now, ms   3 owner   4 time to live, ms   5 conversations allowed   6 record, JSON   7 agent's id
--       8 agent's reference   9 token of the claim   10 request   11 time to live of the guard, ms   12… messages, JSON
-- The guard is KEYS[9], if there is one. Returns {'ok', summary}, {'too many'}, or {'lost'} when the token does not hold the claim.
-- An id that exists is this call's own first execution: nothing is written again.

local id, now, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
purge(now)
local c = load(id, now, owner)
if c then return {'ok', summary(c)} end
local guard = KEYS[9]
if guard then
  local past = recall(guard, ARGV[10])
  if not past or past.turn ~= ARGV[9] or past.made then return {'lost'} end
end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[5]) then return {'too many'} end

c = {
  id = id, owner = owner, record = ARGV[6], external = ARGV[7], status = 'active', count = 0, version = 1,
  updated = now, accessed = now, expires = now + tonumber(ARGV[4]),
  ref = ARGV[8], turn = '', lease = 0, asked = 0,
}
push(c, 'complete', now, arguments(12))
save(c, now)
if guard then remember(guard, ARGV[11], 'id', id, 'made', summary(c)) end
return {'ok', summary(c)}
