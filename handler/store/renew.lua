-- renew moves the end of a live turn's lease.
-- ARGV: 1 id   2 now, ms   3 owner   4 token   5 lease, ms
-- Returns {'ok'} or {'lost'}. A second execution does no harm.

local now = tonumber(ARGV[2])
local c = load(ARGV[1], now, ARGV[3])
if not c or c.turn ~= ARGV[4] or c.lease <= now then return {'lost'} end
redis.call('HSET', KEYS[7], 'lease', text(now + tonumber(ARGV[5])))
return {'ok'}
