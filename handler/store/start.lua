-- start makes a conversation with its first messages.
-- ARGV: 1 id   2 now, ms   3 owner   4 time to live, ms   5 conversations allowed   6 record, JSON   7 agent's id
--       8 agent's reference   9… messages, JSON
-- Returns {'ok', summary} or {'too many'}. An id that exists is this call's own first execution: nothing is written again.

local id, now, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
purge(now)
local c = load(id, now, owner)
if c then return {'ok', summary(c)} end
if redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[5]) then return {'too many'} end

c = {
  id = id, owner = owner, record = ARGV[6], external = ARGV[7], status = 'active', count = 0, version = 1,
  updated = now, accessed = now, expires = now + tonumber(ARGV[4]),
  ref = ARGV[8], turn = '', lease = 0, asked = 0, ended = 0,
}
push(c, 'complete', now, arguments(9))
save(c, now)
return {'ok', summary(c)}
