-- claim takes a start with an idempotency key, moves the end of its lease, or gives it up.
-- KEYS: the owner's
-- ARGV: 1 token   2 lease, ms, or 0 to give it up   3 fingerprint   4 name of the record   5 its time to live, ms   6 records allowed
-- Returns {'ok'} when it is claimed or given up, {'ok', id, createdAt, expiresAt, messages, agent's id} when the start has been made,
-- {'missing'} when what it made is gone, {'reused'}, or {'busy', ms left}. A second execution does no harm.

local token, lease, fingerprint, name, ttl, most = unpack(ARGV)
local now = clock()
local known, reused = recall({name}, fingerprint, now)
local past = known[1]
if reused then return {'reused'} end
if past and past.conversationId then
  local expiry = redis.call('ZSCORE', expiries, past.conversationId)
  if not expiry or tonumber(expiry) <= now then return {'missing'} end
  return {
    'ok', past.conversationId, text(past.createdAt), text(past.expiresAt), text(past.messageCount), past.externalId or '',
  }
end
if past and past.turnToken ~= token and past.turnLeaseUntil > now then return {'busy', text(past.turnLeaseUntil - now)} end
if tonumber(lease) > 0 then
  remember(name, {fingerprint = fingerprint, turnToken = token, turnLeaseUntil = now + lease}, now, ttl, tonumber(most))
elseif past and past.turnToken == token then
  drop({name})
end
return {'ok'}
