-- renew moves the end of a live turn's lease, and counts as an access.
-- KEYS: the owner's, the conversation's
-- ARGV: 1 id   2 tenant   3 user   4 time to live, ms   5 lag, ms   6 token   7 lease, ms
-- Returns {'ok'}, {'missing'}, {'damaged'} or {'lost'}. A second execution does no harm.

local id, tenantId, userId, ttl, lag, token, lease = unpack(ARGV)
local now = clock()
local c, outcome = open(id, tenantId, userId)
if not c then return outcome end
if c.turnToken ~= token or c.turnLeaseUntil <= now then return {'lost'} end
redis.call('HSET', conversation, 'turnLeaseUntil', now + lease)
if access(c, now, ttl, lag) then
  save(c, {'accessedAt', 'expiresAt'})
  expire(c, used(now), lag)
end
return {'ok'}
