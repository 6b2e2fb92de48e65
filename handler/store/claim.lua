-- claim takes a guarded start, moves the end of its lease, or gives it up.
-- KEYS: 1 the guard (HASH)
-- ARGV: 1 now, ms   2 token   3 lease, ms, or 0 to give it up   4 request   5 time to live of the guard, ms
-- Returns {'ok', id, summary} when the start has been made, {'ok'} when it is claimed or given up, {'reused'}, or {'busy', ms left}.
-- A second execution does no harm.

local now, token, lease = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local past, isOther = recall(KEYS[1], ARGV[4])
if isOther then return {'reused'} end
if past and past.made then return {'ok', past.id, past.made} end
if past and past.turn ~= token and past.lease > now then return {'busy', text(past.lease - now)} end
if lease > 0 then
  remember(KEYS[1], ARGV[5], 'request', ARGV[4], 'turn', token, 'lease', text(now + lease))
elseif past and past.turn == token then
  redis.call('DEL', KEYS[1])
end
return {'ok'}
