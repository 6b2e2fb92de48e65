-- append adds what a live turn has told to the log, moves the end of its lease, and counts as an access.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 time to live, ms   5 lag, ms   6 age at most, ms, or 0   7 token
--       8 lease, ms   9… what tell adds
-- Returns {'ok', '1' when the owner has asked for the turn's end or else '', what tell returns}, {'missing'}, {'damaged'} or {'lost'}. A second
-- execution does no harm.

local id, tenantId, userId, ttl, lag, age, token, lease = unpack(ARGV)
local now = clock()
local c, outcome = open(id, tenantId, userId, 'cancelToken')
if not c then return outcome end
if outlived(c, now, age) then return {'missing'} end
if c.turnToken ~= token or c.turnLeaseUntil <= now then return {'lost'} end
c.turnLeaseUntil = now + lease
redis.call('HSET', conversation, 'turnLeaseUntil', c.turnLeaseUntil)
if access(c, now, ttl, lag, age) then
  save(c, {'accessedAt', 'expiresAt'})
  expire(c, used(now), lag, age)
end
return {'ok', c.cancelToken == token and '1' or '', tell(c, now, rest(9))}
